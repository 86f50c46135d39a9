"""What a figure is, and how its rounds are taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

Measure = Callable[[], Awaitable[float]]
"""Does the thing once and answers the figure."""


@dataclass(frozen=True)
class Goal:
    """`of` says what is held against the limit: the figure, or its ratio to the raw limit."""

    sign: Literal["<=", ">="]
    limit: float
    of: Literal["figure", "ratio"] = "figure"

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.sign == "<=" else value >= self.limit


@dataclass(frozen=True)
class Figure:
    """`raw` may use what `ours` has just done: it is measured right after it, in the same round."""

    name: str
    unit: str
    ours: Measure
    raw_name: str
    raw: Measure
    goal: Goal | None = None


@dataclass(frozen=True)
class Round:
    ours: float
    raw: float

    @property
    def ratio(self) -> float:
        return self.ours / self.raw


@dataclass
class Result:
    figure: Figure
    rounds: list[Round] = field(default_factory=list)

    def is_met(self) -> bool | None:
        goal = self.figure.goal
        if goal is None:
            return None
        return goal.is_met(median(self.ratios if goal.of == "ratio" else self.ours))

    @property
    def ours(self) -> list[float]:
        return [round.ours for round in self.rounds]

    @property
    def raw(self) -> list[float]:
        return [round.raw for round in self.rounds]

    @property
    def ratios(self) -> list[float]:
        return [round.ratio for round in self.rounds]

    def as_json(self) -> dict[str, Any]:
        goal = self.figure.goal
        return {
            "figure": self.figure.name,
            "unit": self.figure.unit,
            "ours": _spread(self.ours),
            "raw_limit": self.figure.raw_name,
            "raw": _spread(self.raw),
            "ratio": _spread(self.ratios),
            "goal": None if goal is None else {"of": goal.of, "sign": goal.sign, "limit": goal.limit},
            "met": self.is_met(),
            "rounds": [{"ours": round.ours, "raw": round.raw} for round in self.rounds],
        }


async def take(figures: Sequence[Figure], rounds: int, tell: Callable[[str], None]) -> list[Result]:
    """Interleaved: each round takes every figure, so that a slow minute is everybody's."""
    results = [Result(figure) for figure in figures]
    for number in range(1, rounds + 1):
        for result in results:
            tell(f"round {number} of {rounds}: {result.figure.name}")
            ours = await result.figure.ours()
            result.rounds.append(Round(ours, await result.figure.raw()))
    return results


def _spread(values: Iterable[float]) -> dict[str, float]:
    known = list(values)
    return {"median": median(known), "min": min(known), "max": max(known)}
