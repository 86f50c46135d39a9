"""Where a command's words go: answers to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console, RenderableType

Answer = TypeVar("Answer")

# A pipe has no width: a table in it must not be cut at 80 columns.
_PIPE_WIDTH = 1_000


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


answers = _console(stderr=False)
problems = _console(stderr=True)


@dataclass(frozen=True)
class Output:
    """Says an answer to a person, or with `json` to a script: then stdout holds JSON and nothing else."""

    json: bool = False

    def answer(self, value: Answer, rendered: Callable[[Answer], RenderableType]) -> None:
        if self.json:
            self.value(value)
        else:
            answers.print(rendered(value), crop=False)
            if isinstance(value, dict) and value.get("next_cursor"):
                self.note("[dim]there are more: --limit says how many to show[/]")

    def value(self, value: Any) -> None:
        """JSON in any case: indented for a person, one line for a script."""
        text = json.dumps(value, ensure_ascii=False, indent=2 if answers.is_terminal else None)
        if answers.is_terminal and not self.json:
            answers.print_json(text)
        else:
            print(text, flush=True)

    def line(self, value: Any) -> None:
        """One JSON line."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def note(self, text: str) -> None:
        """Something beside the answer, for people only."""
        if not self.json:
            problems.print(text, soft_wrap=True)
