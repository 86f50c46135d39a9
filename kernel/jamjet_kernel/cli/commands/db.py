"""The database of a runtime: its schema's version, upgrades, copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import render
from ..exit_codes import ExitCode
from ..failures import CommandFailed, read_settings
from ..output import problems
from ..session import Session, local

if TYPE_CHECKING:
    from ...ports import Database
    from ...settings import Settings

DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", metavar="URL", help="A path or URL; else DATABASE_URL.")
]


@local
def status(session: Session, database_url: DatabaseUrl = None) -> None:
    """Tell the schema version of a database, and whether this runtime can use it as it is.

    Exits with 1 when it cannot. Changes nothing, also while a runtime is at work.
    """
    settings, database = _opened(database_url)
    version = database.version()
    answer = {**_about(settings, database), "version": version, "state": _state(version, database.latest)}
    session.output.answer(answer, render.database_status)
    if version != database.latest:
        raise typer.Exit(ExitCode.FAILED)


@local
def upgrade(session: Session, database_url: DatabaseUrl = None) -> None:
    """Bring a database to the schema version of this runtime, or make a new one.

    All of it happens or nothing. Make a backup before, and stop the runtimes of the earlier version.
    """
    settings, database = _opened(database_url)
    before = database.version()
    database.upgrade()
    answer = {**_about(settings, database), "from": before, "to": database.version()}
    session.output.answer(answer, render.database_upgrade)


@local
def copy(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The database to read: a path or URL.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="An empty database: a path or URL.")],
) -> None:
    """Copy a whole runtime into another database, from SQLite to PostgreSQL or back.

    No runtime may be at work on either. All of it is copied or nothing: at the end both sides are read again, and
    counts and digests of every table compared.
    """
    from ..copying import copy
    from ..databases import place_of

    old, from_database = _opened(source)
    new, to_database = _opened(target)
    if from_database.place == to_database.place:
        raise CommandFailed("SOURCE and TARGET are the same database", code=ExitCode.USAGE)
    begun = time.perf_counter()
    with _progress(shown=not session.output.json) as told:
        tables = [asdict(each) for each in copy(from_database, to_database, told=told)]
    answer = {
        "source": place_of(source),
        "target": place_of(target),
        "rows": sum(each["rows"] for each in tables),
        "seconds": round(time.perf_counter() - begun, 3),
        "tables": tables,
        "home": _left_behind(old, new),
    }
    session.output.answer(answer, render.database_copy)


def _opened(url: str | None) -> tuple[Settings, Database]:
    from ...plugins import open_database
    from ..databases import hinted_at_storages

    settings = read_settings(database_url=url)
    with hinted_at_storages(settings.database_url):
        return settings, open_database(settings)


def _about(settings: Settings, database: Database) -> dict[str, Any]:
    from ..databases import place_of

    return {"database": place_of(settings.database_url), "latest": database.latest}


def _state(version: int | None, latest: int) -> str:
    if version is None:
        return "empty"
    return "current" if version == latest else "old" if version < latest else "newer"


def _left_behind(old: Settings, new: Settings) -> dict[str, Any]:
    """The files of the runtime that are not in its database, and where one on the copy looks for them."""
    from ..databases import path_from_here

    files = [name for name in ("signing.key", "operator.token") if (old.home_folder / name).exists()]
    return {
        "files": files,
        "source": path_from_here(old.home_folder),
        "target": path_from_here(new.home_folder),
    }


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, int], None]]:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=problems, transient=True, disable=not (shown and problems.is_terminal)) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, rows: progress.update(task, description=what, completed=rows)
