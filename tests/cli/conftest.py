"""The command, called in this process, and a real runtime behind it in another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from jamjet_kernel.cli import main

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Jamjet = Callable[..., Said]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JAMJET_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)


@pytest.fixture
def jamjet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Jamjet:
    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["jamjet", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@dataclass(frozen=True)
class Server:
    """A process that serves from a folder of its own."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    @property
    def token(self) -> str:
        """The operator's, made by the first start."""
        return (self.folder / ".jamjet" / "operator.token").read_text().strip()

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def start_dev(folder: Path, port: int = 0) -> Server:
    """`jamjet dev`, ready for requests."""
    command: list[str | Path] = [BIN / "jamjet", "dev", "--port", str(port), "--json"]
    errors = (folder / "server.log").open("w")
    with errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        process.communicate(timeout=10)
        raise AssertionError(f"the server did not start: {(folder / 'server.log').read_text()}")
    return Server(process, json.loads(first)["url"], folder)


def read_until(word: str, stream: IO[str]) -> list[str]:
    """The lines up to the one with the word."""
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"it ended without {word}: {''.join(lines)}")


def end(server: Server) -> None:
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait(timeout=10)
    assert server.process.stdout is not None
    server.process.stdout.close()


STEPS = """
import asyncio

def double(value: int) -> dict:
    return {"value": value * 2}

def only_positive(value: int) -> dict:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return {"checked": True}

async def slow(seconds: float = 60) -> dict:
    await asyncio.sleep(seconds)
    return {"slept": True}
"""

DOUBLE = """
workflow: {id: double, version: 0.1.0, start: double}
nodes:
  double: {type: python_fn, module: steps, function: double, next: check}
  check: {type: python_fn, module: steps, function: only_positive, next: end}
  end: {type: end}
"""

SLOW = """
workflow: {id: slow, version: 0.1.0, start: sleep}
nodes:
  sleep: {type: python_fn, module: steps, function: slow, next: end}
  end: {type: end}
"""

REVIEW = """
workflow: {id: review, version: 0.1.0, start: ask}
nodes:
  ask: {type: human_approval, description: "Spend it?", next: double}
  double: {type: python_fn, module: steps, function: double, next: end}
  end: {type: end}
"""

PAYMENT = """
workflow: {id: payment, version: 0.1.0, start: paid}
nodes:
  paid: {type: wait, condition: external_event, correlation_key: payment-received, output_key: payment, next: end}
  end: {type: end}
"""


def write_project(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "steps.py").write_text(STEPS)
    for name, text in {"double": DOUBLE, "slow": SLOW, "review": REVIEW, "payment": PAYMENT}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that only ask and tell it things."""
    started = start_dev(write_project(tmp_path_factory.mktemp("served")))
    yield started
    end(started)


@pytest.fixture
def project(server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The served folder is the current one, and commands talk to its server."""
    monkeypatch.chdir(server.folder)
    monkeypatch.setenv("JAMJET_URL", server.url)
    return server.folder
