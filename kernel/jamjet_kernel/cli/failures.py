"""What a command cannot do, said in one clear line instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .exit_codes import ExitCode

if TYPE_CHECKING:
    from ..errors import JamJetError
    from ..settings import Settings


class CommandFailed(Exception):
    """`details` are printed below the message, one a line; `hint` says what would work."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Sequence[str] = (),
        code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details
        self.code = code


@contextmanager
def told_clearly() -> Iterator[None]:
    """Whatever escapes ends the process with its exit code and a line on stderr."""
    try:
        yield
    except CommandFailed as failure:
        tell(failure)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        if os.environ.get("JAMJET_DEBUG"):
            raise
        translated = _translated(error)
        tell(translated)
        sys.exit(translated.code)


def tell(failure: CommandFailed) -> None:
    from .output import problems

    problems.print(f"[bold red]error:[/] {_escaped(str(failure))}", soft_wrap=True)
    for detail in failure.details:
        problems.print(f"  {_escaped(detail)}", soft_wrap=True)
    if failure.hint:
        problems.print(f"[dim]hint:[/] {_escaped(failure.hint)}", soft_wrap=True)


def read_settings(**given: object) -> Settings:
    """The settings of the environment, with what the command line says instead. Raises `CommandFailed`."""
    from pydantic import ValidationError

    from ..settings import Settings
    from ..wording import in_plain_words

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        details = [_told(problem["loc"], in_plain_words(problem["msg"])) for problem in error.errors()]
        raise CommandFailed("a setting is not valid", details=details, code=ExitCode.USAGE) from error


def misspelt_settings() -> Iterator[tuple[str, str]]:
    """What the environment holds, and the setting that was meant. Names of plugins' settings are unlike these."""
    from difflib import get_close_matches

    known = {variable for variables in _variables().values() for variable in variables}
    for name in sorted(os.environ):
        if name.startswith("JAMJET_") and name not in known:
            for meant in get_close_matches(name, known, n=1, cutoff=0.87):
                yield name, meant


def _told(place: Sequence[int | str], message: str) -> str:
    if not place:  # how several settings go together
        return message
    return f"{_variable(str(place[0]))}: {message}"


def _variable(name: str) -> str:
    """The one that was set, where several are taken; pydantic tells of the first."""
    for field, variables in _variables().items():
        if name in (field, *variables):
            return next((one for one in variables if one in os.environ), variables[0])
    return name


def _variables() -> dict[str, list[str]]:
    """Of each setting, the first in the environment counts."""
    from pydantic import AliasChoices

    from ..settings import Settings

    found = {}
    for name, field in Settings.model_fields.items():
        match field.validation_alias:
            case AliasChoices(choices=choices):
                found[name] = [str(choice) for choice in choices]
            case _:
                found[name] = [f"JAMJET_{name.upper()}"]
    return found


def _translated(error: Exception) -> CommandFailed:
    from ..errors import Invalid, JamJetError

    match error:
        case Invalid() if len(error.problems) > 1:
            return CommandFailed(f"{len(error.problems)} problems", details=list(map(str, error.problems)))
        case JamJetError():
            return CommandFailed(str(error), details=_listed(error))
        case OSError():
            return CommandFailed(str(error))
    return CommandFailed(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug; JAMJET_DEBUG=1 shows where it happened",
    )


def _listed(error: JamJetError) -> list[str]:
    installed = error.details.get("installed")
    return [f"installed: {', '.join(map(str, installed))}"] if isinstance(installed, list | tuple) else []


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
