"""The audit log on the command line: looked through, verified, exported, verified without the runtime."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet, Server
from .test_executions import finished


def test_what_was_done_is_listed(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": 21}')

    table = jamjet("audit", "list", "--execution", execution_id).out
    listed = jamjet("audit", "list", "--execution", execution_id, "--type", "node_completed", "--json").json
    few = jamjet("audit", "list", "--limit", "2", "--json").json

    assert "workflow_started" in table
    assert "node/double" in table
    assert [item["resource"] for item in listed["items"]] == ["node/check", "node/double"]
    assert len(few["items"]) == 2
    assert jamjet("audit", "list", "--actor", "nobody").out.strip() == "no records"


def test_an_untouched_log_is_verified(jamjet: Jamjet, project: Path) -> None:
    finished(jamjet, "double.yaml", '{"value": 21}')

    said = jamjet("audit", "verify")
    head = jamjet("audit", "verify", "--json").json["head"]

    assert said.code == ExitCode.OK
    assert "untouched" in said.out
    assert jamjet("audit", "verify", "--expect", f"{head['sequence']}:{head['digest']}").code == ExitCode.OK
    assert jamjet("audit", "verify", "--expect", f"{head['sequence'] + 99}:{head['digest']}").code == ExitCode.FAILED
    assert jamjet("audit", "verify", "--expect", "7").code == ExitCode.USAGE


@pytest.fixture
def export(jamjet: Jamjet, project: Path, tmp_path: Path) -> Path:
    finished(jamjet, "double.yaml", '{"value": 21}')
    file = tmp_path / "audit.jsonl"
    assert jamjet("audit", "export", "--output", file).code == ExitCode.OK
    return file


def test_an_export_is_verified_without_a_runtime(jamjet: Jamjet, export: Path, server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(httpx.get(f"{server.url}/audit/key", trust_env=False).json()["public_key"])

    said = jamjet("audit", "verify", "--file", export, "--key", key, "--runtime", "http://127.0.0.1:1", "--json")

    assert said.code == ExitCode.OK, said.err
    assert said.json["valid"]
    assert said.json["records"] == len(export.read_text().splitlines()) - 1


def test_an_export_that_was_changed_is_not(jamjet: Jamjet, export: Path) -> None:
    export.write_text(export.read_text().replace('"node/double"', '"node/triple"', 1))

    said = jamjet("audit", "verify", "--file", export)

    assert said.code == ExitCode.FAILED
    assert "changed" in said.out


def test_an_export_signed_by_another_key_is_not(jamjet: Jamjet, export: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    public_key = Ed25519PrivateKey.generate().public_key()
    key.write_bytes(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    said = jamjet("audit", "verify", "--file", export, "--key", key)

    assert said.code == ExitCode.FAILED
    assert "forged" in said.out


def test_what_cannot_be_read_is_said(jamjet: Jamjet, export: Path, tmp_path: Path) -> None:
    no_export, no_key = tmp_path / "other.jsonl", tmp_path / "other.pem"
    no_export.write_text("{}")
    no_key.write_text("no key")

    assert "first line" in jamjet("audit", "verify", "--file", no_export).err
    assert jamjet("audit", "verify", "--file", tmp_path / "missing").code == ExitCode.FAILED
    assert "key" in jamjet("audit", "verify", "--file", export, "--key", no_key).err
    assert jamjet("audit", "verify", "--key", no_key).code == ExitCode.USAGE


def test_an_export_goes_to_stdout_too(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("audit", "export")

    assert said.lines[0]["format"] == "jamjet-audit-1"
    assert [line["sequence"] for line in said.lines[1:]] == list(range(1, len(said.lines)))
