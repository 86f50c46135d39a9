"""How much a tenant may have and do."""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..core.decide import Decision
from ..core.events import NodeCompleted, Usage
from ..errors import LimitReached, RateExceeded
from ..ports import Spent, Storage

Number = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Limits(BaseModel):
    """What is not set is not limited."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    concurrent_executions: Number | None = Field(
        None, description="Executions that have not ended. A child counts too, but is never refused."
    )
    workflows: Number | None = Field(None, description="Registered workflows, not counting their versions.")
    requests_per_minute: Number | None = Field(None, description="To each process of the runtime.")
    tokens_per_month: Number | None = Field(
        None, description="In a calendar month (UTC). Once they are used, nothing starts; what runs goes on."
    )
    cost_usd_per_month: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        None, description="In a calendar month (UTC). Once it is spent, nothing starts; what runs goes on."
    )


NO_LIMITS = Limits()


class LastMinute:
    """How many came within the last minute, counted by the second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._count = 0

    def take(self, limit: int, now: float) -> float | None:
        """Counts one more at `now`, in milliseconds. When that is too many: does not, and answers the seconds until
        there may be room."""
        second = int(now // 1000)
        while self._seconds and self._seconds[0][0] < second - 60:
            self._count -= self._seconds.popleft()[1]
        if self._count >= limit:
            oldest = self._seconds[0][0] if self._seconds else second
            return oldest + 61 - now / 1000
        already = self._seconds.pop()[1] if self._seconds and self._seconds[-1][0] == second else 0
        self._seconds.append((second, already + 1))
        self._count += 1
        return None


async def check_start(storage: Storage, tenant_id: str, limits: Limits, now: int) -> None:
    """Whether one more execution may start now. Raises `LimitReached` or `RateExceeded`.

    Of those that start in the same moment, the storage refuses what is too many.
    """
    at_once = limits.concurrent_executions
    if at_once is not None and await storage.executions.count_open(tenant_id) >= at_once:
        raise LimitReached("concurrent_executions", at_once)
    if limits.tokens_per_month is not None or limits.cost_usd_per_month is not None:
        _check_month(limits, await storage.tenants.spent(tenant_id, month_of(now)), now)


def _check_month(limits: Limits, spent: Spent, now: int) -> None:
    for name, used in (("tokens_per_month", spent.tokens), ("cost_usd_per_month", spent.cost_usd)):
        limit = getattr(limits, name)
        if limit is not None and used >= limit:
            raise RateExceeded(name, limit, (_next_month(now) - now) / 1000)


# Consumption

_MOST_TOKENS, _MOST_USD = 10**12, 1e6
"""Of one node. An executor that reports nonsense must not make the sum of the month one that no database stores."""


def spent_by(decision: Decision) -> Spent | None:
    """What the nodes reported whose results the decision takes in."""
    reported = [event for event in decision.events if isinstance(event, NodeCompleted) and event.usage]
    if not reported:
        return None
    usages = [event.usage for event in reported if event.usage]
    return Spent(month_of(reported[0].at), sum(map(_tokens, usages)), sum(map(_cost, usages)))


def _tokens(usage: Usage) -> int:
    return max(0, min(usage.input_tokens + usage.output_tokens, _MOST_TOKENS))


def _cost(usage: Usage) -> float:
    return 0.0 if math.isnan(usage.cost_usd) else max(0.0, min(usage.cost_usd, _MOST_USD))


def month_of(at: int) -> str:
    """`2026-11`"""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")


def _next_month(at: int) -> int:
    now = datetime.fromtimestamp(at / 1000, UTC)
    year, month = divmod(now.year * 12 + now.month, 12)
    return round(datetime(year, month + 1, 1, tzinfo=UTC).timestamp() * 1000)
