"""What all processes of a database should have in common, and what happens when they have not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from jamjet_kernel import DEFAULT_TENANT, Settings
from jamjet_kernel.runtime import Runtime, open_runtime

Open: TypeAlias = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def stack() -> AsyncExitStack:
    return AsyncExitStack()


@pytest.fixture
def open_(postgres_url: str, tmp_path: Path, stack: AsyncExitStack) -> Open:
    """A process with a home of its own, as on a machine of its own."""

    async def open_(home: str, **settings: object) -> Runtime:
        chosen = {"shutdown_grace": 0, "lease_seconds": 0.6, **settings}
        return await stack.enter_async_context(
            open_runtime(Settings(database_url=postgres_url, home=str(tmp_path / home), **chosen))  # type: ignore[arg-type]
        )

    return open_


async def test_processes_with_different_signing_keys_say_so(
    open_: Open, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    async with stack:
        one = await open_("here", auth="off")
        caplog.clear()

        two = await open_("there", auth="off")

        assert one.worker_id in _warnings(caplog)
        async with asyncio.timeout(10):
            while sorted(_warnings(caplog)) != [one.worker_id, two.worker_id]:
                await asyncio.sleep(0.05)
        assert one.identity.fingerprint in caplog.text
        assert two.identity.fingerprint in caplog.text


async def test_processes_with_the_same_signing_key_have_nothing_to_say(
    open_: Open, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    async with stack:
        for _ in range(2):
            await open_("here", auth="off")
        await asyncio.sleep(0.5)

        assert "KEY" not in caplog.text


async def test_of_processes_that_start_at_once_on_a_new_database_one_makes_the_first_token(
    open_: Open, stack: AsyncExitStack, tmp_path: Path
) -> None:
    async with stack:
        one, *_ = await asyncio.gather(*(open_(f"home-{number}") for number in range(4)))

        made = await one.storage.tokens.page(DEFAULT_TENANT)

        assert [token.name for token in made] == ["bootstrap"]
        assert len(list(tmp_path.glob("home-*/operator.token"))) == 1


async def test_a_chosen_token_that_others_do_not_know_is_told(
    open_: Open, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack:
        for home, token in (("here", "one"), ("there", "one"), ("elsewhere", "two")):
            monkeypatch.setenv("JAMJET_BOOTSTRAP_TOKEN", f"the-token-that-was-chosen-for-{token}")
            assert "is new to a database" not in caplog.text
            await open_(home)

        assert "is new to a database that other processes use already" in caplog.text


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The processes that were met."""
    found = [record for record in caplog.records if "SIGNS WITH ANOTHER KEY" in record.msg]
    assert all(record.levelno == logging.WARNING for record in found)
    return [str(record.args[0]) for record in found if isinstance(record.args, tuple)]
