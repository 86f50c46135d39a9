"""A storage on any SQL database that SQLAlchemy speaks to: schema, statements, `SqlStorage`.

A library for storage drivers, not a plugin. A driver brings what differs: an engine, the threads that
statements run on, and whether this process alone writes.
"""

from .bulk import Bulk
from .database import SqlDatabase
from .migrations import must_change, prepare, version_of
from .schema import SCHEMA_VERSION, metadata
from .storage import SqlStorage
from .wire import Answer, CommitLost, Request, Row, Wire, total

__all__ = [
    "SCHEMA_VERSION",
    "Answer",
    "Bulk",
    "CommitLost",
    "Request",
    "Row",
    "SqlDatabase",
    "SqlStorage",
    "Wire",
    "metadata",
    "must_change",
    "prepare",
    "total",
    "version_of",
]
