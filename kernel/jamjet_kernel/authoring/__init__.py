"""From a workflow file to its IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .agent import compile_agent
from .builder import Workflow
from .checking import checked
from .compiler import Compiler
from .problems import AuthoringError, FileProblem
from .python import compile_python
from .source import MAX_TEXT, Written, read
from .workflow import HEADER, compile_workflow

__all__ = ["AuthoringError", "FileProblem", "Kinds", "Workflow", "compile_text", "load"]

Kinds = Mapping[str, type[BaseModel]] | Callable[[], Mapping[str, type[BaseModel]]]
"""The configurations of the node kinds that are installed, or what answers them. None: only those of the core."""


def load(path: Path, kinds: Kinds | None = None) -> dict[str, Any]:
    """Reads a workflow file (YAML, JSON or Python) and answers its IR, as `POST /workflows` takes it under `ir`.

    Raises `AuthoringError` with all problems at once.
    """
    if path.suffix == ".py":
        compiler = _compiler(str(path), kinds)
        return checked(compiler, compile_python(compiler, path, _text_of(path)))
    return compile_text(_text_of(path), str(path), kinds)


def compile_text(text: str, filename: str, kinds: Kinds | None = None) -> dict[str, Any]:
    """The IR of a YAML or JSON text. Files that it names are looked for beside `filename`."""
    compiler = _compiler(filename, kinds)
    return checked(compiler, _tree(compiler, read(text, filename)))


def _compiler(file: str, kinds: Kinds | None) -> Compiler:
    installed = kinds() if callable(kinds) else kinds
    return Compiler(file, Path(file).parent, installed or {})


def _tree(compiler: Compiler, written: Written) -> Written:
    """What a file is shows in its keys."""
    if not isinstance(written.value, dict):
        what = "a list" if isinstance(written.value, list) else "a single value"
        message = f"a workflow file is a mapping that begins with 'workflow:', not {what}"
        raise AuthoringError([FileProblem("", message, compiler.file, written.line, written.column)])
    if "workflow_id" in written.value:
        return written
    if "agent" in written.value:
        return compile_agent(compiler, written)
    if not written.value.keys() & HEADER:
        message = "is no workflow file: it has none of workflow, agent, workflow_id or nodes"
        raise AuthoringError([FileProblem("", message, compiler.file, written.line, written.column)])
    return compile_workflow(compiler, written)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(4 * MAX_TEXT + 4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AuthoringError([FileProblem("", f"cannot be read: {reason}", str(path))]) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise AuthoringError([FileProblem("", f"is not UTF-8: {error.reason}", str(path), line)]) from error
