"""Calls as a worker would make them, and the functions that they call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jamjet_kernel.nodes.compute import LocalCompute


@pytest.fixture(autouse=True)
def _importable_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "functions")


@pytest.fixture
async def compute() -> AsyncIterator[LocalCompute]:
    compute = LocalCompute(threads=4, processes=2)
    yield compute
    await compute.close()
