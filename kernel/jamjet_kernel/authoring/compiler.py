"""What all parts of one compilation share: the file, the kinds that are installed, the problems so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..core.definition import CONTROL_KINDS
from .problems import FileProblem
from .source import Written

MAX_PROMPT = 1024 * 1024
Fields = dict[str, Written]
"""What stands in a mapping. A compiler takes out what it understands; the rest goes to the node's kind."""


@dataclass
class Compiler:
    file: str
    folder: Path
    kinds: Mapping[str, type[BaseModel]]
    problems: list[FileProblem] = field(default_factory=list)
    node_ids: frozenset[str] = frozenset()

    def problem(self, at: Written, message: str, field: str = "") -> None:
        place = ".".join(filter(None, (at.place, field)))
        self.problems.append(FileProblem(place, message, self.file, at.line, at.column))

    def fields(self, written: Written | None) -> Fields:
        """The members of a mapping, to take from. Nothing is an empty one."""
        if written is None or written.value is None:
            return {}
        if isinstance(written.value, dict):
            return dict(written.value)
        self.problem(written, f"must be a mapping, not {_kind_of(written.value)}")
        return {}

    def members(self, written: Written | None) -> list[Written]:
        """The members of a list; one thing is a list of one."""
        if written is None or written.value is None:
            return []
        return list(written.value) if isinstance(written.value, list) else [written]

    def text(self, written: Written | None) -> str | None:
        """A name or an id. Anything else is a problem, and nothing."""
        if written is None or isinstance(written.value, str):
            return None if written is None else written.value
        self.problem(written, f"must be a text, not {_kind_of(written.value)}")
        return None

    def by_name(self, written: Written) -> Written:
        """A section of named things; a list of things that have a `name` is read as one."""
        if not isinstance(written.value, list):
            return written
        named: Fields = {}
        for member in written.value:
            fields = self.fields(member)
            name = self.text(fields.pop("name", None))
            if name is None:
                self.problem(member, "needs a name")
            else:
                named[name] = member.saying(fields)
        return written.saying(named)

    def declares(self, kind: str | None, name: str) -> bool:
        """Whether an executor's own configuration has a field of this name. Then it is the executor's."""
        model = None if kind in CONTROL_KINDS else self.kinds.get(kind or "")
        if model is None:
            return False
        return any(name in (key, info.alias) for key, info in model.model_fields.items())

    def prompt(self, written: Written, path: Written) -> Written:
        """The text of the file that a prompt names. It must lie below the workflow file's folder."""
        name = self.text(path)
        if name is None:
            return written.saying("")
        try:
            return written.saying(self._read(name))
        except ValueError as error:
            self.problem(path, str(error))
            return written.saying("")

    def _read(self, name: str) -> str:
        if "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file")
        folder = self.folder.resolve()
        try:
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise ValueError(f"{name!r} leads out of the workflow file's folder")
            content = path.read_bytes()[: MAX_PROMPT + 1]
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"cannot read {name!r}: {reason}") from error
        if len(content) > MAX_PROMPT:
            raise ValueError(f"{name!r} is longer than {MAX_PROMPT} bytes")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name!r} is not UTF-8") from error


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool() | int() | float():
            return f"the number {value}" if not isinstance(value, bool) else f"the boolean {str(value).lower()}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return "a list"
    return "a mapping"
