"""Which file a storage URL names."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from jamjet_kernel import PluginError

_SCHEME = re.compile(r"[a-z]\w+(\+\w+)?:|(host|hostaddr|port|user|password|dbname|service)=", re.IGNORECASE | re.ASCII)
"""Of two letters at least: one is a drive of Windows. Or a setting of libpq's, which reads more than URLs."""


def path_of(url: str) -> Path | None:
    """None: another driver's URL. Raises `PluginError` for one that names no file."""
    if "://" not in url:
        if _SCHEME.match(url):
            raise _unusable(url, "it looks like a URL that lost slashes, or is a file whose name begins with ./")
        return _file(url, url)
    if not url.startswith(("sqlite:", "sqlite+pysqlite:")):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _unusable(url, "it cannot be read") from error
    if parsed.host:
        raise _unusable(url, "a relative path comes after three slashes, an absolute one after four")
    if parsed.query:
        raise _unusable(url, "it takes no parameters")
    return _file(url, parsed.database or "")


def _file(url: str, path: str) -> Path:
    if not path.strip() or path == ":memory:":
        raise _unusable(url, "a database in memory would lose what it acknowledged")
    if "\0" in path:
        raise _unusable(url, "a path holds no NUL")
    return Path(path).expanduser().resolve()


def _unusable(url: str, why: str) -> PluginError:
    # It may be meant for another database, with a password.
    shown = re.sub(r":.*@|password=.*", "…", url)
    return PluginError(
        f"cannot use {shown!r} as a SQLite storage: {why}; "
        "try .jamjet/runtime.db, sqlite:///relative.db or sqlite:////absolute/path.db"
    )
