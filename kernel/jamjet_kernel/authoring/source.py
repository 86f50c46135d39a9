"""YAML and JSON text as values that remember where they were written.

The text is composed, not constructed: ruamel's node graph has a mark on everything, and making the values
here keeps three promises. Values are JSON and nothing else (a date stays text, `.inf` is a problem); all duplicate
keys are found; and aliases are expanded under a limit, so that a few lines cannot fill the memory.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .problems import AuthoringError, FileProblem

MAX_TEXT = 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 60


@dataclass(frozen=True)
class Written:
    """A value and where it stands. In an object or a list the members are `Written` too.

    `line` and `column` are those of the key, or of the item in a list. `raw` is a scalar's own text.
    """

    value: Any
    place: str = ""
    line: int | None = None
    column: int | None = None
    raw: str | None = None

    def saying(self, value: Any) -> Written:
        """Another value, on account of what stands here."""
        return replace(self, value=value)

    @property
    def plain(self) -> Any:
        return plain(self)


def plain(tree: Any) -> Any:
    """The tree without its places."""
    return settle(tree, {})


def settle(tree: Any, origins: dict[str, Written], place: str = "") -> Any:
    """A tree that holds `Written` anywhere, as plain JSON. Notes in `origins` whence each place of it came."""
    while isinstance(tree, Written):
        origins.setdefault(place, tree)
        tree = tree.value
    prefix = f"{place}." if place else ""
    match tree:
        case dict():
            return {key: settle(value, origins, f"{prefix}{key}") for key, value in tree.items()}
        case list() | tuple():
            return [settle(value, origins, f"{prefix}{index}") for index, value in enumerate(tree)]
    return tree


def read(text: str, file: str) -> Written:
    """Raises `AuthoringError`."""
    if len(text) > MAX_TEXT:
        raise AuthoringError([FileProblem("", f"is longer than {MAX_TEXT} characters", file)])
    node = _compose(text, file)
    if node is None:
        raise AuthoringError([FileProblem("", "is empty; a workflow file begins with 'workflow:'", file)])
    reader = _Reader(file)
    written = reader.written(node, "", node, 0)
    if reader.problems:
        raise AuthoringError(reader.problems)
    return written


def _compose(text: str, file: str) -> Node | None:
    # JSON may be indented with tabs, YAML may not; in JSON a tab stands only between tokens.
    text = text.replace("\t", " ") if file.endswith(".json") else text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yaml = YAML(typ="safe", pure=True)
            yaml.max_depth = MAX_DEPTH + 1
            node: Node | None = yaml.compose(text)
            return node
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise AuthoringError([FileProblem("", _in_words(error), file, line, column)]) from error
    except (YAMLError, ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError) as error:
        # What ruamel's scanner lets slip on broken input (a half escape, a broken directive).
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise AuthoringError([FileProblem("", f"is not YAML: {_first_line(error)}", file, line)]) from error
    except RecursionError as error:
        raise AuthoringError([FileProblem("", _TOO_DEEP, file)]) from error


def _in_words(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "cannot be read")
    if "maximum depth" in problem:
        return _TOO_DEEP
    if "\\t" in problem:
        return "is not YAML: a tab; indent with spaces"
    context = f" ({error.context})" if error.context and error.problem else ""
    return f"is not YAML: {problem}{context}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
_TAG = "tag:yaml.org,2002:"


class _Reader:
    """Makes values of nodes, and collects what has no value."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[FileProblem] = []
        self._left = MAX_VALUES

    def written(self, node: Node, place: str, mark: Node, depth: int) -> Written:
        line, column = mark.start_mark.line + 1, mark.start_mark.column + 1
        at = Written(None, place, line, column)
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            self._stop(at, _TOO_DEEP if depth > MAX_DEPTH else f"has more than {MAX_VALUES} values, aliases expanded")
        match node:
            case ScalarNode():
                return replace(at, value=self._scalar(node, at), raw=node.value)
            case SequenceNode(tag="tag:yaml.org,2002:seq"):
                members = enumerate(node.value)
                return at.saying([self.written(item, f"{place}[{i}]", item, depth + 1) for i, item in members])
            case MappingNode(tag="tag:yaml.org,2002:map"):
                return at.saying(self._mapping(node, at, depth))
        self._problem(at, f"has the tag {node.tag!r}, which stands for nothing here")
        return at

    def _mapping(self, node: MappingNode, at: Written, depth: int) -> dict[str, Written]:
        own: dict[str, Written] = {}
        merged: dict[str, Written] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._problem(self._at(key, at.place), "a key is a text")
            elif key.tag == _TAG + "merge":
                merged = {**dict(self._merged(value, at.place, depth)), **merged}
            else:
                name = _without_surrogates(key.value)
                place = f"{at.place}.{name}" if at.place else name
                if name in own:
                    self._problem(self._at(key, place), f"is written twice, first on line {own[name].line}")
                own[name] = self.written(value, place, key, depth + 1)
        return {**merged, **own}

    def _merged(self, node: Node, place: str, depth: int) -> Iterator[tuple[str, Written]]:
        for source in reversed(node.value) if isinstance(node, SequenceNode) else [node]:
            value = self.written(source, place, source, depth + 1).value
            if isinstance(value, dict):
                yield from value.items()
            else:
                self._problem(self._at(source, place), "'<<' merges mappings only")

    def _scalar(self, node: ScalarNode, at: Written) -> Any:
        text: str = node.value
        try:
            match (node.tag or "").removeprefix(_TAG):
                case "null":
                    return None
                case "bool":
                    return text.lower() in ("true", "yes", "on", "y")
                case "int":
                    return _integer(text)
                case "float":
                    return _finite(text)
                case "str" | "timestamp" | "value" | "merge":
                    return _without_surrogates(text)
        except ValueError as error:
            self._problem(at, str(error))
            return None
        self._problem(at, f"has the tag {node.tag!r}, which stands for nothing here")
        return None

    def _at(self, node: Node, place: str) -> Written:
        return Written(None, place, node.start_mark.line + 1, node.start_mark.column + 1)

    def _problem(self, at: Written, message: str) -> None:
        self.problems.append(FileProblem(at.place, message, self.file, at.line, at.column))

    def _stop(self, at: Written, message: str) -> None:
        raise AuthoringError([FileProblem(at.place, message, self.file, at.line, at.column)])


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign, digits = (digits[0], digits[1:]) if digits[:1] in ("+", "-") else ("", digits)
    base = {"0o": 8, "0x": 16, "0b": 2}.get(digits[:2].lower(), 10)
    if len(digits) > 100:
        raise ValueError(f"{text[:40]!r}… is too large a number")
    try:
        value = int(sign + (digits if base == 10 else digits[2:]), base)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{text!r} is too large a number")
    return value


def _finite(text: str) -> float:
    digits = text.replace("_", "").lower()
    try:
        value = float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not a finite number, and JSON has no other")
    return value


def _without_surrogates(text: str) -> str:
    """JSON writes a character beyond the first plane as two escapes; YAML reads them as two characters."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
