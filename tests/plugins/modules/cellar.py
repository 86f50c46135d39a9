"""A driver whose databases are files of JSON: `cellar:///path`. No runtime can use them, but `jamjet db` can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jamjet_kernel import Contents, Database, PluginError, StorageError, hookimpl


@hookimpl
def open_database(url: str) -> Database | None:
    return Cellar(Path(url.removeprefix("cellar://"))) if url.startswith("cellar://") else None


class Bottles:
    def __init__(self, rows: list[Any]) -> None:
        self.tables = {"bottles": ("name", "year")}
        self.kept = rows

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        return map(tuple, self.kept)

    def add(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if any(name == "cracked" for name, _ in rows):
            raise StorageError("it does not hold")
        self.kept += [row for row in rows if row[0] != "leaky"]


class Cellar:
    latest = 7

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> int | None:
        return json.loads(self._path.read_text())["version"] if self._path.exists() else None

    def upgrade(self) -> None:
        self._write(self._rows())

    @contextmanager
    def contents(self) -> Iterator[Contents]:
        yield Bottles(self._rows())

    @contextmanager
    def filling(self) -> Iterator[Contents]:
        if self._rows():
            raise PluginError(f"{self._path} is not empty")
        bottles = Bottles([])
        yield bottles
        self._write(bottles.kept)

    def _rows(self) -> list[Any]:
        return json.loads(self._path.read_text())["rows"] if self._path.exists() else []

    def _write(self, rows: list[Any]) -> None:
        self._path.write_text(json.dumps({"version": self.latest, "rows": rows}))
