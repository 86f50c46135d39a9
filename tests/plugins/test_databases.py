"""A driver's databases as `jamjet db` sees them: by the hook `open_database` and the port."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel import Database, PluginError, Settings, StorageError
from jamjet_kernel.cli.copying import BYTES, ROWS, batches, copy
from jamjet_kernel.plugins import open_database


@pytest.fixture
def shelf(environment: Any, tmp_path: Path) -> Path:
    environment.install("cellar", group="jamjet.storage")
    return tmp_path


def cellar(path: Path, *bottles: tuple[str, int | None]) -> Database:
    if bottles:
        path.write_text(json.dumps({"version": 7, "rows": bottles}))
    return open_database(Settings(database_url=f"cellar://{path}"))


def nobody(what: str, rows: int) -> None:
    pass


def test_a_drivers_database_is_upgraded_by_its_port(shelf: Path) -> None:
    database = cellar(shelf / "a")
    assert database.version() is None

    database.upgrade()

    assert database.version() == database.latest == 7


def test_a_copy_has_the_same_digest_in_whatever_order_the_rows_are(shelf: Path) -> None:
    rows = [("riesling", 1971), ("silvaner", None), ("riesling", 1976)]
    source, same, other = cellar(shelf / "a", *rows), cellar(shelf / "b", *rows[::-1]), cellar(shelf / "c", *rows[:2])

    copied, again, another = (
        copy(database, cellar(shelf / f"copy-{number}"), told=nobody)[0]
        for number, database in enumerate((source, same, other))
    )

    assert (copied.table, copied.rows) == ("bottles", 3)
    assert copied == again != another
    assert json.loads((shelf / "copy-0").read_text())["rows"] == [list(row) for row in rows]


@pytest.mark.parametrize(
    ("bottle", "said"), [("cracked", "does not hold"), ("leaky", "the copy of bottles is not what was read: 1 rows")]
)
def test_a_copy_that_fails_leaves_nothing(shelf: Path, bottle: str, said: str) -> None:
    source = cellar(shelf / "a", ("riesling", 1971), (bottle, 1972))

    with pytest.raises(StorageError, match=said):
        copy(source, cellar(shelf / "b"), told=nobody)

    assert not (shelf / "b").exists()


def test_storages_that_keep_different_tables_are_not_copied(shelf: Path) -> None:
    other = open_database(Settings(database_url=str(shelf / "runtime.db")))

    with pytest.raises(StorageError, match=r"do not keep the same tables: agent_labels, .*bottles"):
        copy(cellar(shelf / "a", ("riesling", 1971)), other, told=nobody)


def test_a_driver_that_does_not_offer_it_is_told(environment: Any) -> None:
    environment.install("temporary", group="jamjet.storage")

    with pytest.raises(PluginError, match=r"the storage 'temporary' cannot be upgraded or copied .*hook open_database"):
        open_database(Settings(database_url="temporary://"))


def test_what_is_in_memory_at_a_time_is_bounded() -> None:
    many = [("x", 1)] * (2 * ROWS + 1)
    large = [(b"x" * (BYTES // 2),)] * 5

    assert [len(batch) for batch in batches(many)] == [ROWS, ROWS, 1]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
