"""What can be wrong with a workflow file, with the line it is wrong on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import Invalid, Problem


@dataclass(frozen=True)
class FileProblem(Problem):
    """One thing that is wrong. `place` is the field as its author wrote it; lines and columns count from 1."""

    file: str = ""
    line: int | None = None
    column: int | None = None

    @property
    def field(self) -> str:
        return self.place

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {super().__str__()}"


class AuthoringError(Invalid):
    """The workflow file cannot be compiled; `problems` are all of them, in the order of the file."""

    problems: list[FileProblem]  # type: ignore[assignment]  # a narrower list than the base class promises

    def __init__(self, problems: Iterable[FileProblem]) -> None:
        found = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.column or 0))
        super().__init__(found)
        self.details["problems"] = [
            {"file": p.file, "line": p.line, "column": p.column, "place": p.place, "message": p.message} for p in found
        ]


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: empty where nothing is close."""
    close = get_close_matches(word, sorted(set(words) - {word}), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
