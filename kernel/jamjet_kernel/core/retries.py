"""How long to wait before the next attempt."""

from __future__ import annotations

from tenacity import RetryCallState, wait_exponential, wait_fixed, wait_incrementing
from tenacity.wait import wait_base

from .definition import RetryPolicy


def delay_of(policy: RetryPolicy, attempt: int, jitter: float) -> int:
    """Milliseconds after attempt number `attempt` failed. With jitter the delay is cut by up to a half."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # no call to retry
    state.attempt_number = attempt
    delay = min(_wait(policy)(state), policy.max_delay)
    return round(1000 * delay * (1 - jitter / 2 if policy.jitter else 1))


def _wait(policy: RetryPolicy) -> wait_base:
    match policy.backoff:
        case "fixed":
            return wait_fixed(policy.initial_delay)
        case "linear":
            return wait_incrementing(policy.initial_delay, policy.initial_delay, policy.max_delay)
        case "exponential":
            return wait_exponential(multiplier=policy.initial_delay, max=policy.max_delay)
