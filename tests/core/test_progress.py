"""What a log adds up to."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, get_args

import msgspec
import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.progress import Progress, RunStatus, Status, decode, encode, evolve, merge
from jamjet_kernel.errors import InvalidTransition

from .conftest import WORK, Play, play

# RFC 7396


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # The test cases of the RFC's appendix A, in its order.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_follows_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


def test_merging_the_example_of_the_rfc() -> None:
    document = {
        "title": "Goodbye!",
        "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"],
        "content": "This will be unchanged",
    }
    patch = {"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": None}, "tags": ["example"]}

    assert merge(document, patch) == {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["example"],
        "content": "This will be unchanged",
        "phoneNumber": "+01-123-456-7890",
    }


def test_merging_changes_neither_of_the_two() -> None:
    target, patch = {"a": {"b": 1}}, {"a": {"c": 2, "b": None}}

    merge(target, patch)

    assert target == {"a": {"b": 1}}
    assert patch == {"a": {"c": 2, "b": None}}


# Pairs of status and event

AT = 5_000
FAILURE = ev.Failure("boom")
EVENTS: list[ev.Event] = [
    ev.WorkflowStarted(at=AT, execution_id="e", workflow_id="flow", workflow_version="0.1.0"),
    ev.WorkflowCompleted(at=AT),
    ev.WorkflowFailed(at=AT, error=FAILURE),
    ev.WorkflowCancelled(at=AT),
    ev.WorkflowPaused(at=AT, reason="requested"),
    ev.WorkflowResumed(at=AT, reason="requested"),
    ev.WorkflowRetried(at=AT, nodes=("a",)),
    ev.WorkflowFinalizing(at=AT),
    ev.NodeScheduled(at=AT, node_id="a"),
    ev.NodeStarted(at=AT, node_id="a", attempt=1, worker_id="w"),
    ev.NodeProgressed(at=AT, node_id="a", attempt=1, data=1),
    ev.NodeCompleted(at=AT, node_id="a"),
    ev.NodeFailed(at=AT, node_id="a", error=FAILURE, final=True),
    ev.NodeSkipped(at=AT, node_id="a"),
    ev.NodeCancelled(at=AT, node_id="a", reason="why not"),
    ev.NodeParked(at=AT, node_id="a", attempt=1, until=AT, reason="limit"),
    ev.NodeHeld(at=AT, node_id="a", attempt=1),
    ev.RetryScheduled(at=AT, node_id="a", attempt=2, until=AT),
    ev.MapStarted(at=AT, node_id="a", items=[1]),
    ev.WaitStarted(at=AT, node_id="a", correlation_key="k"),
    ev.ApprovalRequested(at=AT, node_id="a"),
    ev.ApprovalReceived(at=AT, node_id="a", decision="approved"),
    ev.TimerCreated(at=AT, node_id="a", timer_id="a/wait", fire_at=AT),
    ev.TimerFired(at=AT, node_id="a", timer_id="a/wait", fire_at=AT),
    ev.ExternalEventReceived(at=AT, correlation_key="k"),
    ev.ExternalEventConsumed(at=AT, node_id="a", correlation_key="k"),
    ev.ChildWorkflowStarted(at=AT, node_id="a", child_execution_id="e.1", workflow_id="sub"),
    ev.ChildWorkflowCompleted(at=AT, node_id="a", child_execution_id="e.1"),
    ev.ChildWorkflowFailed(at=AT, node_id="a", child_execution_id="e.1", error=FAILURE),
    ev.ChildWorkflowPaused(at=AT, node_id="a", child_execution_id="e.1"),
    ev.ChildWorkflowResumed(at=AT, node_id="a", child_execution_id="e.1"),
    ev.ToolCallCompleted(at=AT, node_id="a", tool="t"),
    ev.PolicyViolation(at=AT, node_id="a", rule="r", subject="s"),
    ev.TokenBudgetExceeded(at=AT, budget="total_tokens", limit=1, used=2),
    ev.CostBudgetExceeded(at=AT, limit_usd=1, used_usd=2),
    ev.IterationStarted(at=AT, node_id="a", iteration=1, reset={"a": (0, 1)}),
    ev.SegmentBoundary(at=AT),
]

BY_STATUS: dict[str, Callable[[], Play]] = {
    "running": lambda: play({"a": None}),
    "paused": lambda: play({"a": {"type": "human_approval"}}),
    "held": lambda: play({"a": None}).pause(),
    "completed": lambda: play({"a": None}).complete("a"),
    "failed": lambda: play({"a": None}).fail("a"),
    "cancelled": lambda: play({"a": None}).cancel(),
}

BY_RUN_STATUS: dict[RunStatus, Callable[[], Play]] = {
    RunStatus.PENDING: lambda: play({"b": None, "a": None}, "b>a"),
    RunStatus.SCHEDULED: lambda: play({"a": None}),
    RunStatus.WAITING: lambda: play({"a": {"type": "human_approval"}}),
    RunStatus.DELEGATED: lambda: play({"a": {"type": "subgraph", "workflow_ref": "sub"}}),
    RunStatus.COMPLETED: lambda: play({"a": None, "b": None}, "a>b").complete("a"),
    RunStatus.FAILED: lambda: play({"s": None, "a": None, "b": None}, "s>a", "s>b").complete("s").fail("a"),
    RunStatus.SKIPPED: lambda: play({"s": None, "a": None, "b": None}, "s>a if state.no", "s>b").complete("s"),
    RunStatus.CANCELLED: lambda: first_of("a", "b").complete("b"),
    RunStatus.INTERRUPTED: lambda: play(
        {"a": None, "f": {"type": "finalizer", "body": WORK}}, timeouts={"workflow_timeout": 1}
    ).fire("/timeout"),
}


def first_of(*branches: str) -> Play:
    join = {"type": "join", "wait_for": list(branches), "merge_strategy": "first"}
    return play(
        {"p": {"type": "parallel", "branches": list(branches)}, **dict.fromkeys(branches), "j": join, "z": None}, "j>z"
    )


def can_happen(progress: Progress, event: ev.Event) -> bool:
    """Whether the event can happen; checks that it changes nothing in place, and nothing at all if it cannot."""
    before = encode(progress)
    try:
        after = evolve(progress, event)
    except InvalidTransition:
        return False
    finally:
        assert encode(progress) == before
    assert after.sequence == progress.sequence + 1
    assert decode(encode(after)) == after
    return True


def happening(progress: Progress) -> set[str]:
    return {ev.kind_of(event) for event in EVENTS if can_happen(progress, event)}


def test_the_examples_hold_every_kind_of_event() -> None:
    assert [type(event) for event in EVENTS] == list(get_args(ev.Event))


def test_a_log_begins_with_the_start_and_nothing_else() -> None:
    assert happening(Progress()) == {"WorkflowStarted"}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_nothing_follows_the_end_but_the_retry_of_a_failure(status: str) -> None:
    it = BY_STATUS[status]()

    assert it.status == status
    assert happening(it.progress) == ({"WorkflowRetried"} if status == "failed" else set())


@pytest.mark.parametrize("status", ["running", "paused", "held"])
def test_an_execution_that_goes_on_starts_never_again_and_ends_only_when_nothing_is_open(status: str) -> None:
    found = happening(BY_STATUS[status]().progress)

    assert not found & {"WorkflowStarted", "WorkflowCompleted", "WorkflowFailed"}
    assert {"WorkflowCancelled", "WorkflowPaused", "WorkflowResumed", "ExternalEventReceived"} <= found


FOR_A_NODE = {
    RunStatus.PENDING: {
        *("NodeScheduled", "NodeCompleted", "NodeFailed", "NodeSkipped"),
        *("MapStarted", "WaitStarted", "ApprovalRequested", "ChildWorkflowStarted"),
    },
    RunStatus.SCHEDULED: {
        *("NodeStarted", "NodeProgressed", "NodeCompleted", "NodeFailed", "NodeCancelled"),
        *("NodeParked", "NodeHeld", "RetryScheduled"),
    },
    RunStatus.WAITING: {"NodeCompleted", "NodeFailed", "NodeCancelled", "ApprovalReceived"},
    RunStatus.DELEGATED: {"NodeCompleted", "NodeFailed", "NodeCancelled"},
    RunStatus.COMPLETED: set(),
    RunStatus.FAILED: set(),
    RunStatus.SKIPPED: set(),
    RunStatus.CANCELLED: set(),
    RunStatus.INTERRUPTED: set(),
}


@pytest.mark.parametrize("status", list(RunStatus))
def test_each_event_of_a_node_happens_only_in_the_statuses_it_belongs_to(status: RunStatus) -> None:
    progress = BY_RUN_STATUS[status]().progress
    of_nodes = set().union(*FOR_A_NODE.values())

    assert progress.run("a").status is status
    assert happening(progress) & of_nodes == FOR_A_NODE[status]


def test_a_waiting_node_is_scheduled_when_its_tool_was_approved() -> None:
    it = play({"a": {"type": "tool", "tool_ref": "pay"}}, policy={"require_approval_for": ["pay"]}).approve("a")

    assert it.progress.run("a").status is RunStatus.SCHEDULED


@pytest.mark.parametrize(
    "event",
    [
        ev.NodeCompleted(at=AT, node_id="a", attempt=2),
        ev.NodeCompleted(at=AT, node_id="a", iteration=1),
        ev.NodeStarted(at=AT, node_id="a", attempt=2, worker_id="w"),
        ev.TimerFired(at=AT, node_id="a", timer_id="a/wait", fire_at=1),
        ev.ExternalEventConsumed(at=AT, node_id="a", correlation_key="k"),
        ev.NodeCompleted(at=AT),
    ],
)
def test_an_event_of_something_else_is_impossible(event: ev.Event) -> None:
    assert not can_happen(play({"a": None}).progress, event)


# Logs


def story() -> Play:
    """A bit of everything."""
    nodes = {
        "a": {**WORK, "retry_policy": "fast"},
        "p": {"type": "parallel", "branches": ["m", "h", "w", "s"]},
        "m": {"type": "map", "items": "[1, 2]", "body": WORK},
        "h": {"type": "human_approval", "timeout_secs": 60},
        "w": {"type": "wait", "condition": "external_event", "correlation_key": "k"},
        "s": {"type": "subgraph", "workflow_ref": "sub"},
        "j": {"type": "join", "wait_for": ["m", "h", "w", "s"]},
        "z": None,
    }
    it = play(nodes, "a>p", "j>z", "z>a if output.again", "z>end", start_node="a", input={"x": 1})
    it.tell("k", "early").fail("a").complete("a", {"y": 2}).park("m[0]", it.at + 50).pause().approve("h").resume()
    it.complete("m[1]", 1).complete("m[0]", 0).child_completes("s", {"z": 3}).complete("z", {"again": True})
    return it.complete("a").cancel()


def test_any_prefix_of_a_log_is_a_valid_progress() -> None:
    log = story().log
    progress = Progress()

    for sequence, event in enumerate(log, 1):
        progress = evolve(progress, event)

        assert progress.sequence == sequence
        assert decode(encode(progress)) == progress
        assert progress == reduce(evolve, log[:sequence], Progress())


def test_a_snapshot_and_the_rest_of_the_log_are_the_same_as_the_log() -> None:
    it = story()

    for sequence in range(1, len(it.log)):
        snapshot = encode(reduce(evolve, it.log[:sequence], Progress()))

        assert reduce(evolve, it.log[sequence:], decode(snapshot)) == it.progress


def test_every_event_survives_being_stored() -> None:
    for event in [*EVENTS, *story().log]:
        assert ev.decode(ev.encode(event)) == event


def test_a_progress_is_a_value() -> None:
    progress = play({"a": None}).progress

    with pytest.raises(AttributeError, match="immutable"):
        progress.status = Status.FAILED  # type: ignore[misc]  # the wrong call is the point


def test_a_log_that_does_not_fit_is_refused() -> None:
    it = play({"a": None, "b": None}, "a>b").complete("a")

    with pytest.raises(InvalidTransition):
        reduce(evolve, [*it.log[:2], *it.log[3:], it.log[2], it.log[2]], Progress())


def test_usage_adds_up() -> None:
    it = play({"a": None, "b": None}, "a>b")
    it.complete("a", usage=ev.Usage(input_tokens=1, output_tokens=2, cost_usd=0.25))
    it.complete("b", usage=ev.Usage(input_tokens=10, output_tokens=20, cost_usd=0.5))

    assert msgspec.to_builtins(it.progress.consumed) == {"input_tokens": 11, "output_tokens": 22, "cost_usd": 0.75}


def test_a_progress_does_not_grow_with_its_log() -> None:
    """An event is decided on the progress alone, so it costs the same after a long log as after a short one."""
    it = play({"a": None}, "a>a if true", "a>end", max_iterations=1_000_000).complete("a", {"x": 1})
    early = len(encode(it.progress))

    for _ in range(1_000):
        it.complete("a", {"x": 1})

    assert len(it.log) > 3_000
    assert len(encode(it.progress)) < early + 20  # the counters have more digits by now


def test_what_was_kept_for_a_wait_or_done_by_a_map_leaves_nothing_behind() -> None:
    nodes = {
        "m": {"type": "map", "items": "range(50)", "body": WORK},
        "w": {"type": "wait", "condition": "external_event", "correlation_key": "k"},
    }
    it = play(nodes, "m>w").tell("k", 1)

    for index in range(50):
        it.complete(f"m[{index}]")

    assert it.status == "completed"
    assert set(it.progress.nodes) == {"m", "w"}
    assert it.progress.inbox == {}
