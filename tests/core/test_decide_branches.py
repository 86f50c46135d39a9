"""Many at once: parallel, join and map."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.errors import InvalidTransition

from .conftest import WORK, Play, play


def fan(strategy: str = "collect", **more: Any) -> Play:
    """`p` starts `a` and `b`, `j` joins them, `z` follows."""
    nodes = {
        "p": {"type": "parallel", "branches": ["a", "b"]},
        "a": None,
        "b": None,
        "j": {"type": "join", "wait_for": ["a", "b"], "merge_strategy": strategy, **more},
        "z": None,
    }
    return play(nodes, "j>z")


# parallel and join


def test_a_parallel_starts_all_its_branches() -> None:
    assert fan().open_work == ["a", "b"]


@pytest.mark.parametrize(("given", "started"), [({}, ["a", "b"]), ({"x": 1}, ["a", "b", "c"])])
def test_an_edge_of_a_parallel_starts_more_and_stops_no_branch(given: dict[str, Any], started: list[str]) -> None:
    nodes = {"p": {"type": "parallel", "branches": ["a", "b"]}, **dict.fromkeys("abc")}

    assert play(nodes, "p>c if state.x", input=given).open_work == started


def test_a_join_goes_on_when_all_it_waits_for_are_done() -> None:
    it = fan().complete("b")

    assert it.open_work == ["a"]

    it.complete("a")

    assert it.open_work == ["z"]


def test_collect_makes_a_list_in_the_order_of_wait_for() -> None:
    it = fan().complete("b", "B").complete("a", "A")

    assert it.progress.run("j").output == ["A", "B"]
    assert it.state["j"] == ["A", "B"]


def test_collect_goes_under_the_output_key() -> None:
    nodes = {
        "p": {"type": "parallel", "branches": ["a", "b"], "join": "j"},
        "a": None,
        "b": None,
        "j": {"type": "join", "output_key": "all"},
    }

    assert play(nodes).complete("a", 1).complete("b", 2).state["all"] == [1, 2]


def test_collect_has_null_where_a_branch_was_skipped() -> None:
    it = play({"a": None, "b": None, "c": None, "j": {"type": "join"}}, "a>b", "a>c if state.no", "b>j", "c>j")

    assert it.complete("a").complete("b", 1).progress.run("j").output == [1, None]


def test_merge_makes_one_object_in_the_order_of_wait_for() -> None:
    it = fan("merge").complete("b", {"x": "b", "y": 1}).complete("a", {"x": "a", "z": 2})

    assert it.progress.run("j").output == {"x": "b", "y": 1, "z": 2}


def test_first_goes_on_with_the_first_and_cancels_the_rest() -> None:
    it = fan("first").complete("b", "B")

    assert it.last[:3] == ["NodeCompleted b", "NodeCancelled a", "NodeCompleted j"]
    assert it.progress.run("j").output == "B"
    assert it.open_work == ["z"]


def test_first_refuses_what_comes_second() -> None:
    with pytest.raises(InvalidTransition):
        fan("first").complete("b", "B").complete("a", "A")


def test_first_does_not_start_what_lies_further_up_the_slower_branch() -> None:
    nodes = {
        "p": {"type": "parallel", "branches": ["a", "b"]},
        **dict.fromkeys(["a", "a2", "b"]),
        "j": {"type": "join", "wait_for": ["a2", "b"], "merge_strategy": "first"},
    }

    it = play(nodes, "a>a2").complete("b")

    assert it.status == "completed"
    assert it.statuses()["a"] == "cancelled"
    assert it.statuses()["a2"] == "skipped"


def test_first_withdraws_waits_approvals_and_children() -> None:
    branches = {
        "w": {"type": "wait", "condition": "timer", "duration": "1h"},
        "h": {"type": "human_approval", "timeout_secs": 9},
        "s": {"type": "subgraph", "workflow_ref": "sub"},
        "m": {"type": "map", "items": "[1, 2]", "body": WORK},
        "quick": None,
    }
    nodes = {
        "p": {"type": "parallel", "branches": list(branches)},
        **branches,
        "j": {"type": "join", "wait_for": list(branches), "merge_strategy": "first"},
    }

    it = play(nodes).complete("quick", 1)

    assert it.status == "completed"
    assert not it.timers
    assert not it.approvals
    assert not it.children


def test_a_failed_branch_lets_the_others_finish_and_then_fails_the_execution() -> None:
    it = fan().fail("a")

    assert it.status == "running"

    it.complete("b")

    assert it.status == "failed"
    assert "j" not in it.statuses()


# map


def mapped(items: str = "[1, 2, 3]", body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"m": {"type": "map", "items": items, "body": body or WORK, **more}}


def test_a_map_runs_its_body_for_each_item() -> None:
    it = play(mapped("state.xs"), input={"xs": ["a", "b"]})

    assert it.open_work == ["m[0]", "m[1]"]
    assert [it.progress.input_of(run_id) for run_id in it.open_work] == ["a", "b"]


def test_the_results_of_a_map_are_in_the_order_of_the_items() -> None:
    it = play(mapped(output_key="out")).complete("m[2]", 30).complete("m[0]", 10).complete("m[1]", 20)

    assert it.state == {"out": [10, 20, 30]}
    assert it.status == "completed"


def test_without_an_output_key_the_results_go_under_the_maps_id() -> None:
    assert play(mapped("[1]")).complete("m[0]", {"x": 1}).state == {"m": [{"x": 1}]}


def test_a_map_runs_no_more_at_once_than_it_may() -> None:
    it = play(mapped("range(4)", max_concurrency=2))

    assert it.open_work == ["m[0]", "m[1]"]

    it.complete("m[1]")

    assert it.open_work == ["m[0]", "m[2]"]


def test_a_map_without_items_is_done_at_once() -> None:
    it = play(mapped("[]"))

    assert it.status == "completed"
    assert it.state == {"m": []}


def test_the_items_may_be_a_template() -> None:
    assert play(mapped("{{ state.xs }}"), input={"xs": [1]}).open_work == ["m[0]"]


@pytest.mark.parametrize("items", ["state.missing", "3", "'text'", "{'a': 1}"])
def test_a_map_over_what_is_no_list_fails(items: str) -> None:
    it = play(mapped(items))

    assert it.status == "failed"
    assert it.progress.error is not None
    assert "not a list" in it.progress.error.message


def test_the_body_sees_the_item_and_its_index() -> None:
    body = {"type": "model", "model": "m", "prompt": "{{ index }}: {{ item.name }}"}

    it = play(mapped("state.xs", body), input={"xs": [{"name": "x"}, {"name": "y"}]})

    assert it.progress.run("m[1]").config == {"prompt": "1: y"}


def test_the_body_may_be_a_node_of_the_workflow() -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": {**WORK, "queue": "gpu"}}

    assert play(nodes).work["m[0]"].queue == "gpu"


def test_an_item_that_fails_fails_the_map_and_stops_the_others() -> None:
    it = play(mapped()).fail("m[1]", "bad item")

    assert it.status == "failed"
    assert it.statuses() == {"m": "failed", "m[0]": "interrupted", "m[1]": "failed", "m[2]": "interrupted"}
    assert it.progress.error == ev.Failure("bad item", node_id="m[1]")


def test_an_item_is_tried_again_by_the_retry_policy_of_the_body() -> None:
    it = play(mapped("[1]", {**WORK, "retry_policy": "fast"})).fail("m[0]")

    assert it.work["m[0]"].attempt == 2

    assert it.complete("m[0]", 1).status == "completed"


def test_the_error_route_of_a_map_takes_over_from_an_item() -> None:
    it = play({**mapped(on_error="b"), "b": None}).fail("m[1]", "bad item")

    assert it.open_work == ["b"]
    assert it.state["error"]["message"] == "bad item"


def test_the_body_may_be_a_child_execution() -> None:
    body = {"type": "subgraph", "workflow_ref": "sub", "input_mapping": {"n": "{{ item }}"}}
    it = play(mapped("[1, 2]", body))

    assert [child.input for child in it.children.values()] == [{"n": 1}, {"n": 2}]

    it.child_completes("m[1]", "two").child_completes("m[0]", "one")

    assert it.state == {"m": ["one", "two"]}


def test_a_map_in_a_loop_begins_with_fresh_items() -> None:
    it = play(
        {**mapped("state.xs"), "b": None}, "m>b", "b>m if output.again", "b>end", start_node="m", input={"xs": [1, 2]}
    )
    it.complete("m[0]").complete("m[1]").complete("b", {"again": True, "xs": [3]})

    it.complete("m[0]", "three")

    assert it.state["m"] == ["three"]
