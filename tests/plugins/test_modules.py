"""The plugins that docs/plugins.md shows beside the example: they do what the page says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jamjet_kernel import PluginError, Principal, Settings, Status, Storage
from jamjet_kernel.runtime import open_runtime
from jamjet_kernel.testing import StorageContract

ME = Principal()
LEN = {"type": "tool", "fn": "builtins:len", "arguments": "{{ state.word }}"}
WORKFLOW = {"workflow_id": "w", "version": "1.0.0", "nodes": {"len": LEN}, "edges": [{"from": "len", "to": "end"}]}


class TestTemporary(StorageContract):
    @pytest_asyncio.fixture
    async def storage(self, environment: Any) -> AsyncIterator[Storage]:
        environment.install("temporary", group="jamjet.storage")
        storage = environment.module("temporary").open_storage(url="temporary://")
        yield storage
        await storage.close()


class Listener:
    """An HTTP server that keeps what is posted to it."""

    def __init__(self, status: int = 204) -> None:
        self.got: list[Any] = []
        self._status = status

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        self.got.append(json.loads(await reader.readexactly(length)))
        writer.write(f"HTTP/1.1 {self._status} So\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("status", [204, 500])
async def test_the_webhook_is_told_of_every_end_before_the_runtime_stops(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    environment.install("webhook", webhook="webhook:webhook")
    listener = Listener(status)
    server = await asyncio.start_server(listener, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{port}/ended")

    async with server, open_runtime(Settings(database_url=str(tmp_path / "runtime.db"))) as runtime:
        await runtime.register(ME, WORKFLOW)
        good = await runtime.start(ME, "w", None, {"word": "four"})
        bad = await runtime.start(ME, "w", None, {"word": 4})
        ended = [(await runtime.wait(ME, execution, 10)).head.status for execution in (good, bad)]

    assert ended == [Status.COMPLETED, Status.FAILED]
    assert {each["execution_id"] for each in listener.got} == {good, bad}


async def test_the_webhook_says_what_it_lacks(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install("webhook", webhook="webhook:webhook")
    monkeypatch.delenv("WEBHOOK_URL", raising=False)

    with pytest.raises(PluginError, match="needs the environment variable WEBHOOK_URL"):
        async with open_runtime(Settings(database_url=str(tmp_path / "runtime.db"))):
            pass
