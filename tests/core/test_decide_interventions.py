"""What people do to an execution: cancel, pause, resume, retry, fork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.decide import CloseApproval, SettleWork
from jamjet_kernel.errors import Conflict, InvalidTransition

from .conftest import WORK, Play, play

WAIT = {"type": "wait", "condition": "external_event", "correlation_key": "k", "timeout_secs": 60}
FINALIZER = {"type": "finalizer", "body": WORK}
ASK = {"type": "human_approval", "timeout_secs": 60}


def everything() -> Play:
    """Work, an approval, a wait, a child execution and a map, all open."""
    nodes = {
        "p": {"type": "parallel", "branches": list("ahwsm")},
        "a": None,
        "h": ASK,
        "w": WAIT,
        "s": {"type": "subgraph", "workflow_ref": "sub"},
        "m": {"type": "map", "items": "[1, 2]", "body": WORK},
    }
    return play(nodes, timeouts={"workflow_timeout": 600})


LATE: list[Callable[[Play], Any]] = [
    lambda it: it.complete("a", attempt=1),
    lambda it: it.fail("a", attempt=1),
    lambda it: it.park("a", 10_000),
    lambda it: it.approve("h"),
    lambda it: it.tell("k"),
    lambda it: it.child_completes("s"),
    lambda it: it.complete("m[0]"),
    lambda it: it.cancel(),
    lambda it: it.pause(),
    lambda it: it.resume(),
]


# Cancel


def test_a_cancel_is_final_and_withdraws_everything() -> None:
    it = everything().cancel("changed my mind")

    assert it.last == ["WorkflowCancelled"]
    assert it.status == "cancelled"
    assert [*it.work, *it.timers, *it.approvals, *it.children] == []


@pytest.mark.parametrize("late", LATE)
def test_nothing_follows_a_cancel(late: Callable[[Play], Any]) -> None:
    it = everything().cancel()
    length = len(it.log)

    with pytest.raises(InvalidTransition):
        late(it)

    assert len(it.log) == length


@pytest.mark.parametrize("late", LATE)
def test_nothing_follows_completion(late: Callable[[Play], Any]) -> None:
    it = play({"a": None}).complete("a")

    with pytest.raises(InvalidTransition):
        late(it)


def test_a_paused_execution_can_be_cancelled() -> None:
    assert play({"h": ASK}).cancel().status == "cancelled"
    assert play({"a": None}).pause().cancel().status == "cancelled"


def test_a_cancelled_execution_is_not_retried() -> None:
    with pytest.raises(Conflict, match="the execution is cancelled"):
        play({"a": None}).cancel().retry()


# Pause and resume


def test_a_pause_starts_nothing_but_takes_results_in() -> None:
    it = play({"a": None, "b": None}, "a>b").pause().complete("a", {"x": 1})

    assert it.status == "paused"
    assert it.state == {"x": 1}
    assert it.last == ["NodeCompleted a"]


def test_a_resume_starts_what_the_pause_held_back() -> None:
    it = play({"a": None, "b": None}, "a>b").pause().complete("a").resume()

    assert it.status == "running"
    assert it.open_work == ["b"]


def test_work_that_was_under_way_stays_under_way() -> None:
    it = play({"a": None}).pause()

    assert it.open_work == ["a"]

    it.resume()

    assert it.decisions[-1].commands == ()
    assert it.complete("a").status == "completed"


def test_work_that_nobody_began_is_left_until_the_execution_goes_on() -> None:
    it = play({"a": None}).pause()

    it.record(ev.NodeHeld(at=0, node_id="a", attempt=1))

    assert (it.status, it.open_work) == ("paused", [])
    it.resume()
    assert (it.open_work, it.progress.left) == (["a"], ())
    assert it.complete("a").status == "completed"


def test_nothing_is_left_once_the_execution_goes_on() -> None:
    it = play({"a": None}).pause().resume()

    with pytest.raises(InvalidTransition, match="goes on by now"):
        it.record(ev.NodeHeld(at=0, node_id="a", attempt=1))


def test_an_execution_does_not_end_while_it_is_paused() -> None:
    it = play({"a": None}).pause().complete("a")

    assert it.status == "paused"

    assert it.resume().status == "completed"


def test_a_decision_is_taken_in_while_paused() -> None:
    it = play({"h": ASK, "b": None}, "h>b").pause().approve("h")

    assert it.status == "paused"
    assert not it.open_work

    assert it.resume().open_work == ["b"]


def test_an_external_event_is_taken_in_while_paused() -> None:
    it = play({"w": WAIT, "b": None}, "w>b").pause().tell("k", {"x": 1})

    assert it.statuses()["w"] == "completed"
    assert it.status == "paused"

    assert it.resume().open_work == ["b"]


def test_a_map_feeds_no_items_while_paused() -> None:
    nodes = {"m": {"type": "map", "items": "[1, 2]", "body": WORK, "max_concurrency": 1}}
    it = play(nodes).pause().complete("m[0]")

    assert not it.open_work

    assert it.resume().open_work == ["m[1]"]


def test_a_loop_does_not_go_round_while_paused() -> None:
    it = play({"a": None}, "a>a if true", "a>end").pause().complete("a")

    assert it.progress.run("a").iteration == 0

    assert it.resume().open_work == ["a"]


def test_resuming_where_only_waits_are_left_pauses_again_by_itself() -> None:
    it = play({"h": ASK}).pause().resume()

    assert it.status == "paused"
    assert not it.progress.held


def test_a_pause_is_asked_for_once() -> None:
    with pytest.raises(InvalidTransition, match="paused already"):
        play({"a": None}).pause().pause()


def test_only_what_somebody_paused_is_resumed() -> None:
    with pytest.raises(InvalidTransition, match="the execution is running, and nobody paused it"):
        play({"a": None}).resume()


def test_who_resumes_what_only_waits_is_told_for_what() -> None:
    subgraph = {"type": "subgraph", "workflow_ref": "sub"}
    nodes = {
        "p": {"type": "parallel", "branches": list("hwtsm")},
        "h": ASK,
        "w": WAIT,
        "t": {"type": "wait", "condition": "timer", "duration": 9},
        "s": subgraph,
        "m": {"type": "map", "items": "[state]", "body": subgraph},
    }
    it = play(nodes).child_pauses("s").child_pauses("m[0]")
    one, other = it.children

    with pytest.raises(InvalidTransition) as refused:
        it.resume()

    assert str(refused.value) == (
        "the execution waits for an approval at 'h', the event 'k' at 'w', its time at 't', "
        f"its child execution {one}, its child execution {other}, and nobody paused it"
    )


AFTER_THE_END: list[tuple[Callable[[Play], Any], str]] = [
    (lambda it: it.cancel(), "the execution is completed; it cannot be cancelled any more"),
    (lambda it: it.pause(), "the execution is completed; it cannot be paused any more"),
    (lambda it: it.resume(), "the execution is completed; it cannot be resumed any more"),
    (lambda it: it.approve(), "the execution is completed, and nothing waits for an approval any more"),
    (lambda it: it.approve("a"), "the execution is completed, and nothing waits for an approval any more"),
    (lambda it: it.tell("k"), "the execution is completed; it takes no events any more"),
]


@pytest.mark.parametrize(("act", "message"), AFTER_THE_END)
def test_who_comes_after_the_end_is_told_so(act: Callable[[Play], Any], message: str) -> None:
    with pytest.raises(InvalidTransition) as refused:
        act(play({"a": None}).complete("a"))

    assert str(refused.value) == message


# Retry


def test_a_retry_runs_the_failed_node_again() -> None:
    it = play({"a": None, "b": None}, "a>b").complete("a", {"x": 1}).fail("b").retry()

    assert it.status == "running"
    assert it.open_work == ["b"]
    assert it.work["b"].attempt == 1
    assert it.progress.error is None

    assert it.complete("b").status == "completed"


def test_a_retry_does_not_run_again_what_is_done() -> None:
    it = play(dict.fromkeys("abcd"), "a>b", "a>c", "b>d", "c>d").complete("a").complete("b").fail("c").retry()

    assert it.open_work == ["c"]

    assert it.complete("c").open_work == ["d"]


def test_a_retry_runs_again_what_a_timeout_interrupted() -> None:
    it = play({"a": None, "b": None}, "a>b", timeouts={"workflow_timeout": 10}).fire("/timeout").retry()

    assert it.open_work == ["a"]
    assert it.timers == {"/timeout": it.at + 10_000}


def test_a_retry_keeps_the_items_of_a_map_that_are_done() -> None:
    it = play({"m": {"type": "map", "items": "[1, 2, 3]", "body": WORK}})
    it.complete("m[0]", "one").fail("m[1]").retry()

    assert it.open_work == ["m[1]", "m[2]"]

    assert it.complete("m[1]", "two").complete("m[2]", "three").state == {"m": ["one", "two", "three"]}


def test_a_retry_asks_again() -> None:
    it = play({"h": ASK}).reject("h").retry()

    assert list(it.approvals) == ["h"]
    assert it.status == "paused"


def test_a_retry_runs_the_finalizers_again_at_the_end() -> None:
    it = play({"a": None, "f": FINALIZER}).fail("a").complete("f").retry()

    assert it.open_work == ["a"]

    assert it.complete("a").open_work == ["f"]


def test_a_finalizer_that_was_done_is_a_new_iteration_after_a_retry() -> None:
    it = play({"a": None, "f": FINALIZER}).fail("a").complete("f")
    done = it.progress.run("f").iteration

    it.retry().complete("a")

    assert (done, it.progress.run("f").iteration) == (0, 1)
    assert it.complete("f").status == "completed"


def test_a_finalizer_that_failed_waits_for_its_turn_after_a_retry() -> None:
    it = play({"a": None, "f": FINALIZER}).fail("a").complete("f").retry()
    it.fail("a").fail("f").retry()

    assert it.open_work == ["a"]
    assert it.complete("a").open_work == ["f"]
    assert it.complete("f").status == "completed"


@pytest.mark.parametrize("end", [lambda it: it, lambda it: it.complete("a")], ids=["running", "completed"])
def test_only_a_failed_execution_is_retried(end: Callable[[Play], Play]) -> None:
    it = end(play({"a": None}))

    with pytest.raises(Conflict):
        it.retry()


# Fork


def test_a_fork_goes_on_from_an_earlier_event() -> None:
    it = play(dict.fromkeys("abc"), "a>b", "b>c").complete("a", {"x": 1})
    sequence = len(it.log)
    it.complete("b", {"x": 2}).complete("c")

    forked = it.fork(sequence)

    assert forked.state == {"x": 1}
    assert forked.open_work == ["b"]
    assert forked.complete("b").complete("c").status == "completed"


def test_a_fork_may_change_the_state() -> None:
    it = play({"a": None, "b": None, "c": None}, "a>b if state.x", "a>c").fork(1, x=True)

    assert it.complete("a").open_work == ["b"]


def test_a_fork_leaves_the_original_alone() -> None:
    it = play({"a": None, "b": None}, "a>b").complete("a")
    before = it.progress

    it.fork(2).cancel()

    assert it.progress == before


def test_a_fork_asks_and_waits_anew() -> None:
    it = play({"p": {"type": "parallel", "branches": ["h", "w"]}, "h": ASK, "w": WAIT})

    forked = it.fork(len(it.log))

    assert list(forked.approvals) == ["h"]
    assert sorted(forked.timers) == ["h/timeout", "w/timeout"]
    assert forked.status == "paused"


def test_a_fork_of_a_failed_execution_runs_what_failed() -> None:
    it = play({"a": None, "b": None}, "a>b").complete("a").fail("b")

    assert it.fork(len(it.log)).open_work == ["b"]


def test_a_fork_of_a_completed_execution_is_complete() -> None:
    it = play({"a": None}).complete("a", 1)

    assert it.fork(len(it.log)).status == "completed"


# What the shell is told


def test_cancelled_work_is_settled_and_approvals_are_closed() -> None:
    commands = everything().cancel().decisions[-1].commands

    assert SettleWork("a", "general") in commands
    assert CloseApproval("h") in commands
