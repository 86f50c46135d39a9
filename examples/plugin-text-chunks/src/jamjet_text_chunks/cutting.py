"""Where a text is cut: at the end of a paragraph, else of a sentence, else of a word."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ENDS = [re.compile(r"\n\s*\n"), re.compile(r"[.!?]\s"), re.compile(r"\s")]


def cut(text: str, size: int, overlap: int = 0) -> Iterator[tuple[int, str]]:
    """Chunks of at most `size` characters, each with the place where it starts.

    A chunk begins with the last `overlap` characters of the one before; that is half of `size` at most.
    """
    start = 0
    while start < len(text):
        end = _end(text, start, size)
        yield start, text[start:end]
        if end == len(text):
            return
        start = end - overlap


def _end(text: str, start: int, size: int) -> int:
    limit = start + size
    if limit >= len(text):
        return len(text)
    # Chunks are at least half full: so each goes further than the overlap takes back.
    for boundary in _ENDS:
        ends = [found.end() for found in boundary.finditer(text, start + size // 2, limit)]
        if ends:
            return ends[-1]
    return limit
