"""Processes that a test has begun, or another process for it."""

from __future__ import annotations

import psutil


def is_dead(pid: int) -> bool:
    """Also where nobody has waited for it, and its number lives on as a zombie's."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
