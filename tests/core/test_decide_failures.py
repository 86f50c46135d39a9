"""What happens when a node fails: attempts, delays, error routes, finalizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.decide import EnqueueWork, SettleWork
from jamjet_kernel.errors import InvalidTransition

from .conftest import WORK, Play, play


def trying(**policy: Any) -> Play:
    """`a` is tried by this retry policy; `b` follows."""
    return play({"a": {**WORK, "retry_policy": {"max_attempts": 3, "backoff": "fixed", **policy}}, "b": None}, "a>b")


# Attempts


def test_without_a_policy_there_is_one_attempt() -> None:
    it = play({"a": None}).fail("a", "boom")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("boom", node_id="a")


def test_a_failed_attempt_is_made_again_after_the_delay() -> None:
    it = trying(initial_delay="2s").fail("a")

    assert it.last == ["NodeFailed a", "RetryScheduled a"]
    assert it.decisions[-1].commands == (SettleWork("a", "general"), EnqueueWork("a", 2, it.at + 2_000, "general"))
    assert it.status == "running"


def test_the_attempts_run_out() -> None:
    it = trying().fail("a").fail("a").fail("a", "the third time")

    assert it.status == "failed"
    assert [event.final for event in it.said(ev.NodeFailed)] == [False, False, True]
    assert it.progress.error is not None
    assert it.progress.error.message == "the third time"


def test_a_later_attempt_may_succeed() -> None:
    it = trying().fail("a").complete("a", 1)

    assert it.open_work == ["b"]
    assert it.said(ev.NodeCompleted)[0].attempt == 2


def test_the_delay_grows_as_the_backoff_says() -> None:
    it = trying(max_attempts=4, backoff="exponential", initial_delay=1)
    delays = []
    for _ in range(3):
        it.fail("a")
        delays.append(it.work["a"].available_at - it.at)

    assert delays == [1_000, 2_000, 4_000]


def test_jitter_comes_in_on_the_event() -> None:
    it = trying(initial_delay=2, jitter=True).fail("a", jitter=0.5)

    assert it.work["a"].available_at - it.at == 1_500


@pytest.mark.parametrize(
    "error_class", ["timeout", "rate_limit", "io_error", "server_error", "connection_reset", "custom"]
)
def test_only_the_classes_that_the_policy_names_are_tried_again(error_class: str) -> None:
    named = trying(retryable_on=[error_class])
    others = trying(
        retryable_on=sorted(
            {"timeout", "rate_limit", "io_error", "server_error", "connection_reset", "custom"} - {error_class}
        )
    )

    assert named.fail("a", error_class=error_class).open_work == ["a"]
    assert others.fail("a", error_class=error_class).status == "failed"


def test_what_the_executor_calls_hopeless_is_not_tried_again() -> None:
    assert trying().fail("a", retryable=False).status == "failed"


def test_the_result_of_an_earlier_attempt_comes_too_late() -> None:
    it = trying().fail("a")

    with pytest.raises(InvalidTransition, match="too late"):
        it.complete("a", attempt=1)


def test_each_iteration_of_a_loop_has_all_its_attempts() -> None:
    nodes = {"a": {**WORK, "retry_policy": "fast"}}
    it = play(nodes, "a>a if output.again", "a>end", start_node="a").fail("a").complete("a", {"again": True})

    it.fail("a")

    assert it.open_work == ["a"]


# Rate limits


def test_a_rate_limit_parks_the_node_and_costs_no_attempt() -> None:
    it = trying()
    until = it.at + 90_000

    it.park("a", until)

    assert it.work["a"] == EnqueueWork("a", 1, until, "general")
    assert it.status == "running"


def test_a_node_may_be_parked_any_number_of_times() -> None:
    it = play({"a": None})
    for _ in range(20):
        it.park("a", it.at + 10_000)

    assert it.complete("a").status == "completed"


def test_a_late_parking_is_refused() -> None:
    it = play({"a": None}).complete("a")

    with pytest.raises(InvalidTransition):
        it.park("a", it.at)


# Attempts of remote workers


def taken(timeout: float | None = 30, **policy: Any) -> Play:
    node = {**WORK, "node_timeout_secs": timeout, "retry_policy": {"max_attempts": 2, "initial_delay": 1, **policy}}
    return play({"a": node, "b": None}, "a>b").take("a")


def test_the_time_of_an_attempt_elsewhere_counts_from_when_it_was_taken() -> None:
    it = taken(30)

    assert it.timers == {"a/timeout": it.at + 30_000}


def test_without_a_limit_there_is_no_timer() -> None:
    assert taken(None).timers == {}


def test_an_attempt_elsewhere_that_takes_too_long_is_made_again() -> None:
    it = taken(30).fire("a/timeout")

    (failed,) = it.said(ev.NodeFailed)
    assert (failed.error, failed.final) == (ev.Failure("took longer than 30 s", "timeout", "a"), False)
    assert it.work["a"].attempt == 2
    with pytest.raises(InvalidTransition):
        it.complete("a", attempt=1)


def test_the_last_attempt_that_takes_too_long_fails_the_node() -> None:
    assert taken(30).fire("a/timeout").take("a").fire("a/timeout").status == "failed"


def test_who_takes_it_over_has_all_the_time() -> None:
    it = taken(30)
    it.at += 20_000

    it.take("a", "w2")

    assert it.timers == {"a/timeout": it.at + 30_000}


@pytest.mark.parametrize(
    "over",
    [
        lambda it: it.complete("a"),
        lambda it: it.fail("a"),
        lambda it: it.park("a", it.at + 1000),
        lambda it: it.cancel(),
    ],
    ids=["completed", "failed", "parked", "cancelled"],
)
def test_an_attempt_that_is_over_has_no_timer(over: Callable[[Play], Play]) -> None:
    assert over(taken(30)).timers == {}


def test_an_attempt_that_is_left_while_the_execution_is_paused_has_no_timer() -> None:
    it = taken(30).pause()

    it.record(ev.NodeHeld(at=0, node_id="a", attempt=1))

    assert it.timers == {}
    assert it.resume().open_work == ["a"]


# Error routes


def test_the_error_route_takes_over_when_the_attempts_run_out() -> None:
    nodes = {"a": {**WORK, "on_error": "mend", "retry_policy": "fast"}, "b": None, "mend": None}
    it = play(nodes, "a>b").fail("a")

    assert it.open_work == ["a"]

    it.fail("a", "boom", error_class="io_error")

    assert it.open_work == ["mend"]
    assert it.statuses()["b"] == "skipped"


def test_the_error_route_finds_the_error_in_the_state() -> None:
    it = play({"a": {**WORK, "on_error": "mend"}, "mend": None}).fail("a", "boom", error_class="io_error")

    assert it.state == {"error": {"message": "boom", "error_class": "io_error", "node_id": "a"}}
    assert it.progress.input_of("mend") == it.state


def test_an_execution_whose_failure_was_handled_completes() -> None:
    it = play({"a": {**WORK, "on_error": "mend"}, "mend": None}).fail("a").complete("mend")

    assert it.status == "completed"
    assert it.progress.error is None


def test_the_error_route_is_dead_when_the_node_succeeds() -> None:
    it = play({"a": {**WORK, "on_error": "mend"}, "b": None, "mend": None}, "a>b").complete("a")

    assert it.open_work == ["b"]
    assert it.statuses()["mend"] == "skipped"


def test_an_error_route_may_lead_back() -> None:
    nodes = {"a": None, "b": {**WORK, "on_error": "a"}}

    it = play(nodes, "a>b", "b>end", start_node="a").complete("a").fail("b")

    assert it.open_work == ["a"]
    assert it.progress.run("a").iteration == 1


def test_what_a_control_node_cannot_do_goes_its_error_route_too() -> None:
    nodes = {"m": {"type": "map", "items": "state.missing", "body": WORK, "on_error": "mend"}, "mend": None}

    assert play(nodes).open_work == ["mend"]


# Failure of the execution


def test_branches_that_do_not_depend_on_the_failed_node_finish() -> None:
    it = play(dict.fromkeys("abcde"), "a>b", "a>c", "b>d", "c>e").complete("a").fail("b", "boom")

    assert it.status == "running"

    it.complete("c").complete("e")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("boom", node_id="b")
    assert "d" not in it.statuses()


def test_the_execution_names_its_first_failure() -> None:
    it = play(dict.fromkeys("abc"), "a>b", "a>c").complete("a").fail("b", "first").fail("c", "second")

    assert it.progress.error is not None
    assert it.progress.error.message == "first"


# Finalizers


def finalizing(**nodes: str) -> Play:
    """`a`, and a finalizer of each name that runs on what is told."""
    return play({"a": None, **{name: {"type": "finalizer", "run_on": on, "body": WORK} for name, on in nodes.items()}})


def test_a_finalizer_runs_when_everything_else_is_over() -> None:
    it = finalizing(f="always").complete("a")

    assert it.last == ["NodeCompleted a", "WorkflowFinalizing", "NodeScheduled f"]
    assert it.status == "running"

    assert it.complete("f").status == "completed"


def test_finalizers_run_on_what_they_are_for() -> None:
    nodes = {"on_success": "success", "on_failure": "failure", "on_both": "always"}

    assert finalizing(**nodes).complete("a").open_work == ["on_both", "on_success"]
    assert finalizing(**nodes).fail("a").open_work == ["on_both", "on_failure"]


def test_a_finalizer_runs_always_where_it_does_not_say() -> None:
    it = play({"a": None, "f": {"type": "finalizer", "body": WORK}}).fail("a")

    assert it.open_work == ["f"]


def test_after_its_finalizers_a_failed_execution_fails_with_its_own_reason() -> None:
    it = finalizing(f="failure").fail("a", "boom").complete("f")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("boom", node_id="a")


def test_a_finalizer_that_fails_fails_the_execution() -> None:
    it = finalizing(f="success").complete("a").fail("f", "cannot clean up")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("cannot clean up", node_id="f")


def test_a_finalizer_that_does_not_run_leaves_no_trace() -> None:
    it = finalizing(f="failure").complete("a")

    assert it.status == "completed"
    assert "f" not in it.statuses()


def test_the_body_of_a_finalizer_may_be_a_node() -> None:
    nodes = {"a": None, "f": {"type": "finalizer", "node": "clean"}, "clean": {**WORK, "queue": "low"}}

    it = play(nodes).complete("a")

    assert it.work["f"].queue == "low"


def test_a_finalizer_is_tried_again_by_the_policy_of_its_body() -> None:
    nodes = {"a": None, "f": {"type": "finalizer", "body": {**WORK, "retry_policy": "fast"}}}

    assert play(nodes).complete("a").fail("f").open_work == ["f"]


def test_finalizers_do_not_run_after_a_cancel() -> None:
    it = finalizing(f="always").cancel()

    assert it.status == "cancelled"
    assert not it.open_work


# Why it failed


def test_the_failed_runs_are_those_that_nobody_took_care_of() -> None:
    it = play({"p": {"type": "parallel"}, "a": None, "b": {**WORK, "on_error": "c"}, "c": None}, "p>a", "p>b", "p>c")

    it.fail("b").fail("a").complete("c")

    assert it.status == "failed"
    assert it.progress.failed_runs() == ["a"]


def test_of_a_failed_map_the_failed_item_is_the_failed_run() -> None:
    it = play({"m": {"type": "map", "items": "[1, 2, 3]", "body": WORK}}).complete("m[0]").fail("m[1]")

    assert it.progress.failed_runs() == ["m[1]"]
    assert it.retry().progress.failed_runs() == []


def test_a_map_that_never_began_is_itself_the_failed_run() -> None:
    assert play({"m": {"type": "map", "items": "7", "body": WORK}}).progress.failed_runs() == ["m"]


def test_an_item_whose_map_an_error_route_took_over_from_is_no_failed_run() -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "body": WORK, "on_error": "a"}, "a": None}

    assert play(nodes, "m>end").fail("m[0]").fail("a").progress.failed_runs() == ["a"]


def test_a_failed_finalizer_is_a_failed_run() -> None:
    it = play({"a": None, "f": {"type": "finalizer", "body": WORK}}).complete("a").fail("f")

    assert it.status == "failed"
    assert it.progress.failed_runs() == ["f"]


def test_a_failed_run_knows_when_and_after_how_many_attempts() -> None:
    it = trying().fail("a").fail("a").fail("a")

    run = it.progress.run("a")
    assert (run.failed_at, run.tries) == (it.at, 3)


def test_what_never_came_to_an_attempt_has_none() -> None:
    it = play({"a": {**WORK, "input_mapping": {"x": "{{ state.nothing.there }}"}}})

    assert it.status == "failed"
    assert it.progress.run("a").tries == 0
