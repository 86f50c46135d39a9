"""`jamjet validate`: everything that is wrong with workflow files, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ..exit_codes import ExitCode
from ..output import answers
from ..session import Session, local


@local
def validate(
    session: Session,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Workflow files: YAML, JSON or Python.")],
) -> None:
    """Check workflow files, without a runtime.

    Prints every problem at once as file:line:column: field: message, and exits with 1 when there is one.
    """
    from ..definitions import checked, node_kinds

    kinds = node_kinds()
    reports = [checked(file, kinds) for file in files]
    valid = all(report["valid"] for report in reports)
    if session.output.json:
        session.output.value({"valid": valid, "files": reports})
    else:
        for line in (line for report in reports for line in _lines(report)):
            answers.print(line, soft_wrap=True)
    if not valid:
        raise typer.Exit(ExitCode.FAILED)


def _lines(report: dict[str, Any]) -> list[Text]:
    from ..definitions import position

    if report["valid"]:
        what = f" {report['file']}: {report['workflow_id']} {report['version']}, {report['nodes']} nodes"
        return [Text.assemble(("✓", "green"), what)]
    return [
        Text.assemble(
            (f"{position(problem)}: ", "red"),
            (f"{problem['place']}: " if problem["place"] else "", "bold"),
            problem["message"],
        )
        for problem in report["problems"]
    ]
