"""Server-sent events as the client reads them, and a runtime that has too much to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jamjet_kernel.cli import client
from jamjet_kernel.cli.client import Client, Refused, server_sent

from .conftest import Server, end, start_dev


def test_comments_and_other_fields_are_left_out() -> None:
    lines = [": keep-alive", "", "id: 1", "event: NodeCompleted", "data: {}", "", "data:a", "data: b", ""]

    assert list(server_sent(lines)) == ["{}", "a\nb"]


def test_an_event_that_was_cut_off_is_left_out() -> None:
    assert list(server_sent(["data: 1", "", "data: 2"])) == ["1"]


NOBODYS = {"type": "python_fn", "function": "steps:double", "queue": "nobodys"}
IR = {"workflow_id": "waits", "version": "1.0.0", "nodes": {"a": NOBODYS}, "edges": [{"from": "a", "to": "end"}]}


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, str]]:
    """A runtime for which one node that nobody takes is too much, and the execution with that node."""
    monkeypatch.setenv("JAMJET_MAX_BACKLOG", "0")
    monkeypatch.setenv("JAMJET_LEASE_SECONDS", "0.3")
    server = start_dev(tmp_path)
    asked = Client(server.url, server.token)
    try:
        asked.register(IR)
        execution_id: str = asked.start("waits", "1.0.0", {})["execution_id"]
        time.sleep(0.5)
        yield server, execution_id
    finally:
        asked.close()
        end(server)


def test_an_overloaded_runtime_is_asked_again(busy: tuple[Server, str]) -> None:
    server, execution_id = busy
    notes: list[str] = []
    asked, other = Client(server.url, server.token, note=notes.append), Client(server.url, server.token)
    timer = threading.Timer(0.5, lambda: other.cancel(execution_id))
    timer.start()

    started = asked.start("waits", "1.0.0", {})

    assert started["execution_id"] != execution_id
    assert notes == ["the runtime has too much to do; trying again for 60 seconds"]
    timer.join()
    asked.close()
    other.close()


def test_an_overloaded_runtime_is_not_asked_for_ever(busy: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_OVERLOADED_FOR", 0)
    asked = Client(busy[0].url, busy[0].token)

    with pytest.raises(Refused, match="more than 0 nodes wait for a worker"):
        asked.start("waits", "1.0.0", {})
    asked.close()
