"""Which cluster is meant, and what is refused before anything starts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jamjet_compute_ray
from jamjet_compute_ray import open_compute
from jamjet_compute_ray.settings import RaySettings, address_of
from jamjet_kernel import PluginError, Settings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ray", "local"),
        ("ray:local", "local"),
        ("ray:auto", "auto"),
        ("ray:10.0.0.1:6379", "10.0.0.1:6379"),
        ("ray://head.example:10001", "ray://head.example:10001"),
        ("ray://[::1]:10001", "ray://[::1]:10001"),
    ],
)
def test_a_url_names_a_cluster(url: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    assert address_of(url) == address


def test_ray_alone_is_the_cluster_that_rays_own_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")

    assert address_of("ray") == "10.0.0.1:6379"
    assert address_of("ray:local") == "local"


@pytest.mark.parametrize("url", ["ray:nonsense", "ray:", "ray://head", "ray://head:10001/path"])
def test_a_url_that_names_no_cluster_is_refused(url: str) -> None:
    with pytest.raises(PluginError, match="names no Ray cluster; write ray://host:10001"):
        open_compute(url=url, settings=Settings())


@pytest.mark.parametrize("url", ["", "local", "rayon", "elsewhere://x"])
def test_other_computes_are_left_to_others(url: str) -> None:
    assert open_compute(url=url, settings=Settings()) is None


@pytest.mark.parametrize(("url", "missing"), [("ray:local", "ray"), ("ray://head:10001", "grpc")])
def test_a_missing_package_is_told_with_its_remedy(url: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        return None if name == missing else importlib.util.find_spec(name)

    monkeypatch.setattr(jamjet_compute_ray, "find_spec", find_spec)

    with pytest.raises(PluginError) as refused:
        open_compute(url=url, settings=Settings())

    assert str(refused.value) == f"JAMJET_COMPUTE={url} needs {missing}: pip install 'jamjet-runtime[ray]'"


def test_ray_is_imported_in_the_drivers_process_only() -> None:
    code = """
import sys
from jamjet_compute_ray import open_compute
from jamjet_kernel import Settings
assert open_compute(url="local", settings=Settings()) is None
assert "jamjet_compute_ray.compute" not in sys.modules
open_compute(url="ray:local", settings=Settings())
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_are_json_where_rays_are_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAMJET_RAY_RUNTIME_ENV", '{"working_dir": "."}')
    monkeypatch.setenv("JAMJET_RAY_INIT", '{"num_cpus": 4}')
    monkeypatch.setenv("JAMJET_RAY_RESUBMITS", "0")

    read = RaySettings.read()

    assert (read.runtime_env, read.init, read.resubmits) == ({"working_dir": "."}, {"num_cpus": 4}, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CANCEL_GRACE", "inf", "JAMJET_RAY_CANCEL_GRACE: Input should be less than or equal to 86400"),
        ("RUNTIME_ENV", "{", "JAMJET_RAY_RUNTIME_ENV: is JSON"),
        ("RUNTIME_ENV", "[]", "JAMJET_RAY_RUNTIME_ENV: is an object"),
        ("INIT", '{"address": "x"}', "JAMJET_RAY_INIT: leaves address to JAMJET_COMPUTE"),
        ("RESUBMITS", "-1", "JAMJET_RAY_RESUBMITS: Input should be greater than or equal to 0"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"JAMJET_RAY_{name}", value)

    with pytest.raises(PluginError) as refused:
        open_compute(url="ray:local", settings=Settings())

    assert f"a setting of the plugin ray is not valid: {message}" in str(refused.value)


@pytest.mark.parametrize(
    ("folder", "home", "excludes"),
    [
        (".", ".jamjet", ["*.csv", "/.jamjet/"]),
        (".", "deep/data", ["*.csv", "/deep/data/"]),
        ("elsewhere", ".jamjet", ["*.csv"]),
        ("https://example.com/code.zip", ".jamjet", ["*.csv"]),
    ],
)
def test_the_runtimes_secrets_stay_when_a_folder_is_sent_to_the_cluster(
    folder: str, home: str, excludes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMJET_RAY_RUNTIME_ENV", json.dumps({"working_dir": folder, "excludes": ["*.csv"]}))

    sent = RaySettings.read().runtime_env_without(Path(home))

    assert sent == {"working_dir": folder, "excludes": excludes}
