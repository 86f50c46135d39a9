"""Workflow files, compiled on this side of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .failures import CommandFailed, read_settings

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..authoring import FileProblem

    Kinds = Mapping[str, type[BaseModel]]


def node_kinds() -> Kinds:
    """What the plugins of this environment bring, by type."""
    from ..plugins import load_kinds

    return load_kinds(read_settings())


def compiled(file: Path) -> dict[str, Any]:
    """The file's IR. Raises `CommandFailed` with every problem, each with its line."""
    from ..authoring import AuthoringError, load

    try:
        return load(file, node_kinds())
    except AuthoringError as error:
        raise CommandFailed(f"{file} is not valid", details=[located(problem) for problem in error.problems]) from error


def checked(file: Path, kinds: Kinds) -> dict[str, Any]:
    """A report on one file: what it defines, or all that is wrong with it."""
    from ..authoring import AuthoringError, load

    try:
        ir = load(file, kinds)
    except AuthoringError as error:
        return {"file": str(file), "valid": False, "problems": [asdict(problem) for problem in error.problems]}
    named = {name: ir[name] for name in ("workflow_id", "version")}
    return {"file": str(file), "valid": True, **named, "nodes": len(ir["nodes"]), "problems": []}


def located(problem: FileProblem) -> str:
    """`file:line:column: field: message`, as editors and people read it."""
    return f"{position(asdict(problem))}: {problem.place}: {problem.message}".replace(": : ", ": ")


def position(problem: Mapping[str, Any]) -> str:
    return ":".join(str(problem[part]) for part in ("file", "line", "column") if problem[part])
