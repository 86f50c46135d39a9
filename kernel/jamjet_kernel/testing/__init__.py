"""For plugin authors: what a plugin must do, as tests to inherit. Needs pytest and pytest-asyncio."""

from .executors import ExecutorContract
from .storage import StorageContract

__all__ = ["ExecutorContract", "StorageContract"]
