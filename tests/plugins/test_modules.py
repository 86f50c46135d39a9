"""The plugins that docs/plugins.md shows beside the example: they do what the page says."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from falcon.testing import ASGIConductor, Result

from jamjet_kernel import PluginError, Principal, Settings, Status, Storage
from jamjet_kernel.http import create_app
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


# The letterbox


class Shelf:
    """An HTTP server with one document, at one path."""

    def __init__(self, path: str, document: Any) -> None:
        self._path = path
        self._body = json.dumps(document).encode()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        status, body = ("200 OK", self._body) if asked == self._path else ("404 Not Found", b"")
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


CARD = {"letterbox": {"owner": "Ada Lovelace", "address": "post:ada", "writes_about": ["engines"]}, "stamps": 2}


@asynccontextmanager
async def serving(card: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(Shelf("/.well-known/agent.json", card), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest_asyncio.fixture
async def door(environment: Any, tmp_path: Path) -> AsyncIterator[ASGIConductor]:
    """A runtime that has no other protocol."""
    environment.install("letterbox")
    settings = Settings(
        database_url=str(tmp_path / "runtime.db"),
        plugins=("nodes", "letterbox"),
        allow_networks=("loopback",),
        auth="off",
    )
    async with open_runtime(settings) as runtime, ASGIConductor(create_app(runtime)) as conductor:
        yield conductor


async def discover(door: ASGIConductor, url: str) -> Result:
    return await door.simulate_post("/agents/discover", json={"url": url}, host="localhost")


async def test_an_agent_is_discovered_by_a_card_that_only_a_plugin_can_read(door: ASGIConductor) -> None:
    async with serving(CARD) as url:
        answer = await discover(door, url)

    agent = answer.json
    assert (answer.status_code, agent["agent_id"], agent["name"]) == (201, "ada-lovelace", "Ada Lovelace")
    assert (agent["uri"], agent["skills"], agent["protocols"]) == ("post:ada", ["engines"], ["letter"])
    assert agent["card"] == CARD
    found = await door.simulate_get("/agents", params={"protocol": "letter", "q": "eng"}, host="localhost")
    assert [each["agent_id"] for each in found.json["agents"]] == ["ada-lovelace"]


async def test_a_broken_card_is_told_in_the_words_of_its_protocol(door: ASGIConductor) -> None:
    async with serving({"letterbox": {"owner": "Ada", "address": "post:ada"}}) as url:
        answer = await discover(door, url)

    assert answer.status_code == 424
    assert "letterbox.writes_about: is missing or wrong" in answer.json["error"]


async def test_a_card_that_no_protocol_knows_says_which_there_are(door: ASGIConductor) -> None:
    async with serving({"pigeon": {}}) as url:
        answer = await discover(door, url)

    assert answer.status_code == 424
    assert "of no kind that is known here (letter)" in answer.json["error"]


async def test_two_plugins_for_one_protocol_stop_the_start(environment: Any, tmp_path: Path) -> None:
    environment.install("letterbox")
    source = Path(environment.module("letterbox").__file__).read_text()
    environment.install("postbox", source)

    with pytest.raises(PluginError, match="two plugins bring the agent protocol 'letter'"):
        async with open_runtime(Settings(database_url=str(tmp_path / "runtime.db"))):
            pass


# The dashboard


@pytest.mark.parametrize(
    ("method", "password", "status"),
    [("GET", "seldom-changed", 200), ("GET", "guessed", 401), ("POST", "seldom-changed", 403)],
)
async def test_the_dashboard_looks_with_its_password_and_changes_nothing(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, password: str, status: int
) -> None:
    environment.install("dashboard")
    monkeypatch.setenv("DASHBOARD_PASSWORD", "seldom-changed")
    credential = base64.b64encode(f"dashboard:{password}".encode()).decode()

    async with (
        open_runtime(Settings(database_url=str(tmp_path / "runtime.db"))) as runtime,
        ASGIConductor(create_app(runtime)) as conductor,
    ):
        headers = {"Authorization": f"Basic {credential}"}
        answer = await conductor.simulate_request(method, "/executions", headers=headers, host="localhost")

    assert answer.status_code == status


async def test_the_dashboard_leaves_tokens_to_others(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install("dashboard")
    monkeypatch.setenv("DASHBOARD_PASSWORD", "seldom-changed")
    settings = Settings(database_url=str(tmp_path / "runtime.db"))

    async with open_runtime(settings) as runtime, ASGIConductor(create_app(runtime)) as conductor:
        headers = {"Authorization": f"Bearer {settings.operator_token_file.read_text().strip()}"}
        answer = await conductor.simulate_get("/tokens", headers=headers, host="localhost")

    assert answer.status_code == 200
