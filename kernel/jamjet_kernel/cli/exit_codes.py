"""What `jamjet` says to the script that called it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    WAITING = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed, refused or invalid",
    ExitCode.USAGE: "wrong usage or setting",
    ExitCode.CANCELLED: "the execution was cancelled",
    ExitCode.WAITING: "the execution waits for a person or an event (run --no-wait)",
    ExitCode.UNREACHABLE: "no runtime answers",
    ExitCode.INTERRUPTED: "interrupted; the execution goes on",
}

_OF_STATUS = {"completed": ExitCode.OK, "failed": ExitCode.FAILED, "cancelled": ExitCode.CANCELLED}


def of_status(status: str) -> ExitCode:
    """For an execution that was followed until it had this status."""
    return _OF_STATUS.get(status, ExitCode.WAITING)
