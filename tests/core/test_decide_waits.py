"""What waits: for a person, an event or a time; and when that makes an execution paused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.errors import Invalid, InvalidTransition

from .conftest import Play, play

ROUTES = {"on_approved": "yes", "on_rejected": "no", "fallback_node": "late"}


def asking(routes: Iterable[str] = ROUTES, **more: Any) -> Play:
    """`h` asks, and has these of its routes."""
    named = {name: ROUTES[name] for name in routes}
    return play({"h": {"type": "human_approval", **named, **more}, **dict.fromkeys(named.values())})


def error_of(it: Play) -> str:
    assert it.progress.error is not None
    return it.progress.error.message


# human_approval


def test_an_approval_asks_and_pauses_the_execution() -> None:
    it = asking(description="Ship {{ 1 + 1 }} boxes?")

    assert it.last == ["WorkflowStarted", "ApprovalRequested h", "WorkflowPaused"]
    assert it.status == "paused"
    assert it.approvals["h"].description == "Ship 2 boxes?"


def test_approved_goes_its_way() -> None:
    it = asking().approve("h")

    assert it.open_work == ["yes"]
    assert it.statuses()["no"] == "skipped"
    assert it.statuses()["late"] == "skipped"
    assert it.status == "running"


def test_rejected_goes_its_way() -> None:
    it = asking().reject("h")

    assert it.open_work == ["no"]
    assert it.statuses()["yes"] == "skipped"


def test_rejected_without_a_route_fails_the_execution_and_says_who_and_why() -> None:
    it = asking(routes=["on_approved"]).reject("h", user_id="ann", comment="too risky")

    assert it.status == "failed"
    assert error_of(it) == "rejected by ann: too risky"


def test_rejected_goes_along_an_edge_that_is_meant_for_it() -> None:
    nodes = {"h": {"type": "human_approval"}, "yes": None, "no": None}

    it = play(nodes, "h>no if output.decision == 'rejected'", "h>yes").reject("h")

    assert it.open_work == ["no"]


def test_rejected_never_goes_along_an_edge_without_a_condition() -> None:
    it = play({"h": {"type": "human_approval"}, "next": None}, "h>next").reject("h")

    assert it.status == "failed"
    assert "next" not in it.statuses()


def test_approved_goes_along_plain_edges_too() -> None:
    it = play({"h": {"type": "human_approval"}, "next": None}, "h>next").approve("h")

    assert it.open_work == ["next"]


def test_an_approval_at_the_end_of_a_path_completes_the_execution() -> None:
    assert play({"h": {"type": "human_approval"}}).approve("h").status == "completed"


def test_the_decision_its_author_comment_and_patch_are_an_event() -> None:
    it = asking().approve("h", user_id="ann", comment="fine", state_patch={"limit": 5})

    [received] = it.said(ev.ApprovalReceived)
    assert (received.node_id, received.decision, received.user_id, received.comment) == ("h", "approved", "ann", "fine")
    assert received.state_patch == {"limit": 5}
    assert it.state == {"limit": 5}
    assert it.progress.run("h").output == {
        "decision": "approved",
        "user_id": "ann",
        "actor": None,
        "comment": "fine",
    }


def test_a_decision_goes_under_the_output_key_where_there_is_one() -> None:
    it = asking(output_key="review").approve("h", user_id="ann")

    assert it.state == {"review": {"decision": "approved", "user_id": "ann"}}


def test_a_patch_that_does_not_fit_the_schema_is_refused_and_the_approval_stays_open() -> None:
    it = play({"h": {"type": "human_approval"}}, state_schema={"limit": "int"})

    with pytest.raises(Invalid, match="state_patch"):
        it.approve("h", state_patch={"limit": "much"})

    assert list(it.approvals) == ["h"]


def test_a_decision_is_made_once() -> None:
    it = asking().approve("h")

    with pytest.raises(InvalidTransition, match="does not wait for an approval"):
        it.reject("h")


def test_a_decision_about_a_node_that_is_not_there_says_so() -> None:
    with pytest.raises(Invalid, match="node_id: there is no node 'zzz'"):
        asking().approve("zzz")


def test_a_decision_is_yes_or_no() -> None:
    with pytest.raises(Invalid, match="'approved' or 'rejected'"):
        asking().approve("h", "perhaps")


def test_the_only_open_approval_needs_no_name() -> None:
    assert asking().approve().open_work == ["yes"]


def test_with_several_open_approvals_the_node_is_needed() -> None:
    nodes = {"a": None, "h1": {"type": "human_approval"}, "h2": {"type": "human_approval"}}

    with pytest.raises(Invalid, match="h1, h2"):
        play(nodes, "a>h1", "a>h2").complete("a").approve()


def test_a_decision_without_an_open_approval_is_refused() -> None:
    with pytest.raises(InvalidTransition, match="nothing waits for an approval"):
        play({"a": None}).approve()


def test_an_approval_that_nobody_gives_in_time_goes_to_the_fallback() -> None:
    it = asking(timeout_secs=60)

    assert it.approvals["h"].expires_at == it.timers["h/timeout"] == it.at + 60_000

    it.fire("h/timeout")

    assert it.open_work == ["late"]
    assert it.statuses()["yes"] == "skipped"
    assert not it.approvals


def test_an_approval_that_nobody_gives_in_time_fails_without_a_fallback() -> None:
    it = asking(routes=["on_approved", "on_rejected"], timeout_secs=60).fire("h/timeout")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("nothing came in time", "timeout", "h")


def test_the_approval_timeout_of_the_workflow_is_that_of_approvals_without_one() -> None:
    it = play({"h": {"type": "human_approval"}}, timeouts={"approval_timeout": "1h"})

    assert it.timers["h/timeout"] == it.at + 3_600_000


def test_a_decision_withdraws_the_timer() -> None:
    assert not asking(timeout_secs=60).approve("h").timers


# Timers


def waiting(condition: str = "either", **more: Any) -> Play:
    key = {"correlation_key": "order-7"} if condition != "timer" else {}
    time = {"duration": "30s"} if condition != "external_event" and "until" not in more else {}
    nodes = {"w": {"type": "wait", "condition": condition, **key, **time, **more}, "b": None, "late": None}
    return play(nodes, "w>b", "b>late if state.late")


def test_a_timer_waits_for_its_time() -> None:
    it = waiting("timer")

    assert it.status == "paused"
    assert it.timers == {"w/wait": it.at + 30_000}

    it.fire("w/wait")

    assert it.open_work == ["b"]
    assert it.status == "running"


def test_a_timer_may_wait_until_a_moment() -> None:
    assert waiting("timer", until="2026-03-12T10:00:00Z").timers == {"w/wait": 1_773_309_600_000}


def test_a_moment_without_a_zone_is_utc() -> None:
    assert waiting("timer", until="2026-03-12T10:00:00").timers == {"w/wait": 1_773_309_600_000}


def test_a_moment_that_is_over_is_now() -> None:
    it = waiting("timer", until="1969-01-01T00:00:00Z")

    assert it.timers == {"w/wait": it.at}


@pytest.mark.parametrize("delay", [2, "2s"])
def test_a_duration_may_be_a_template(delay: Any) -> None:
    nodes = {"w": {"type": "wait", "condition": "timer", "duration": "{{ state.delay }}"}}

    it = play(nodes, input={"delay": delay})

    assert it.timers == {"w/wait": it.at + 2_000}


@pytest.mark.parametrize("delay", ["soon", [1], "999999999h", 1e300])
def test_a_duration_that_is_none_fails_the_node(delay: Any) -> None:
    nodes = {"w": {"type": "wait", "condition": "timer", "duration": "{{ state.delay }}"}}

    it = play(nodes, input={"delay": delay})

    assert it.status == "failed"
    assert error_of(it).startswith("cannot tell how long to wait")


def test_a_timer_fires_once() -> None:
    it = waiting("timer")
    fired = ev.TimerFired(at=0, node_id="w", timer_id="w/wait", fire_at=it.timers["w/wait"])
    it.record(fired)

    with pytest.raises(InvalidTransition):
        it.record(fired)


# External events


def test_an_external_event_is_the_output_of_its_wait() -> None:
    it = waiting("external_event").tell("order-7", {"paid": True})

    assert it.progress.run("w").output == {"paid": True}
    assert it.state == {"paid": True}
    assert it.open_work == ["b"]


def test_an_event_for_another_key_leaves_the_wait_alone() -> None:
    it = waiting("external_event").tell("order-8", 1)

    assert it.statuses()["w"] == "waiting"
    assert it.status == "paused"


def test_the_correlation_key_may_be_a_template() -> None:
    nodes = {"w": {"type": "wait", "condition": "external_event", "correlation_key": "order-{{ state.order }}"}}

    assert play(nodes, input={"order": 7}).tell("order-7", 1).status == "completed"


def test_a_correlation_key_is_text_even_if_its_template_makes_a_number() -> None:
    nodes = {"w": {"type": "wait", "condition": "external_event", "correlation_key": "{{ state.order }}"}}

    assert play(nodes, input={"order": 7}).tell("7", 1).status == "completed"


def early(*payloads: Any, waits: int = 1) -> Play:
    names = [f"w{number}" for number in range(waits)]
    wait = {"type": "wait", "condition": "external_event", "correlation_key": "k"}
    it = play(
        {"a": None, **dict.fromkeys(names, wait)}, *[f"{x}>{y}" for x, y in zip(["a", *names], names, strict=False)]
    )
    for payload in payloads:
        it.tell("k", payload)
    return it.complete("a")


def test_an_event_that_comes_before_its_wait_is_kept_for_it() -> None:
    it = early("early")

    assert it.status == "completed"
    assert it.progress.run("w0").output == "early"
    assert "ExternalEventConsumed w0" in it.last


def test_a_kept_event_is_consumed_once() -> None:
    it = early("early", waits=2)

    assert it.statuses() == {"a": "completed", "w0": "completed", "w1": "waiting"}
    assert it.progress.inbox == {}


def test_kept_events_are_consumed_in_their_order() -> None:
    it = early("first", "second", waits=2)

    assert [it.progress.run(name).output for name in ("w0", "w1")] == ["first", "second"]


def test_one_event_wakes_one_wait() -> None:
    wait = {"type": "wait", "condition": "external_event", "correlation_key": "k"}
    it = play({"p": {"type": "parallel", "branches": ["w1", "w2"]}, "w1": wait, "w2": wait}).tell("k", 1)

    assert [it.statuses()[name] for name in ("w1", "w2")] == ["completed", "waiting"]

    assert it.tell("k", 2).status == "completed"


# Either, and too late


def test_either_goes_on_with_the_event_and_withdraws_the_timer() -> None:
    it = waiting("either").tell("order-7", "paid")

    assert it.progress.run("w").output == "paid"
    assert not it.timers


def test_either_goes_on_with_the_time() -> None:
    it = waiting("either").fire("w/wait")

    assert it.progress.run("w").output is None
    assert it.open_work == ["b"]


def test_an_event_after_the_time_is_kept_for_another_wait() -> None:
    it = waiting("either").fire("w/wait").tell("order-7", "paid")

    assert it.progress.inbox == {"order-7": ["paid"]}
    assert it.open_work == ["b"]


def test_a_wait_that_takes_too_long_goes_on_elsewhere() -> None:
    it = waiting("external_event", timeout_secs=60, on_timeout="late").fire("w/timeout")

    assert it.open_work == ["late"]
    assert it.statuses()["b"] == "skipped"


def test_a_wait_that_takes_too_long_fails_without_a_route() -> None:
    it = waiting("external_event", timeout_secs=60).fire("w/timeout")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("nothing came in time", "timeout", "w")


def test_a_wait_in_time_does_not_go_the_way_of_the_timeout() -> None:
    it = waiting("external_event", timeout_secs=60, on_timeout="late").tell("order-7")

    assert it.open_work == ["b"]
    assert not it.timers


# Paused


def test_an_execution_is_not_paused_while_work_is_left() -> None:
    it = play({"a": None, "h": {"type": "human_approval"}, "b": None}, "a>h", "a>b").complete("a")

    assert it.status == "running"

    it.complete("b")

    assert it.status == "paused"


def test_an_execution_is_paused_when_all_items_of_a_map_wait() -> None:
    body = {"type": "tool", "tool_ref": "pay"}
    nodes = {"m": {"type": "map", "items": "[1, 2]", "body": body}}
    it = play(nodes, policy={"require_approval_for": ["pay"]})

    assert it.status == "paused"

    it.approve("m[0]")

    assert it.status == "running"

    it.complete("m[0]")

    assert it.status == "paused"


def test_an_execution_whose_child_runs_is_not_paused() -> None:
    nodes = {
        "p": {"type": "parallel", "branches": ["s", "h"]},
        "s": {"type": "subgraph", "workflow_ref": "sub"},
        "h": {"type": "human_approval"},
    }

    assert play(nodes).status == "running"
    assert play(nodes).child_completes("s").status == "paused"


def test_an_execution_runs_again_when_what_it_waits_for_comes() -> None:
    it = asking().approve("h")

    assert "WorkflowResumed" in it.last
    assert it.status == "running"


def test_a_decision_while_work_is_left_resumes_nothing() -> None:
    it = play({"a": None, "h": {"type": "human_approval"}, "b": None, "c": None}, "a>h", "a>b", "h>c").complete("a")

    it.approve("h")

    assert it.last == ["ApprovalReceived h", "NodeCompleted h", "NodeScheduled c"]
