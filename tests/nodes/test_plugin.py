"""The hooks by which the built-in kinds enter."""

from __future__ import annotations

import subprocess
import sys

import pluggy
import pytest

from jamjet_kernel import hookspecs, nodes
from jamjet_kernel.nodes.compute import LocalCompute
from jamjet_kernel.ports import Compute, NodeExecutor
from jamjet_kernel.settings import Settings


@pytest.fixture
def hooks() -> pluggy.HookRelay:
    manager = pluggy.PluginManager("jamjet")
    manager.add_hookspecs(hookspecs)
    manager.register(nodes)
    manager.check_pending()
    return manager.hook


async def test_the_built_in_kinds_are_contributed(hooks: pluggy.HookRelay, compute: LocalCompute) -> None:
    [executors] = hooks.node_executors(settings=Settings(), compute=compute)

    assert {executor.kind for executor in executors} == {"python_fn", "tool", "http"}
    assert all(isinstance(executor, NodeExecutor) for executor in executors)


@pytest.mark.parametrize("url", ["", "local"])
async def test_functions_run_here_unless_another_compute_is_named(hooks: pluggy.HookRelay, url: str) -> None:
    compute = hooks.open_compute(url=url, settings=Settings())

    assert isinstance(compute, Compute)
    await compute.close()


def test_another_compute_is_not_ours(hooks: pluggy.HookRelay) -> None:
    assert hooks.open_compute(url="ray://cluster", settings=Settings()) is None


def test_what_few_workflows_need_is_not_imported_at_start() -> None:
    script = "import sys, jamjet_kernel.nodes; print({'httpx', 'multiprocessing.connection'} & set(sys.modules))"

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "set()"
