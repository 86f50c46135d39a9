"""The command as a whole: help, options that all commands share, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from jamjet_kernel.cli.app import app
from jamjet_kernel.cli.exit_codes import MEANINGS, ExitCode

from .conftest import BIN, Jamjet

COMMANDS = [
    "init",
    "validate",
    "dev",
    "run",
    "worker",
    "inspect",
    "events",
    "list",
    "cancel",
    "pause",
    "approve",
    "approvals",
    "resume",
    "retry",
    "fork",
    "workflows",
    "workers",
    "plugins",
]
NOBODY = "http://127.0.0.1:1"


def test_help_lists_every_command_and_exit_code(jamjet: Jamjet) -> None:
    said = jamjet("--help")

    assert said.code == 0
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    assert all(command in said.out for command in COMMANDS)
    assert set(MEANINGS) == set(ExitCode)
    assert "Exit codes: 0 done" in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(jamjet: Jamjet, command: str) -> None:
    said = jamjet(command, "--help")

    assert said.code == 0
    assert "--json" in said.out


def test_the_version_is_the_distributions(jamjet: Jamjet) -> None:
    assert jamjet("--version").out == f"jamjet {version('jamjet-runtime')}\n"


@pytest.mark.parametrize("arguments", [["list"], ["run", "double.yaml"], ["events", "exec_1", "--after", "2"]])
def test_without_a_runtime_it_says_how_to_start_one(
    jamjet: Jamjet, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "double.yaml").write_text("workflow: {id: a, version: 1.0.0}\nnodes: {end: {type: end}}\n")

    said = jamjet(*arguments, "--runtime", NOBODY)

    assert said.code == ExitCode.UNREACHABLE
    assert said.out == ""
    assert said.err.splitlines() == [
        f"error: no runtime answers at {NOBODY}",
        "hint: start one with `jamjet dev`, or name another with --runtime",
    ]


def test_shared_options_work_before_and_after_the_command(jamjet: Jamjet) -> None:
    before = jamjet("--runtime", NOBODY, "list")
    after = jamjet("list", "--runtime", NOBODY)

    assert before == after


def test_the_runtime_is_named_by_the_environment_too(jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAMJET_PORT", "2")
    by_port = jamjet("list").err
    monkeypatch.setenv("JAMJET_RUNTIME", NOBODY)
    by_url = jamjet("list").err

    assert "http://127.0.0.1:2" in by_port
    assert NOBODY in by_url


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:port", "ftp://example"])
def test_a_wrong_url_is_a_usage_error(jamjet: Jamjet, url: str) -> None:
    said = jamjet("list", "--runtime", url)

    assert said.code == ExitCode.USAGE
    assert url in said.err


@pytest.mark.parametrize(
    ("value", "why"),
    [("{x", "not JSON"), ("[1]", "must be a JSON object"), ("@nowhere.json", "cannot read nowhere.json")],
)
def test_an_input_that_is_no_object_is_a_usage_error(jamjet: Jamjet, value: str, why: str) -> None:
    said = jamjet("run", "workflow.yaml", "--input", value, "--runtime", NOBODY)

    assert said.code == ExitCode.USAGE
    assert why in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["list", "--unknown"],
        ["cancel"],
        ["resume", "x", "--payload", "1"],
    ],
)
def test_wrong_usage_has_a_code_of_its_own(jamjet: Jamjet, arguments: list[str]) -> None:
    assert jamjet(*arguments).code == ExitCode.USAGE


def test_plugins_says_what_is_installed_and_where_from(jamjet: Jamjet) -> None:
    said = jamjet("plugins", "--json")

    found = {plugin["name"]: plugin for plugin in said.json["plugins"]}
    assert found["nodes"]["distribution"] == "jamjet-runtime"
    assert "node_executors" in found["nodes"]["hooks"]
    assert found["sqlite"]["hooks"] == ["open_database", "open_storage"]
    assert "jamjet_storage_sqlite" in jamjet("plugins").out


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("JAMJET_PORT", "many", "must be a whole number"),
        ("JAMJET_LEASE_SECONDS", "inf", "must be a finite number"),
        ("JAMJET_LEASE_SECONDS", "1e300", "must be less than or equal to 86400"),
        ("JAMJET_RECEIPT_HOURS", "9" * 12, "must be less than or equal to 87600"),
        ("JAMJET_QUEUE_LIMITS", "gpu=" + "9" * 20, "write it as model=10,gpu=2"),
        ("JAMJET_PUBLIC_URL", "example.com", "is no URL that others could reach"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(
    jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)

    said = jamjet("dev")

    assert said.code == ExitCode.USAGE
    assert f"{name}: " in said.err
    assert why in said.err


def test_the_installed_commands_start() -> None:
    for command in ("jamjet", "jamjet-server"):
        done = subprocess.run([BIN / command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_help_imports_neither_the_server_nor_the_client() -> None:
    """So that it is quick."""
    script = "import sys, jamjet_kernel.cli.app; print([m for m in ('httpx', 'uvicorn', 'falcon') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_no_color_is_honoured(tmp_path: Path) -> None:
    environment = {"NO_COLOR": "1", "FORCE_COLOR": "1", "PATH": str(BIN)}

    done = subprocess.run([BIN / "jamjet", "plugins"], env=environment, capture_output=True, text=True, check=True)

    assert "\x1b[3" not in done.stdout


def test_a_setting_is_called_by_the_name_that_was_set(jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_LOG", "bogus")

    assert jamjet("dev").err.splitlines()[1] == (
        "  RUST_LOG: 'bogus' is not a log level; try debug, info, warning or error"
    )


def test_a_storage_without_a_driver_is_told_with_what_works(jamjet: Jamjet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "oracle://localhost/jamjet")

    said = jamjet("dev", "--port", 0)

    assert said.code == ExitCode.FAILED
    assert "no storage named 'oracle'; installed: postgresql, sqlite" in said.err
    assert ".jamjet/runtime.db is SQLite's" in said.err


@pytest.mark.parametrize("command", [["run"], ["tokens", "create"], ["agents", "list"], ["audit", "verify"]])
def test_help_shows_no_types(jamjet: Jamjet, command: list[str]) -> None:
    assert "<" not in jamjet(*command, "--help").out


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["inspect", "x"],
        ["events", "x"],
        ["events", "x", "--follow"],
        ["cancel", "x"],
        ["approvals"],
        ["approve", "x"],
        ["workflows"],
        ["workflows", "x", "latest"],
        ["workers"],
        ["agents", "list"],
        ["agents", "activate", "x"],
        ["tokens", "list"],
        ["tokens", "create", "x", "--role", "viewer"],
        ["tokens", "revoke", "x"],
        ["audit", "list"],
        ["audit", "verify"],
        ["audit", "export"],
    ],
)
def test_another_service_is_no_runtime(jamjet: Jamjet, stranger: str, command: list[str]) -> None:
    said = jamjet(*command, "--runtime", stranger)

    assert said.code == ExitCode.UNREACHABLE
    assert said.out == ""
    assert f"what answers at {stranger} is no JamJet runtime" in said.err


@pytest.fixture
def stranger() -> Iterator[str]:
    """A service that answers everything with JSON of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as service:
        Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"status": "fine"}')

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass
