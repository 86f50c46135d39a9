"""The application on a real runtime with SQLite, without a socket."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from falcon.testing import ASGIConductor

sys.path.insert(0, str(Path(__file__).parent / "support"))

import http_steps
from http_support import Client

from jamjet_kernel.http import create_app
from jamjet_kernel.runtime import Runtime, open_runtime
from jamjet_kernel.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Without tokens: what is not about who calls needs none."""
    return Settings(database_url=str(tmp_path / "runtime.db"), max_body_bytes=10_000, shutdown_grace=0, auth="off")


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    http_steps.gates.clear()
    async with open_runtime(settings) as runtime:
        yield runtime


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[Client]:
    async with ASGIConductor(create_app(runtime)) as conductor:
        document = await conductor.simulate_get("/openapi.json", host="localhost")
        yield Client(conductor, document.json, runtime)
