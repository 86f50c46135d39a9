"""One runtime a file: a lock that goes with its process, however it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jamjet_kernel import PluginError


def lock(path: Path) -> Callable[[], None]:
    """Locks the database at `path`, makes its folder where there is none, and answers how to release it."""
    held = FileLock(f"{path}.lock", thread_local=False)
    try:
        _make_folder(path.parent)
        held.acquire(blocking=False)
        _owner(path).write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
    except Timeout as error:
        raise PluginError(
            f"{path} is in use by {_told_owner(path)}; stop that one, or set DATABASE_URL to another file"
        ) from error
    except (OSError, NotImplementedError) as error:
        held.release()
        raise PluginError(
            f"cannot lock {path}: {error}; the folder must be writable and its file system able to lock"
        ) from error

    def release() -> None:
        with suppress(OSError):
            _owner(path).unlink()
        held.release()

    return release


def _make_folder(folder: Path) -> None:
    if folder.exists():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Makes a new name in the folder survive a power cut. SQLite does so for its files, not for their folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _owner(path: Path) -> Path:
    """Beside the lock file: to write into that one would be a race with whoever tries the lock."""
    return path.with_name(f"{path.name}.owner")


def _told_owner(path: Path) -> str:
    try:
        return f"the runtime with {_owner(path).read_text().strip()}"
    except OSError:
        return f"another process, which holds {path}.lock"
