"""Wraps whatever storage the driver opens, to count its commits."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from jamjet_kernel import Commit, JamJetError, Storage, hookimpl


class Counting:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.commits = 0

    async def commit(self, commits: Sequence[Commit]) -> list[JamJetError | None]:
        self.commits += len(commits)
        return await self._storage.commit(commits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@hookimpl(wrapper=True)
def open_storage() -> Generator[None, Storage, Any]:
    return Counting((yield))
