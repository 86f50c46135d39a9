"""Commands whose help is easy on the eye, whatever Typer thinks of types."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    def __init__(self, *arguments: Any, help: str | None = None, **named: Any) -> None:
        super().__init__(*arguments, help=help and _in_paragraphs(help), **named)

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _in_paragraphs(docstring: str) -> str:
    """Typer keeps the line breaks of the source."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(docstring))


def _without_types(parameters: list[Any]) -> list[Any]:
    """Typer writes `<bool>` beside a flag as if it took a value, and `<str>` beside the name of an argument."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
    return parameters
