"""`jamjet init`: a small project that runs as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..failures import CommandFailed
from ..session import Session, local

_FILES = ("workflow.yaml", "steps.py", "README.md")


@local
def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is missing.")] = Path(),
) -> None:
    """Make a small project: a workflow, its Python functions and a README.

    Overwrites nothing: it writes all files or none.
    """
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise CommandFailed(
            f"{', '.join(there)}: already there in {folder.resolve()}; nothing was written",
            hint="name a new folder: jamjet init my-project",
        )
    template = files("jamjet_kernel.cli") / "template"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (folder / name).write_bytes((template / name).read_bytes())
    session.output.answer({"folder": str(folder.resolve()), "files": list(_FILES)}, lambda _: _next_steps(folder))


def _next_steps(folder: Path) -> Text:
    enter = [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]
    commands = [*enter, "jamjet dev", "jamjet run workflow.yaml      # in another terminal, in the same folder"]
    lines = "".join(f"\n    {command}" for command in commands)
    return Text.assemble(("✓", "green"), f" wrote {', '.join(_FILES)}\n\n  Next:", (lines, "bold"))
