"""Tables on terminals of every width."""

from __future__ import annotations

import pytest
from rich.console import Console

from jamjet_kernel.cli import render

ID = "exec_" + 2 * "0123456789abcdef"
FOUND = {
    "executions": [
        {
            "execution_id": ID,
            "workflow_id": "first-workflow",
            "status": "completed",
            "created_at": "2027-01-01T12:00:00Z",
            "completed_at": "2027-01-01T12:00:01Z",
        }
    ]
}


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (100, ["execution", "workflow", "status", "created", "took"]),
        (70, ["execution", "workflow", "status"]),
        (40, ["execution"]),
    ],
)
def test_a_narrow_terminal_costs_columns_and_never_the_id(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: list[str]
) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(render, "answers", console)

    with console.capture() as printed:
        console.print(render.executions(FOUND), crop=False)

    head, line = printed.get().splitlines()
    assert head.split() == columns
    assert ID in line
    assert "first-workflow" in line or "workflow" not in columns
