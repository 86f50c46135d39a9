"""The REST surface: a file per noun, and `create_app` for all of them.

What stands in `__all__` is public: with it plugins build routes that read, answer and describe themselves as all do.
"""

from . import cursors
from .answers import answer, created, optional_timestamp, timestamp
from .app import create_app
from .models import Answer, Body, Listing, Name, Page, Query, Timestamp
from .requests import body, no_query, principal_of, query

__all__ = [
    "Answer",
    "Body",
    "Listing",
    "Name",
    "Page",
    "Query",
    "Timestamp",
    "answer",
    "body",
    "create_app",
    "created",
    "cursors",
    "no_query",
    "optional_timestamp",
    "principal_of",
    "query",
    "timestamp",
]
