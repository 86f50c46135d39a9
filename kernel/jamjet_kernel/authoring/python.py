"""A Python file that defines a workflow: it is run, and asked for its IR."""

from __future__ import annotations

import json
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .builder import Workflow
from .compiler import Compiler
from .problems import AuthoringError, FileProblem
from .source import Written


def compile_python(compiler: Compiler, path: Path, text: str) -> Written:
    """The IR that the file's `workflow` makes, or the only thing in the file that makes one.

    The module is called by the file's stem, so functions defined in it are named as a worker imports them.
    """
    workflow = _workflow_of(compiler, _run(compiler, path, text))
    ir = _guarded(compiler, path, lambda: _ir_of(workflow))
    lines = workflow.lines if isinstance(workflow, Workflow) else {}
    _check_importable(compiler, path, ir, lines)
    return _written(compiler, ir, lines)


def _run(compiler: Compiler, path: Path, text: str) -> dict[str, Any]:
    try:
        compile(text, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", None), getattr(error, "offset", None)
        raise _refusal(compiler, f"is not Python: {getattr(error, 'msg', error)}", line, column) from error
    with _importable(path.resolve().parent):
        return dict(_guarded(compiler, path, lambda: runpy.run_path(str(path), run_name=path.stem)))


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _guarded(compiler: Compiler, path: Path, run: Any) -> Any:
    """Whatever the author's code raises is a problem on the last line of the file that led to it."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        what = f"{type(error).__name__}: {error}".strip().rstrip(":")
        raise _refusal(compiler, f"raised {what}", frames[-1].lineno if frames else None) from error


def _workflow_of(compiler: Compiler, module: dict[str, Any]) -> Any:
    if "workflow" in module:
        return module["workflow"]
    found = {id(value): (name, value) for name, value in module.items() if _makes_ir(value)}
    if len(found) == 1:
        return next(iter(found.values()))[1]
    names = ", ".join(name for name, _ in found.values())
    among = f"it defines several workflows: {names}; " if found else "it defines no workflow; "
    raise _refusal(compiler, f"{among}name the one to use 'workflow' (an IR, or an object with to_ir() or compile())")


def _makes_ir(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "to_ir", None))


def _ir_of(workflow: Any) -> Any:
    if isinstance(workflow, dict):
        made = workflow
    elif (make := getattr(workflow, "to_ir", None) or getattr(workflow, "compile", None)) is not None:
        made = make()
    else:
        raise TypeError(f"workflow is a {type(workflow).__name__}; make it an IR, or something with to_ir()")
    ir = json.loads(json.dumps(made, allow_nan=False))
    if not isinstance(ir, dict):
        raise TypeError(f"the IR must be an object, not a {type(ir).__name__}")
    return ir


def _check_importable(compiler: Compiler, path: Path, ir: dict[str, Any], lines: dict[str, int]) -> None:
    if path.stem.isidentifier():
        return
    nodes = ir.get("nodes")
    for node_id, node in nodes.items() if isinstance(nodes, dict) else ():
        kind = node.get("kind", node) if isinstance(node, dict) else {}
        if isinstance(kind, dict) and kind.get("module") == path.stem:
            at = Written(None, f"nodes.{node_id}", lines.get(node_id))
            compiler.problem(at, f"a worker cannot import {path.stem!r}; give the file a name that is an identifier")


def _written(compiler: Compiler, ir: dict[str, Any], lines: dict[str, int]) -> Written:
    """The IR with the lines of its nodes, where the builder noted them."""
    nodes = ir.get("nodes")
    located: dict[str, Any] = {}
    for node_id, node in nodes.items() if isinstance(nodes, dict) else ():
        located[node_id] = Written(node, f"nodes.{node_id}", lines.get(node_id))
    edges = [_edge(edge, index, lines) for index, edge in enumerate(_list(ir.get("edges")))]
    parts = {"nodes": located} if isinstance(nodes, dict) else {}
    return Written({**ir, **parts, **({"edges": edges} if edges else {})})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _edge(edge: Any, index: int, lines: dict[str, int]) -> Written:
    source = edge.get("from") if isinstance(edge, dict) else None
    return Written(edge, f"edges[{index}]", lines.get(source) if isinstance(source, str) else None)


def _refusal(compiler: Compiler, message: str, line: int | None = None, column: int | None = None) -> AuthoringError:
    return AuthoringError([FileProblem("", message, compiler.file, line, column)])
