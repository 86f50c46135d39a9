"""One Ray cluster for all tests of this folder, and a compute that is connected to it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent / "support"))

from ray_calls import Caller
from ray_cluster import ENVIRONMENT, RayCluster

from jamjet_compute_ray import open_compute
from jamjet_kernel import Settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("ray") is None:
        skip = pytest.mark.skip(reason="Ray has no wheel for this Python")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[None]:
    """Ray's own settings, as the processes of the tests have them."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def cluster(ray_environment: None) -> Iterator[RayCluster]:
    cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def caller(cluster: RayCluster) -> AsyncIterator[Caller]:
    """Through Ray Client, as from a machine that is not part of the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAMJET_RAY_CANCEL_GRACE", "1")
        patch.setenv("JAMJET_RAY_RESUBMITS", "1")
        compute = open_compute(url=cluster.url, settings=Settings())
    assert compute is not None
    yield Caller(compute)
    await compute.close()
