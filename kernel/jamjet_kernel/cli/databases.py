"""Databases as the command line speaks of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .failures import CommandFailed


def place_of(url: str) -> str:
    """Where it is, without the password."""
    scheme, is_url, rest = url.partition("://")
    if not is_url:
        return path_from_here(url)
    # Parameters may hold secrets too.
    credentials, has_credentials, place = rest.partition("?")[0].rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}{has_credentials}{place}"


def path_from_here(path: str | Path) -> str:
    """Relative where it lies in the current folder."""
    absolute = os.path.abspath(Path(path).expanduser())
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith(os.pardir) else relative


@contextlib.contextmanager
def hinted_at_storages(url: str) -> Iterator[None]:
    """Tells what else could be named where no driver answers to the URL."""
    from ..errors import PluginError
    from ..plugins import DRIVERS, names, scheme_of

    try:
        yield
    except PluginError as error:
        if scheme_of(url) in names(DRIVERS):
            raise
        raise CommandFailed(
            str(error),
            hint="DATABASE_URL names it; a path such as .jamjet/runtime.db is SQLite's, postgresql://… PostgreSQL's",
        ) from error
