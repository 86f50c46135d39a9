"""Which version of the schema a database has, and how it becomes the one of this runtime.

The steps from one version to the next are Alembic's revisions, a module each in `versions`. Alembic is imported only
where there is a step to take: an ordinary start asks the database one question.
"""

from __future__ import annotations

import logging

from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, func, insert, inspect, select

from jamjet_kernel import PluginError

from ..schema import SCHEMA_VERSION, metadata

log = logging.getLogger("jamjet.storage")

# Not Alembic's usual name: other applications in the same database may use that one.
VERSION_TABLE = "jamjet_schema"
_versions = Table(VERSION_TABLE, MetaData(), Column("version_num", Text, primary_key=True))

_ADVISORY_LOCK = 0x4A616D4A
"""`JamJ`: whoever holds it changes the schema."""


def prepare(engine: Engine, *, migrate: bool, place: str) -> None:
    """Afterwards the tables are there as this runtime knows them. Of several processes one sees to it, the others wait.

    `place` names the database in messages. Raises `PluginError` where the database is newer, somebody else's, or not
    to be changed; then it is as it was.
    """
    with engine.begin() as tx:
        if not must_change(version_of(tx), migrate=migrate, place=place):
            return
    with engine.execution_options(writes=True).begin() as tx:
        _wait_for_others(tx)
        version = version_of(tx)
        if must_change(version, migrate=migrate, place=place):
            _change(tx, version, place)


def version_of(tx: Connection) -> int | None:
    """None: the database has no tables of ours."""
    if inspect(tx).has_table(VERSION_TABLE):
        return int(tx.execute(select(_versions.c.version_num)).scalar_one())
    if tx.dialect.name == "sqlite":
        # All that versions 1 and 2 have.
        return tx.exec_driver_sql("PRAGMA user_version").scalar_one() or None
    return None


def must_change(version: int | None, *, migrate: bool, place: str) -> bool:
    """Raises `PluginError` where it must and may not, or cannot."""
    if version == SCHEMA_VERSION:
        return False
    if version is not None and version > SCHEMA_VERSION:
        raise PluginError(
            f"{place} has the schema version {version}, made by a newer runtime; this one knows versions up to "
            f"{SCHEMA_VERSION}: upgrade jamjet-runtime, or name another database"
        )
    if not migrate:
        if version is None:
            raise PluginError(f"{place} holds no runtime yet, and JAMJET_MIGRATE is off: run `jamjet db upgrade`")
        raise PluginError(
            f"{place} has the schema version {version}, this runtime needs version {SCHEMA_VERSION}, and JAMJET_MIGRATE"
            " is off: make a backup, then run `jamjet db upgrade`"
        )
    return True


def _wait_for_others(tx: Connection) -> None:
    # SQLite has one writer at a time anyway.
    if tx.dialect.name == "postgresql":
        for timeout in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            # However long a step takes. It holds for this transaction only.
            tx.exec_driver_sql(f"SET LOCAL {timeout} = 0")
        tx.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _change(tx: Connection, version: int | None, place: str) -> None:
    if version is None:
        _create(tx, place)
    else:
        log.info("upgrading %s from schema version %d to %d", place, version, SCHEMA_VERSION)
        _upgrade(tx, version)
    if tx.dialect.name == "sqlite":
        # Where earlier releases look for a version that is too new for them.
        tx.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _create(tx: Connection, place: str) -> None:
    """As all the steps would leave it, at once."""
    strangers = sorted(metadata.tables.keys() & set(inspect(tx).get_table_names()))
    if strangers:
        raise PluginError(
            f"{place} has tables of another application ({', '.join(strangers)}); name another database, an empty one"
        )
    metadata.create_all(tx, checkfirst=False)
    _mark(tx, SCHEMA_VERSION)


def _upgrade(tx: Connection, version: int) -> None:
    if not inspect(tx).has_table(VERSION_TABLE):
        _mark(tx, version)
    from .steps import take

    take(tx)


def _mark(tx: Connection, version: int) -> None:
    _versions.create(tx)
    tx.execute(insert(_versions).values(version_num=f"{version:04}"))
