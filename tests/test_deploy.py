"""What lies in deploy/ fits the runtime that it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices
from ruamel.yaml import YAML

from jamjet_auth.settings import AuthSettings
from jamjet_kernel import Settings
from jamjet_kernel.runtime.identity import load_identity

DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.fixture(scope="module")
def compose() -> Any:
    return YAML(typ="safe").load(DEPLOY / "compose.yaml")


def test_the_runtimes_are_alike_and_set_what_there_is_to_set(compose: Any) -> None:
    one, two = compose["services"]["runtime-1"], compose["services"]["runtime-2"]
    known = {f"JAMJET_{name.upper()}" for model in (Settings, AuthSettings) for name in model.model_fields}
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    known |= {str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}

    assert one == two
    assert one["environment"].keys() <= known
    assert set(re.findall(r"\b(JAMJET_[A-Z_]+)=", (DEPLOY / "Dockerfile").read_text())) <= known


def test_the_time_to_stop_is_enough_for_all_that_happens_in_it(compose: Any) -> None:
    grace = int(compose["services"]["runtime-1"]["stop_grace_period"].removesuffix("s"))

    assert grace > 5 + 3 + Settings.model_fields["shutdown_grace"].default


def test_the_load_balancer_knows_the_runtimes_and_asks_whether_they_are_ready(compose: Any) -> None:
    config = (DEPLOY / "haproxy.cfg").read_text()
    runtimes = {name for name in compose["services"] if name.startswith("runtime")}

    assert set(re.findall(r"^ +server (\S+) \1:7700$", config, re.M)) == runtimes
    assert "uri /ready " in config


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the secrets")
def test_the_secrets_are_made_once_and_are_what_the_runtime_takes(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = shutil.copy(DEPLOY / "secrets", tmp_path)
    subprocess.run([script], check=True, capture_output=True)
    file = tmp_path / ".env"
    first = file.read_text()

    subprocess.run([script], check=True, capture_output=True)
    made = subprocess.run(["sh", "-c", f"set -a; . {file}; env"], capture_output=True, text=True, check=True).stdout

    assert file.read_text() == first
    assert file.stat().st_mode & 0o777 == 0o600
    secrets = dict(line.split("=", 1) for line in made.splitlines() if line.partition("=")[0] in first)
    wanted = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert wanted <= secrets.keys()
    for name in wanted & {"JAMJET_SIGNING_KEY", "JAMJET_BOOTSTRAP_TOKEN"}:
        monkeypatch.setenv(name, secrets[name])
    assert load_identity(Settings(home=str(tmp_path / "nowhere"))).public_pem
    chosen = AuthSettings().bootstrap_token
    assert chosen is not None
    assert len(chosen.get_secret_value()) >= 32
    assert not os.path.exists(tmp_path / "nowhere")


def test_without_an_openssl_that_can_there_are_no_secrets(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "secrets", tmp_path)
    for refuses in ("rand", "genpkey"):
        openssl = tmp_path / "openssl"
        openssl.write_text(f'#!/bin/sh\n[ "$1" != {refuses} ] && echo made\n')
        openssl.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

        made = subprocess.run([script], env={**os.environ, "PATH": path}, check=False)

        assert made.returncode != 0
        assert not (tmp_path / ".env").exists()
