"""What tests of several areas share: a runtime on a SQLite file of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jamjet_kernel import Settings
from jamjet_kernel.runtime import Runtime, open_runtime


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=str(tmp_path / "runtime.db"), shutdown_grace=0, auth="off")


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with open_runtime(settings) as opened:
        yield opened
