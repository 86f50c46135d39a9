"""From one database into another, all or nothing, and looked at afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from ..errors import StorageError
from ..ports import Contents, Database

Row = tuple[Any, ...]

ROWS, BYTES = 500, 4 * 2**20
"""In memory at a time, whichever comes first."""


@dataclass(frozen=True)
class Copied:
    table: str
    rows: int
    sha256: str


def copy(source: Database, target: Database, *, told: Callable[[str, int], None]) -> list[Copied]:
    """`told` hears what is under way and how many rows of it are done.

    Both are read again before the copy is made true: each table has as many rows on both sides, and the same ones.
    Raises `PluginError` where one of the databases cannot be used, and `StorageError`; then the target is empty.
    """
    with source.contents() as old, target.filling() as new:
        _check_that_they_keep_the_same(old, new)
        for table in old.tables:
            _copy(old, new, table, told)
        return [_compared(old, new, table, told) for table in old.tables]


def _check_that_they_keep_the_same(old: Contents, new: Contents) -> None:
    theirs, ours = ({name: tuple(columns) for name, columns in each.tables.items()} for each in (old, new))
    if theirs != ours:
        differing = sorted({name for name, _ in theirs.items() ^ ours.items()})
        raise StorageError(f"the two storages do not keep the same tables: {', '.join(differing)} differ")


def _copy(old: Contents, new: Contents, table: str, told: Callable[[str, int], None]) -> None:
    done = 0
    for rows in batches(old.rows(table)):
        new.add(table, rows)
        done += len(rows)
        told(f"copying {table}", done)


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(batch) == ROWS or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _compared(old: Contents, new: Contents, table: str, told: Callable[[str, int], None]) -> Copied:
    read, written = (_summed_up(each, table, told) for each in (old, new))
    if read != written:
        raise StorageError(
            f"the copy of {table} is not what was read: {written.rows} rows with the digest {written.sha256}, "
            f"not {read.rows} with {read.sha256}; nothing was stored"
        )
    return written


def _summed_up(contents: Contents, table: str, told: Callable[[str, int], None]) -> Copied:
    """Databases sort texts each in its own way, so the digest is the sum of those of the rows, in any order."""
    rows = total = 0
    for batch in batches(contents.rows(table)):
        total += sum(int.from_bytes(sha256(msgspec.msgpack.encode(row)).digest()) for row in batch)
        rows += len(batch)
        told(f"comparing {table}", rows)
    return Copied(table, rows, f"{total % 2**256:064x}")
