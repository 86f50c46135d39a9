"""Agents: found, looked at, put to work."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet

CARD = {
    "name": "Route Planner",
    "description": "Plans.",
    "version": "2.0.0",
    "supportedInterfaces": [{"url": "https://agent.example.com/a2a", "protocolBinding": "JSONRPC"}],
    "skills": [{"id": "route-planner", "name": "Route planning", "description": "Plans.", "tags": ["maps"]}],
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        known = self.path == "/.well-known/agent-card.json"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(CARD).encode() if known else b"")


@pytest.fixture
def place() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_agent_on_this_machine_is_discovered_and_put_to_work(jamjet: Jamjet, project: Path, place: str) -> None:
    said = jamjet("agents", "discover", f"http://{place}")
    assert said.code == 0, said.err
    assert "https://agent.example.com/a2a" in said.out

    up = jamjet("agents", "activate", place)
    table = jamjet("agents", "list", "--status", "active", "--protocol", "a2a").out
    found = jamjet("agents", "list", "--search", "route", "--json").json["agents"]
    whole = jamjet("agents", "inspect", place, "--json").json
    down = jamjet("agents", "deactivate", place, "--json")

    assert up.out == f"{place} is active\n"
    assert place in table
    assert "Route planning" in table
    assert place in [agent["agent_id"] for agent in found]
    assert whole["card"] == CARD
    assert '"supportedInterfaces"' in jamjet("agents", "inspect", place).out
    assert down.json == {"agent_id": place, "status": "deactivated"}


def test_no_agents_are_told_as_such(jamjet: Jamjet, project: Path) -> None:
    assert jamjet("agents", "list", "--skill", "nothing of the kind").out == "no agents\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("inspect", "nobody"), "not found: agent nobody"),
        (("activate", "a/b"), "not"),
        (("discover", "http://169.254.169.254"), "not public (metadata)"),
        (("discover", "http://127.0.0.1:1"), "cannot be reached"),
    ],
)
def test_what_does_not_work_is_said(jamjet: Jamjet, project: Path, arguments: tuple[str, ...], why: str) -> None:
    said = jamjet("agents", *arguments)

    assert (said.code, said.out) == (ExitCode.FAILED, "")
    assert why in said.err
