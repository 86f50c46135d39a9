"""JSON on the command line: as it stands, `@file` or `-` for stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .exit_codes import ExitCode
from .failures import CommandFailed


def json_value(text: str, option: str) -> Any:
    try:
        return json.loads(_text(text, option))
    except ValueError as error:
        raise CommandFailed(
            f"{option} is not JSON: {error}",
            hint=f"""write {option} '{{"name": "value"}}', {option} @file.json, or {option} - for stdin""",
            code=ExitCode.USAGE,
        ) from error


def json_object(text: str, option: str) -> dict[str, Any]:
    value = json_value(text, option)
    if not isinstance(value, dict):
        raise CommandFailed(f"{option} must be a JSON object, not {json.dumps(value)[:80]}", code=ExitCode.USAGE)
    return value


def optional_object(text: str | None, option: str) -> dict[str, Any] | None:
    return None if text is None else json_object(text, option)


def _text(text: str, option: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{option}: cannot read {text[1:]}: {error.strerror}", code=ExitCode.USAGE) from error
