"""How the figures are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .figures import Goal, Result


def show(console: Console, on: Mapping[str, Any], results: Sequence[Result]) -> None:
    console.print("\n" + ", ".join(f"{name} {value}" for name, value in on.items()), style="dim", highlight=False)
    rounds = len(results[0].rounds)
    table = Table(title=f"Median of {rounds} rounds (smallest – largest)", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("goal", justify="right")
    table.add_column("raw limit")
    table.add_column("measured", justify="right")
    table.add_column("ratio", justify="right")
    for result in results:
        figure = result.figure
        table.add_row(
            f"{figure.name}, {figure.unit}",
            _spread(result.ours),
            _goal(figure.goal, result.is_met()),
            figure.raw_name,
            _spread(result.raw),
            _spread(result.ratios),
        )
    console.print(table)


def _spread(values: Sequence[float]) -> str:
    return f"[bold]{_number(median(values))}[/] [dim]({_number(min(values))} – {_number(max(values))})[/]"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.4f}"


def _goal(goal: Goal | None, met: bool | None) -> str:
    if goal is None:
        return ""
    sign = {"<=": "≤", ">=": "≥"}[goal.sign]
    of = "ratio " if goal.of == "ratio" else ""
    return f"{of}{sign} {goal.limit:,g} {'[green]met[/]' if met else '[red]missed[/]'}"
