"""`jamjet worker`: how it begins and ends, and what it calls. How it lives is among the scenarios."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import BIN, Jamjet, Server, end, start_dev, write_project

FUNCTIONS = """
import asyncio
import os
import re
import time

from jamjet_kernel import NodeContext, NodeFailed, NodeResult, RateLimited, Usage
from steps import double

async def about(context: NodeContext):
    await context.emit({"at": 1})
    context.logger.info("hello from %s", context.node_id)
    return {"key": context.idempotency_key, "attempt": context.attempt, "left": context.remaining()}

def in_thread(context: NodeContext):
    context.emit("from a thread")
    return NodeResult(None, {"patched": True}, Usage(input_tokens=3, cost_usd=0.5, model="m"))

def where():
    return os.getpid()

def refuse():
    raise NodeFailed("no", retryable=False, error_class="io_error", details={"why": "because"})

async def limited(marker: str):
    if not os.path.exists(marker):
        open(marker, "x").close()
        raise RateLimited(0.1, "later")
    return {"done": True}

async def slow():
    await asyncio.sleep(60)

def no_json():
    return object()

def large():
    return "x" * 5_000_000

def crash():
    os._exit(1)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of their own: who works for it is seen there for a while."""
    started = start_dev(write_project(tmp_path_factory.mktemp("worked-for")))
    (started.folder / "functions.py").write_text(FUNCTIONS)
    yield started
    end(started)


@contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that is ready."""
    command = [BIN / "jamjet", "worker", "--queues", "cli", "--module", "functions", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first, process.communicate(timeout=10)
        assert json.loads(first)["queues"] == ["cli"]
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def workflow(**node: Any) -> str:
    nodes = {"a": {"queue": "cli", "next": "end", **node}, "end": {"type": "end"}}
    Path("remote.json").write_text(
        json.dumps({"workflow": {"id": f"remote-{os.urandom(4).hex()}", "version": "0.1.0"}, "nodes": nodes})
    )
    return "remote.json"


def calling(function: str, **node: Any) -> str:
    return workflow(type="python_fn", function=f"functions:{function}", **node)


def failure(jamjet: Jamjet, file: str) -> dict[str, Any]:
    said = jamjet("run", file, "--json")
    assert said.code == ExitCode.FAILED, said
    newest = jamjet("list", "--limit", 1, "--json").json["executions"][0]["execution_id"]
    error: dict[str, Any] = jamjet("inspect", newest, "--json").json["error"]
    return error


# How it begins and ends


def start_badly(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "jamjet", "worker", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (["--runtime", "http://127.0.0.1:9"], {}, ExitCode.UNREACHABLE, "no runtime answers at http://127.0.0.1:9"),
        ([], {"JAMJET_TOKEN": "jam_guessed"}, ExitCode.FAILED, "invalid or expired token"),
        (["--module", "./functions"], {}, ExitCode.FAILED, "'./functions' is no module's name; write module or"),
        (["--module", "functoins"], {}, ExitCode.FAILED, "there is no module 'functoins'; similar: functions"),
        (["--module", "broken_module"], {}, ExitCode.FAILED, "the module 'broken_module' cannot be imported"),
        (["--queues", " , "], {}, ExitCode.USAGE, "--queues names no queue"),
        (["--runtime", "nonsense"], {}, ExitCode.USAGE, "'nonsense' is not the URL of a runtime"),
        (["--name", "worker_" + "0" * 32], {}, ExitCode.FAILED, "is what processes of the runtime are called"),
    ],
    ids=["away", "token", "path", "module", "broken", "queues", "url", "name"],
)
def test_what_keeps_it_from_working_is_said_in_one_line(
    project: Path, arguments: list[str], environment: dict[str, str], code: int, words: str
) -> None:
    (project / "broken_module.py").write_text("import nothing_like_it\n")

    said = start_badly("--queues", "cli", "--module", "functions", *arguments, **environment)

    assert said.returncode == code, said.stderr
    assert words in said.stderr
    assert "Traceback" not in said.stderr
    assert "asking again" not in said.stderr


def test_what_is_missing_is_wrong_usage(project: Path) -> None:
    assert start_badly("--queues", "cli").returncode == ExitCode.USAGE
    assert start_badly("--module", "steps").returncode == ExitCode.USAGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_success(project: Path, number: int) -> None:
    with worker() as process:
        process.send_signal(number)

        _, errors = process.communicate(timeout=10)

        assert process.returncode == ExitCode.OK
        assert "Traceback" not in errors


def test_it_is_among_the_workers(jamjet: Jamjet, project: Path) -> None:
    with worker("--name", "gpu-box", "--concurrency", "3") as process:
        found = {one["worker_id"]: one for one in jamjet("workers", "--json").json["workers"]}

        shown = found["gpu-box"]
        assert (shown["kind"], shown["pid"], shown["queues"]) == ("remote", process.pid, ["cli"])
        assert shown["concurrency"] == 3
        assert "gpu-box" in jamjet("workers").out


# What it calls


@pytest.fixture
def at_work(project: Path) -> Iterator[subprocess.Popen[str]]:
    with worker("--name", "here") as process:
        yield process


def test_a_function_gets_what_it_gets_in_the_runtime(jamjet: Jamjet, at_work: subprocess.Popen[str]) -> None:
    said = jamjet("run", calling("about", node_timeout_secs=30), "--json")

    assert said.code == ExitCode.OK, said
    state = said.json["state"]
    assert state["attempt"] == 1
    assert state["key"].endswith(":a:0")
    assert 25 < state["left"] <= 30


def test_results_usage_and_progress_arrive(jamjet: Jamjet, at_work: subprocess.Popen[str]) -> None:
    assert jamjet("run", calling("in_thread"), "--json").json["state"] == {"patched": True}

    newest = jamjet("list", "--limit", 1, "--json").json["executions"][0]["execution_id"]
    events = {event["kind"]: event["data"] for event in jamjet("events", newest, "--json").lines}
    assert events["NodeProgressed"]["data"] == "from a thread"
    assert events["NodeCompleted"]["usage"] == {"input_tokens": 3, "cost_usd": 0.5, "model": "m"}
    assert events["NodeStarted"]["worker_id"] == "here"
    assert "at here" in jamjet("events", newest).out


def test_a_function_may_run_in_a_process_of_its_own(jamjet: Jamjet, at_work: subprocess.Popen[str]) -> None:
    said = jamjet("run", calling("where", isolation="process"), "--json")

    assert said.json["state"]["a"] not in (at_work.pid, os.getpid())


def test_a_tool_is_called_with_its_arguments(jamjet: Jamjet, project: Path) -> None:
    with worker("--module", "steps"):
        file = workflow(type="tool", fn="steps:double", arguments={"value": 21})

        assert jamjet("run", file, "--json").json["state"]["value"] == 42


def test_a_rate_limit_costs_no_attempt(jamjet: Jamjet, at_work: subprocess.Popen[str], tmp_path: Path) -> None:
    file = calling("limited", input_mapping={"marker": str(tmp_path / "marker")})

    assert jamjet("run", file, "--json").json["state"]["done"] is True


def test_a_failure_is_told_as_it_was_raised(jamjet: Jamjet, at_work: subprocess.Popen[str]) -> None:
    error = failure(jamjet, calling("refuse", retry_policy="fast"))

    assert error == {"message": "no", "error_class": "io_error", "node_id": "a", "details": {"why": "because"}}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"function": "os:getcwd"}, "here calls functions of the modules it was given (--module functions)"),
        ({"function": "functions:double"}, "functions of 'steps' may not be called; the worker's --module allows"),
        ({"function": "functions:missing"}, "there is no 'missing' in functions"),
        ({"function": "functions:no_json"}, "the result is not JSON"),
        ({"function": "functions:large"}, "the result is too large"),
        ({"function": "functions:slow", "node_timeout_secs": 0.3}, "took longer than 0.3 s"),
        ({"function": "functions:crash", "isolation": "process"}, "died without an answer"),
        ({"type": "http", "url": "http://127.0.0.1:9"}, "here runs python_fn and tool nodes only, not http"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_fails_the_node_and_not_the_worker(
    jamjet: Jamjet, at_work: subprocess.Popen[str], node: dict[str, Any], words: str
) -> None:
    error = failure(jamjet, workflow(**{"type": "python_fn", **node}))

    assert words in error["message"]
    assert at_work.poll() is None


# In another language's terms


def test_the_worker_of_the_documentation_works(jamjet: Jamjet, project: Path, server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (script,) = [text for text in shown if "/work-items/claim" in text]
    node = {"type": "tool", "fn": "somewhere:else", "queue": "shout", "output_key": "said"}
    code = script.replace("http://127.0.0.1:7700", server.url)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "JAMJET_TOKEN": server.token})
    try:
        said = jamjet("run", workflow(**node), "--input", '{"text": "hello"}', "--json")
    finally:
        process.kill()
        process.wait(timeout=10)

    assert said.json["state"]["said"] == {"text": "HELLO"}
