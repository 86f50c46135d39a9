"""Child executions: they start, end, fail and are cancelled with their parents."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.decide import DEEPEST, CancelChild, StartChild, TellChild, TellParent
from jamjet_kernel.errors import InvalidTransition

from .conftest import Play, graph, play

WAIT = {"type": "wait", "condition": "external_event", "correlation_key": "k"}
SUB = {"type": "subgraph", "workflow_ref": "sub"}


def parent(**more: Any) -> Play:
    nodes = {"s": {"type": "subgraph", "workflow_ref": "sub", **more}, "b": None}
    return play(nodes, "s>b", input={"q": "why", "n": 1})


def child(nodes: dict[str, Any], *edges: str, depth: int = 1) -> Play:
    return Play(graph(nodes, *edges)).start({}, parent=ev.Parent("above", "s", depth))


def test_a_subgraph_starts_a_child_execution() -> None:
    it = parent(workflow_version="1.2.0")

    [started] = it.said(ev.ChildWorkflowStarted)
    assert (started.workflow_id, started.workflow_version, started.input) == ("sub", "1.2.0", {"q": "why", "n": 1})
    assert it.decisions[-1].commands == (StartChild(ev.Parent("exec", "s"), started),)
    assert it.status == "running"


def test_an_input_mapping_makes_the_childs_input() -> None:
    it = parent(input_mapping={"query": "{{ state.q | upper }}", "depth": "{{ state.n + 1 }}"})

    assert it.said(ev.ChildWorkflowStarted)[0].input == {"query": "WHY", "depth": 2}


def test_the_input_of_a_child_is_an_object() -> None:
    it = parent(input_mapping="{{ state.n }}")

    assert it.status == "failed"
    assert not it.children


def test_each_child_has_an_id_of_its_own() -> None:
    it = play({"p": {"type": "parallel", "branches": ["s1", "s2"]}, "s1": SUB, "s2": SUB})

    assert len(it.children) == 2


def test_the_id_of_a_child_does_not_grow_with_its_depth() -> None:
    root = "exec_" + 32 * "a"
    ids = [root]

    for _ in range(5):
        it = Play(graph({"s": SUB}))
        it.record(ev.WorkflowStarted(at=0, execution_id=ids[-1], workflow_id="flow", workflow_version="0.1.0"))
        ids += it.children

    assert len(set(ids)) == 6
    assert {len(child_id) for child_id in ids[1:]} == {58}
    assert all(child_id.startswith(f"{root}.") for child_id in ids[1:])


def test_a_child_is_one_level_deeper_than_its_parent() -> None:
    it = child({"s": SUB}, depth=7)

    assert it.decisions[-1].commands == (StartChild(ev.Parent("exec", "s", 8), it.said(ev.ChildWorkflowStarted)[0]),)


def test_children_nest_only_so_deep() -> None:
    nested = {**SUB, "retry_policy": "io_default"}

    assert child({"s": nested}, depth=DEEPEST - 1).status == "running"
    it = child({"s": nested}, depth=DEEPEST)

    assert it.status == "failed"
    assert it.progress.error == ev.Failure(
        "child executions nest 32 levels deep at most: does a workflow start itself?", node_id="s"
    )


def test_the_final_state_of_the_child_is_the_output() -> None:
    it = parent().child_completes("s", {"answer": 42})

    assert it.last == ["ChildWorkflowCompleted s", "NodeCompleted s", "NodeScheduled b"]
    assert it.state == {"q": "why", "n": 1, "answer": 42}


def test_an_output_mapping_makes_the_output() -> None:
    it = parent(output_mapping={"found": "{{ output.answer + state.n }}"}).child_completes("s", {"answer": 42})

    assert it.progress.run("s").output == {"found": 43}


def test_an_output_mapping_that_cannot_be_rendered_fails_the_node() -> None:
    it = parent(output_mapping={"found": "{{ output.missing }}"}).child_completes("s", {"answer": 42})

    assert it.status == "failed"
    assert it.progress.error is not None
    assert it.progress.error.message.startswith("output_mapping: ")


def test_a_failed_child_fails_its_node() -> None:
    it = parent().child_fails("s", "deep trouble")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("deep trouble", node_id="s")


def test_the_error_route_takes_over_from_a_failed_child() -> None:
    it = play({"s": {"type": "subgraph", "workflow_ref": "sub", "on_error": "b"}, "b": None}).child_fails("s", "oh")

    assert it.open_work == ["b"]
    assert it.state["error"]["message"] == "oh"


def test_cancelling_the_parent_cancels_the_child() -> None:
    it = parent()
    child_id = next(iter(it.children))

    it.cancel()

    assert CancelChild(child_id) in it.decisions[-1].commands


def test_failing_the_parent_cancels_the_child() -> None:
    nodes = {"s": {"type": "subgraph", "workflow_ref": "sub"}}
    it = play(nodes, timeouts={"workflow_timeout": 1})
    child_id = next(iter(it.children))

    it.fire("/timeout")

    assert it.status == "failed"
    assert CancelChild(child_id) in it.decisions[-1].commands


def test_a_pause_and_a_resume_that_somebody_asked_for_reach_the_children() -> None:
    it = play({"p": {"type": "parallel", "branches": ["s1", "s2"]}, "s1": SUB, "s2": SUB})
    children = list(it.children)
    it.child_completes("s1")

    it.pause()
    paused = ev.WorkflowPaused(at=it.at, reason="requested")
    assert it.decisions[-1].commands == (TellChild(children[1], paused),)

    it.resume()
    assert TellChild(children[1], ev.WorkflowResumed(at=it.at, reason="requested")) in it.decisions[-1].commands


def test_news_of_another_child_is_refused() -> None:
    it = parent()

    with pytest.raises(InvalidTransition, match="another child"):
        it.record(ev.ChildWorkflowCompleted(at=0, node_id="s", child_execution_id="stranger"))


def test_a_parent_whose_children_only_wait_is_paused_until_one_goes_on() -> None:
    it = play({"p": {"type": "parallel", "branches": ["s1", "s2"]}, "s1": SUB, "s2": SUB})

    assert it.child_pauses("s1").status == "running"
    assert it.child_pauses("s2").status == "paused"
    assert it.last == ["ChildWorkflowPaused s2", "WorkflowPaused"]
    assert it.child_goes_on("s1").last == ["ChildWorkflowResumed s1", "WorkflowResumed"]
    assert it.child_completes("s1").status == "paused"
    assert it.child_completes("s2").status == "completed"


def test_a_child_that_only_waits_is_cancelled_with_its_parent_like_any_other() -> None:
    it = parent()
    child_id = next(iter(it.children))

    it.child_pauses("s").cancel()

    assert CancelChild(child_id) in it.decisions[-1].commands


def test_a_parent_that_was_paused_and_goes_on_knows_that_its_child_only_waits() -> None:
    it = parent().pause().child_pauses("s").resume()

    assert it.status == "paused"
    assert len(it.children) == 1
    assert it.child_goes_on("s").status == "running"


def test_items_of_a_map_that_are_children_may_all_wait() -> None:
    it = play({"m": {"type": "map", "items": "[state, state]", "body": SUB}})

    it.child_pauses("m[0]").child_pauses("m[1]")
    assert it.status == "paused"
    it.pause().resume()

    assert it.child_completes("m[0]").child_completes("m[1]").status == "completed"


def test_a_child_tells_its_parent_when_it_only_waits_and_when_it_goes_on() -> None:
    it = child({"h": {"type": "human_approval"}, "a": None, "w": WAIT}, "h>a", "a>w").approve().complete("a").tell("k")

    told = [type(told.event).__name__ for told in it.told]
    assert told == [
        "ChildWorkflowPaused",
        "ChildWorkflowResumed",
        "ChildWorkflowPaused",
        "ChildWorkflowCompleted",
    ]


def test_a_child_that_somebody_paused_does_not_pause_its_parent() -> None:
    assert not child({"a": None}).pause().told


def test_a_child_whose_own_child_only_waits_tells_its_parent() -> None:
    [told] = child({"s": SUB}).child_pauses("s").told

    assert isinstance(told.event, ev.ChildWorkflowPaused)


def test_a_child_that_completes_tells_its_parent_its_state() -> None:
    it = child({"a": None}).complete("a", {"answer": 42})

    news = ev.ChildWorkflowCompleted(at=it.at, node_id="s", child_execution_id="exec", output={"answer": 42})
    assert it.told == [TellParent(ev.Parent("above", "s"), news)]


def test_a_child_that_fails_tells_its_parent_why() -> None:
    it = child({"a": None}).fail("a", "deep trouble")

    [told] = it.told
    assert isinstance(told.event, ev.ChildWorkflowFailed)
    assert told.event.error.message == "deep trouble"


def test_a_child_that_is_cancelled_tells_its_parent() -> None:
    [told] = child({"a": None}).cancel("no longer needed").told

    assert isinstance(told.event, ev.ChildWorkflowFailed)
    assert told.event.error.message == "no longer needed"


def test_an_execution_without_a_parent_tells_nobody() -> None:
    assert not play({"a": None}).complete("a").told
