"""What must not be stored: personal data, as a workflow's `data_policy` names it.

It is applied to whatever comes in by the door, before anything is decided, so that neither the log, nor the state, nor
the audit log ever has it.

`pii_fields`: a name without a dot is meant at any depth; a path begins at the top (`customer.email`), a `*` in it
stands for any one step, list items included, and `**` for any number of them. Names are globs: `*_email`.

`pii_detectors`: kinds of data that are looked for in all texts, see `DETECTORS`.

`redaction_mode`: `mask` puts `***` in its place, `hash` a keyed hash by which equal values can still be told to be
equal, `remove` takes it out. A value of a named field that is no text keeps its type when it is masked or hashed, so
that it still fits the state schema.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from msgspec.structs import replace

from . import events as ev

MASK = "***"
_HASHED = re.compile(r"hash:[0-9a-f]{32}")

Finder: TypeAlias = Callable[[str], Iterable[re.Match[str]]]
Path: TypeAlias = tuple[str, ...]


# What is looked for in texts


def _found(pattern: str, is_one: Callable[[str], bool] = lambda _: True) -> Finder:
    compiled = re.compile(pattern)
    return lambda text: (match for match in compiled.finditer(text) if is_one(match.group()))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _is_card(text: str) -> bool:
    """By the check digit that every card number ends with (Luhn, ISO/IEC 7812-1)."""
    digits = _digits(text)
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(map(_cross_sum, doubled)) % 10 == 0


def _cross_sum(number: int) -> int:
    return number // 10 + number % 10


def _is_phone(text: str) -> bool:
    return 7 <= len(_digits(text)) <= 15


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


DETECTORS: Mapping[str, Finder] = {
    "email": _found(r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z][\w-]{1,62}"),
    # With a country code; or as North America groups it; or with the leading 0 of most other countries.
    "phone": _found(
        r"(?<![\w.+])\+\d[\d ().\-/]{5,20}\d(?!\w)"
        r"|(?<![\w.+-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
        r"|(?<![\w.+-])\(?0\d{1,5}\)?[ /-]\d[\d /-]{3,11}\d(?![\w-])",
        _is_phone,
    ),
    "credit_card": _found(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])", _is_card),
    # Areas 000, 666 and 900 to 999 are never given out, nor are groups and numbers of zeros.
    "ssn": _found(r"(?<![\w-])(?!000|666|9)\d{3}([ -])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])"),
    "ip_address": _found(
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
        r"|(?<![\w:.])[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,7}(?:(?:\.\d{1,3}){3})?(?![\w:])",
        _is_address,
    ),
}


def unknown_detectors(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in DETECTORS]


# Redaction


class Rules:
    """A data policy, made ready."""

    def __init__(self, fields: Sequence[str], detectors: Sequence[str], mode: str) -> None:
        self.paths = [_path(field) for field in fields]
        self.finders = [DETECTORS[name] for name in detectors]
        self.mode = mode


class Redactor:
    """`key` is the secret of the hashes."""

    def __init__(self, rules: Rules, key: bytes) -> None:
        self._paths, self._finders, self._mode = rules.paths, rules.finders, rules.mode
        self._key = key

    def event(self, event: ev.Event) -> ev.Event:
        """The event without what must not be stored."""
        match event:
            case ev.WorkflowStarted():
                progress = event.progress
                if progress is not None and "state" in progress:
                    progress = {**progress, "state": self.value(progress["state"])}
                return replace(event, input=self.value(event.input), progress=progress)
            case ev.NodeCompleted():
                return replace(event, output=self.value(event.output), state_patch=self.value(event.state_patch))
            case ev.NodeFailed() | ev.ChildWorkflowFailed():
                return replace(event, error=self._failure(event.error))
            case ev.NodeProgressed():
                return replace(event, data=self.value(event.data))
            case ev.NodeParked():
                return replace(event, reason=self._text(event.reason))
            case ev.ApprovalReceived():
                return replace(
                    event,
                    user_id=self._optional(event.user_id),
                    comment=self._optional(event.comment),
                    state_patch=self.value(event.state_patch),
                )
            case ev.ExternalEventReceived():
                return replace(event, payload=self.value(event.payload))
            case ev.WorkflowCancelled():
                return replace(event, reason=self._optional(event.reason))
            case ev.ChildWorkflowCompleted():
                return replace(event, output=self.value(event.output))
        return event

    def value(self, value: Any) -> Any:
        """JSON without what must not be stored; what is not touched may be shared with what was given."""
        return self._walk(value, ())

    def _walk(self, value: Any, place: Path) -> Any:
        match value:
            case str():
                return self._text(value)
            case dict():
                return dict(self._members(value, place))
            case list() | tuple():
                steps = (((*place, "*"), item) for item in value)
                return [self._walk(item, step) for step, item in steps]
        return value

    def _members(self, value: Mapping[str, Any], place: Path) -> Iterator[tuple[str, Any]]:
        for name, inner in value.items():
            path = (*place, name)
            if not any(_matches(wanted, path) for wanted in self._paths):
                yield self._text(name), self._walk(inner, path)
            elif self._mode != "remove":
                yield self._text(name), self._hidden(inner)

    def _hidden(self, value: Any) -> Any:
        """In place of a named field's value."""
        match value:
            case str():
                return self._instead(value)
            case bool():
                return False
            case int():
                return 0
            case float():
                return 0.0
            case dict():
                return {name: self._hidden(inner) for name, inner in value.items()}
            case list() | tuple():
                return [self._hidden(item) for item in value]
        return None

    def _text(self, text: str) -> str:
        for finder in self._finders:
            text = "".join(self._parts(text, finder))
        return text

    def _parts(self, text: str, finder: Finder) -> Iterator[str]:
        after = 0
        for match in finder(text):
            yield text[after : match.start()]
            yield self._instead(match.group())
            after = match.end()
        yield text[after:]

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self._text(text)

    def _instead(self, text: str) -> str:
        if self._mode == "remove":
            return ""
        if self._mode == "mask":
            return MASK
        if _HASHED.fullmatch(text):  # a node gave on what it got
            return text
        return f"hash:{hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]}"

    def _failure(self, failure: ev.Failure) -> ev.Failure:
        return replace(failure, message=self._text(failure.message), details=self.value(failure.details))


def _path(field: str) -> Path:
    """`contacts[].email` and `$.contacts.*.email` are ways to write `contacts.*.email`."""
    steps = field.removeprefix("$.").removeprefix("state.").replace("[]", ".*").replace("[*]", ".*").split(".")
    return tuple(steps) if len(steps) > 1 else ("**", *steps)


def _matches(wanted: Path, path: Path) -> bool:
    if not wanted or not path:
        return wanted == path or wanted == ("**",)
    if wanted[0] == "**":
        return _matches(wanted[1:], path) or _matches(wanted, path[1:])
    return fnmatchcase(path[0], wanted[0]) and _matches(wanted[1:], path[1:])
