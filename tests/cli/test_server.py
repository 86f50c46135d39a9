"""`jamjet dev` and `jamjet-server`: how a server begins and ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from jamjet_kernel.cli import client, session
from jamjet_kernel.cli.databases import path_from_here
from jamjet_kernel.cli.exit_codes import ExitCode
from jamjet_kernel.cli.failures import CommandFailed

from .conftest import BIN, Jamjet, Server, end, read_until, start_dev, write_project
from .test_executions import start


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the test may stop."""
    server = start_dev(write_project(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMJET_URL", server.url)
    yield server
    end(server)


def serve(
    *arguments: object, cwd: Path, command: str = "jamjet-server", **environment: str
) -> subprocess.CompletedProcess[str]:
    program, *first = command.split()
    env = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(
        [BIN / program, *first, *map(str, arguments)],
        cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@contextmanager
def served(*arguments: str, cwd: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of a server that is ready, and its process."""
    process = subprocess.Popen(
        [BIN / "jamjet-server", "--port", "0", *arguments], cwd=cwd, env={"PATH": "/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[4], process
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_success(own: Server, number: int) -> None:
    assert own.stop(number) == ExitCode.OK
    assert "Traceback" not in (own.folder / "server.log").read_text()


def test_a_function_that_does_not_return_holds_the_end_for_the_grace_only(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import time\n\ndef sleep():\n    open('asleep', 'x')\n    time.sleep(60)\n")
    nodes = {"a": {"type": "python_fn", "function": "endless:sleep"}}
    ir = {"workflow_id": "endless", "version": "1.0.0", "nodes": nodes, "edges": [{"from": "a", "to": "end"}]}
    environment = {"JAMJET_SHUTDOWN_GRACE": "0.2", "JAMJET_AUTH": "off"}
    with served(cwd=tmp_path, **environment) as (url, process):
        httpx.post(f"{url}/workflows", json={"ir": ir}).raise_for_status()
        httpx.post(f"{url}/executions", json={"workflow_id": "endless"}).raise_for_status()
        while not (tmp_path / "asleep").exists():
            time.sleep(0.01)

        process.terminate()

        assert process.wait(timeout=10) == 0


def test_a_misspelt_setting_is_told(tmp_path: Path) -> None:
    environment = {"JAMJET_LEASE_SECOND": "3", "JAMJET_RAY_RESUBMITS": "1", "JAMJET_LOG": "info", "JAMJET_TOKEN": "x"}
    with served(cwd=tmp_path, **environment) as (_, process):
        process.terminate()
        said = process.communicate(timeout=20)[1]

    assert [line.partition("JAMJET_")[2] for line in said.splitlines() if "is no setting" in line] == [
        "LEASE_SECOND is no setting and changes nothing; was JAMJET_LEASE_SECONDS meant?"
    ]


def test_open_event_streams_do_not_hold_the_end(jamjet: Jamjet, own: Server) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 1}')
    url = f"{own.url}/executions/{execution_id}/events"
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {own.token}"}
    with httpx.stream("GET", url, headers=headers, timeout=10) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if "WorkflowPaused" in line)
        began = time.monotonic()

        code = own.stop()

        assert code == ExitCode.OK
        assert time.monotonic() - began < 5
        assert list(lines)[-1:] in ([""], [])
    assert "rror" not in (own.folder / "server.log").read_text()


def test_a_request_that_waits_is_answered_as_things_are_at_the_end(jamjet: Jamjet, own: Server) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 1}')
    with _sent(own, f"GET /executions/{execution_id}?wait=30 HTTP/1.1") as answer:
        code = own.stop()

        assert answer().startswith("HTTP/1.1 200 ")
    assert code == ExitCode.OK
    assert "Traceback" not in (own.folder / "server.log").read_text()


def test_a_request_that_does_not_come_to_an_end_is_turned_away(own: Server) -> None:
    with _sent(own, "POST /executions HTTP/1.1", "Content-Type: application/json", "Content-Length: 10") as answer:
        code = own.stop()
        answered = answer()

    assert code == ExitCode.OK
    assert answered.startswith("HTTP/1.1 503 ")
    assert '"code": "unavailable"' in answered
    assert "Traceback" not in (own.folder / "server.log").read_text()


@contextmanager
def _sent(server: Server, *lines: str) -> Iterator[Callable[[], str]]:
    """A request that has arrived; what is yielded reads its answer."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as connection:
        head = "\r\n".join([*lines, "Host: localhost", f"Authorization: Bearer {server.token}", "", ""])
        connection.sendall(head.encode())
        httpx.get(f"{server.url}/health")  # sent later and answered, so the first one has arrived
        yield lambda: connection.makefile("rb").read().decode()


def test_following_survives_a_restart(jamjet: Jamjet, own: Server) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 1}')
    follower = subprocess.Popen(
        [BIN / "jamjet", "events", execution_id, "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    seen = read_until("WorkflowPaused", follower.stdout)

    own.stop()
    again = start_dev(own.folder, int(own.url.rpartition(":")[2]))
    approved = jamjet("approve", execution_id)
    rest, told = follower.communicate(timeout=20)
    end(again)

    assert approved.code == ExitCode.OK, approved.err
    lines = [*seen, *rest.splitlines()]
    assert follower.returncode == ExitCode.OK
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert "WorkflowCompleted" in lines[-1]
    assert told.splitlines() == [
        f"note: lost the connection to {own.url}; trying again",
        "note: connected again",
    ]


def test_following_gives_up_on_a_runtime_that_does_not_come_back(
    jamjet: Jamjet, own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAUSES_BETWEEN_CONNECTIONS", (0, 0))
    execution_id = start(jamjet, "review.yaml", '{"value": 1}')
    with closing(client.Client(own.url, own.token)) as asked:
        events = asked.follow(execution_id)
        seen = next(events)

        own.stop()

        with pytest.raises(CommandFailed, match="no runtime answers") as lost:
            list(events)
    assert seen["kind"] == "WorkflowStarted"
    assert lost.value.code is ExitCode.UNREACHABLE


def test_a_busy_port_is_said_in_one_line(own: Server, tmp_path: Path) -> None:
    port = own.url.rpartition(":")[2]

    refused = serve("--port", port, cwd=tmp_path)

    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert len(refused.stderr.splitlines()) == 2
    assert "another runtime may run there" in refused.stderr


def test_an_address_that_is_not_of_this_machine_is_said_in_one_line(tmp_path: Path) -> None:
    refused = serve("--host", "192.0.2.1", cwd=tmp_path)

    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.startswith("error: cannot listen on 192.0.2.1:7700: ")
    assert "is an address of this machine" in refused.stderr


def test_a_database_that_another_runtime_owns_is_said_in_one_line(own: Server) -> None:
    refused = serve("--port", 0, cwd=own.folder)

    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com", "192.168.1.1"])
@pytest.mark.parametrize("command", ["jamjet-server", "jamjet dev"])
def test_without_authentication_only_loopback_is_served(command: str, host: str, tmp_path: Path) -> None:
    by_option = serve("--host", host, "--no-auth", cwd=tmp_path, command=command)
    by_environment = serve(cwd=tmp_path, command=command, JAMJET_BIND=host, JAMJET_AUTH="off")

    for refused in (by_option, by_environment):
        assert refused.returncode == ExitCode.USAGE
        assert f"authentication can be off only where others cannot connect, and '{host}'" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_authentication_other_machines_are_served(tmp_path: Path) -> None:
    with served("--host", "0.0.0.0", cwd=tmp_path) as (url, _):
        port = url.rpartition(":")[2]

        health = httpx.get(f"http://127.0.0.1:{port}/health", headers={"Host": "runtime.internal"})
        refused = httpx.get(f"http://127.0.0.1:{port}/executions")

    assert health.status_code == 200
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid or expired token")


def test_authentication_is_switched_off_with_a_warning(tmp_path: Path) -> None:
    with served("--no-auth", cwd=tmp_path) as (url, process):
        answer = httpx.get(f"{url}/executions")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)

    assert answer.status_code == 200
    assert "authentication is off" in errors
    assert not (tmp_path / ".jamjet" / "operator.token").exists()


# The first token


def test_the_first_start_makes_an_operators_token_and_tells_it_once(tmp_path: Path) -> None:
    file = tmp_path / ".jamjet" / "operator.token"
    told = []
    for _ in range(2):
        with served(cwd=tmp_path) as (url, process):
            token = file.read_text().strip()
            answer = httpx.get(f"{url}/tokens", headers={"Authorization": f"Bearer {token}"})
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=20)
            told.append((token in out, token in errors))

        assert [each["role"] for each in answer.json()["tokens"]] == ["operator"]
        assert file.stat().st_mode & 0o777 == 0o600
    assert told == [(False, True), (False, False)]


def test_a_chosen_token_is_added_and_kept_in_no_file(tmp_path: Path) -> None:
    names = []
    for chosen in ("first-chosen-token-of-an-installation", "first-chosen-token-of-an-installation", "second"):
        with served(cwd=tmp_path, JAMJET_BOOTSTRAP_TOKEN=chosen) as (url, process):
            answer = httpx.get(f"{url}/tokens", headers={"Authorization": f"Bearer {chosen}"})
            names.append(len(answer.json()["tokens"]))
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=20)

        assert chosen not in out + errors
    assert names == [1, 1, 2]
    assert not (tmp_path / ".jamjet" / "operator.token").exists()


def test_a_newcomer_types_no_token(jamjet: Jamjet, own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found = jamjet("list")
    monkeypatch.chdir("/")
    elsewhere = jamjet("list")
    monkeypatch.setenv("JAMJET_HOME", str(own.folder / ".jamjet"))
    with_home = jamjet("list")

    assert (found.code, with_home.code) == (ExitCode.OK, ExitCode.OK)
    assert elsewhere.code == ExitCode.FAILED
    assert "invalid or expired token" in elsewhere.err
    assert "--token" in elsewhere.err


def test_a_kept_token_is_sent_to_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".jamjet").mkdir()
    (tmp_path / ".jamjet" / "operator.token").write_text("secret\n")
    monkeypatch.chdir(tmp_path)

    assert session.kept_token("http://127.0.0.1:7700") == session.kept_token("http://localhost") == "secret"
    for url in ("http://192.168.0.1:7700", "https://example.com", "http://localhost.example.com", "nonsense"):
        assert session.kept_token(url) is None


def test_an_unknown_storage_is_named_with_what_is_installed(tmp_path: Path) -> None:
    refused = serve("--port", 0, "--database-url", "oracle://db", cwd=tmp_path)

    assert refused.returncode == ExitCode.FAILED
    assert "oracle" in refused.stderr
    assert "sqlite" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_server_says_one_line_when_it_is_ready(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN / "jamjet-server", "--port", "0", "--database-url", "own.db"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    ready = process.stdout.readline()
    url = ready.split()[4]

    health = httpx.get(f"{url}/health")
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=20)

    assert ready.startswith("JamJet Runtime ")
    assert ready.endswith(" (database own.db)\n")
    assert health.json()["status"] == "ok"
    assert "server" not in health.headers
    assert rest == ""
    assert "Traceback" not in errors


def test_what_is_no_http_is_answered_as_any_other_error(own: Server) -> None:
    url = httpx.URL(own.url)
    with closing(socket.create_connection((url.host, url.port or 0), timeout=10)) as connection:
        connection.sendall(b"FOO /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.makefile("rb").read()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in head
    assert set(json.loads(body)) == {"error", "code", "details"}


def test_ipv6_loopback_is_served(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    process = subprocess.Popen(
        [BIN / "jamjet-server", "--port", "0", "--host", "::1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[4]

    answer = httpx.get(f"{url}/health")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert url.startswith("http://[::1]:")
    assert answer.status_code == 200


def test_a_database_is_told_as_it_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    assert path_from_here(here / "data" / "x.db") == "data/x.db"
    assert path_from_here("data/x.db") == "data/x.db"
    assert path_from_here(tmp_path / "x.db") == str(tmp_path / "x.db")
    assert path_from_here("../x.db") == str(tmp_path / "x.db")


def test_dev_says_that_functions_are_loaded_once(tmp_path: Path) -> None:
    process = subprocess.Popen([BIN / "jamjet", "dev", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    banner = read_until("Stop", process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert any("functions are loaded once: restart after editing them" in line for line in banner)
