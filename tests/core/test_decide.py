"""Which node runs when, and what its result does to the state."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.decide import EnqueueWork
from jamjet_kernel.errors import Invalid, InvalidTransition

from .conftest import WORK, Play, graph, play

# The beginning and the end


def test_only_the_start_node_starts() -> None:
    it = play({"a": None, "b": None}, "a>b")

    assert it.last == ["WorkflowStarted", "NodeScheduled a"]
    assert it.status == "running"


def test_a_node_starts_when_the_one_before_it_is_done() -> None:
    it = play({"a": None, "b": None}, "a>b").complete("a")

    assert it.last == ["NodeCompleted a", "NodeScheduled b"]


def test_an_execution_completes_when_its_last_node_does() -> None:
    it = play({"a": None}).complete("a")

    assert it.last == ["NodeCompleted a", "WorkflowCompleted"]
    assert it.status == "completed"


def test_a_path_is_over_at_the_end() -> None:
    it = play({"a": None, "stop": {"type": "end"}}, "a>stop").complete("a")

    assert it.status == "completed"
    assert "stop" not in it.statuses()


def test_a_workflow_that_starts_at_its_end_is_over_at_once() -> None:
    assert play({"stop": {"type": "end"}}).status == "completed"


def test_an_execution_starts_once() -> None:
    with pytest.raises(InvalidTransition):
        play({"a": None}).start()


def test_nothing_happens_before_the_start() -> None:
    with pytest.raises(InvalidTransition):
        Play(graph({"a": None})).complete("a")


def test_a_consequence_cannot_come_from_outside() -> None:
    with pytest.raises(InvalidTransition, match="NodeSkipped is a consequence"):
        play({"a": None}).record(ev.NodeSkipped(at=0, node_id="a"))


def test_work_is_queued_where_its_node_says() -> None:
    it = play({"a": {**WORK, "queue": "gpu"}, "b": None}, "a>b")

    assert it.work["a"] == EnqueueWork("a", 1, it.at, "gpu")

    it.complete("a")

    assert it.work["b"].queue == "general"


# Edges


def test_edges_with_a_true_condition_are_taken_and_the_others_are_dead() -> None:
    nodes = dict.fromkeys("abcd")
    it = play(nodes, "a>b if state.x > 1", "a>c if state.x > 2", "a>d if state.x > 3", input={"x": 3}).complete("a")

    assert it.open_work == ["b", "c"]
    assert it.statuses()["d"] == "skipped"


def test_the_unconditional_edge_is_taken_if_no_conditional_one_was() -> None:
    it = play({"a": None, "b": None, "c": None}, "a>b if state.x", "a>c").complete("a")

    assert it.open_work == ["c"]
    assert it.statuses()["b"] == "skipped"


def test_the_unconditional_edge_is_dead_if_a_conditional_one_was_taken() -> None:
    it = play({"a": None, "b": None, "c": None}, "a>b if state.x", "a>c", input={"x": True}).complete("a")

    assert it.open_work == ["b"]
    assert it.statuses()["c"] == "skipped"


@pytest.mark.parametrize("given", [{"x": 1}, {"y": 1}, {"x": 1, "y": 1}])
def test_of_two_edges_between_the_same_nodes_one_must_be_true(given: dict[str, Any]) -> None:
    edges = ["a>b if state.x", "a>b if state.y"]

    assert play({"a": None, "b": None}, *edges, input=given).complete("a").open_work == ["b"]
    assert play({"a": None, "b": None}, *edges).complete("a").statuses()["b"] == "skipped"


def test_all_unconditional_edges_are_taken_at_once() -> None:
    it = play({"a": None, "b": None, "c": None}, "a>b", "a>c").complete("a")

    assert it.open_work == ["b", "c"]


def test_an_execution_ends_where_no_edge_is_taken() -> None:
    it = play({"a": None, "b": None}, "a>b if state.x").complete("a")

    assert it.last == ["NodeCompleted a", "NodeSkipped b", "WorkflowCompleted"]


def test_a_condition_sees_the_state_after_the_node() -> None:
    it = play({"a": None, "b": None}, "a>b if state.x == 2 and x == 2", input={"x": 1}).complete("a", {"x": 2})

    assert it.open_work == ["b"]


def test_a_condition_sees_the_output_the_input_and_other_nodes() -> None:
    condition = "output.status == 'ok' and input.q == 'why' and nodes.a.output == 7 and nodes.c is none"
    it = play({"a": None, "b": None, "c": None}, "a>b", f"b>c if {condition}", input={"q": "why"})

    it.complete("a", 7).complete("b", {"status": "ok", "q": "other"})

    assert it.open_work == ["c"]


def test_a_condition_sees_the_environment_that_the_operator_allows() -> None:
    flow = graph({"a": None, "b": None, "c": None}, "a>b if env.STAGE == 'test'", "a>c if env.HOME")

    it = Play(flow, {"STAGE": "test"}).start().complete("a")

    assert it.open_work == ["b"]


def test_a_condition_that_cannot_be_evaluated_fails_the_node_before_it() -> None:
    it = play({"a": None, "b": None}, "a>b if state.x + 'text' > 1", input={"x": [1]}).complete("a")

    assert it.status == "failed"
    assert it.progress.error is not None
    assert it.progress.error.node_id == "a"


# Joining and skipping


def test_a_node_waits_for_all_its_live_edges() -> None:
    it = play(dict.fromkeys("abcd"), "a>b", "a>c", "b>d", "c>d").complete("a").complete("b")

    assert it.open_work == ["c"]

    it.complete("c")

    assert it.open_work == ["d"]


def test_a_node_does_not_wait_for_dead_edges() -> None:
    it = play(dict.fromkeys("abcd"), "a>b", "a>c if state.no", "b>d", "c>d").complete("a").complete("b")

    assert it.open_work == ["d"]


def test_a_node_whose_edges_are_all_dead_is_skipped_and_that_spreads() -> None:
    it = play(dict.fromkeys("abcde"), "a>b if state.no", "a>c if state.no", "b>d", "c>d", "d>e").complete("a")

    assert it.statuses() == {"a": "completed", "b": "skipped", "c": "skipped", "d": "skipped", "e": "skipped"}
    assert it.status == "completed"


# State


def test_the_state_begins_as_the_input() -> None:
    assert play({"a": None}, input={"q": "why"}).state == {"q": "why"}


def test_an_object_is_the_patch() -> None:
    assert play({"a": None}, input={"x": 1}).complete("a", {"y": 2}).state == {"x": 1, "y": 2}


@pytest.mark.parametrize("output", [7, "text", [1, 2], True, 0, False, ""])
def test_anything_else_goes_under_the_nodes_id(output: Any) -> None:
    assert play({"a": None}).complete("a", output).state == {"a": output}


def test_nothing_changes_nothing() -> None:
    assert play({"a": None}, input={"x": 1}).complete("a", None).state == {"x": 1}


@pytest.mark.parametrize("output", [7, [1], {"y": {"z": 1}}, "text"])
def test_with_an_output_key_the_whole_result_goes_there(output: Any) -> None:
    assert play({"a": {**WORK, "output_key": "k"}}).complete("a", output).state == {"k": output}


def test_a_result_replaces_what_was_under_its_output_key() -> None:
    it = play({"a": {**WORK, "output_key": "k"}}, input={"k": {"old": 1, "both": {"old": 1}}})

    assert it.complete("a", {"both": {"new": 2}}).state == {"k": {"both": {"new": 2}}}


def test_nothing_clears_what_was_under_its_output_key() -> None:
    assert play({"a": {**WORK, "output_key": "k"}}, input={"k": 1}).complete("a", None).state == {}


def test_a_state_patch_takes_the_place_of_the_default() -> None:
    it = play({"a": None}, input={"x": 1}).complete("a", {"y": 2}, state_patch={"z": 3})

    assert it.state == {"x": 1, "z": 3}
    assert it.progress.run("a").output == {"y": 2}


def test_a_patch_merges_deeply_and_null_removes() -> None:
    it = play({"a": None}, input={"deep": {"a": 1, "b": 2}, "x": 1})

    assert it.complete("a", {"deep": {"b": None, "c": 3}, "x": None}).state == {"deep": {"a": 1, "c": 3}}


def test_patches_are_merged_in_the_order_of_the_log() -> None:
    it = play(dict.fromkeys("abc"), "a>b", "a>c").complete("a")

    assert it.complete("c", {"x": "c"}).complete("b", {"x": "b"}).state == {"x": "b"}


def test_a_node_gets_the_state_as_it_was_when_it_was_scheduled() -> None:
    it = play(dict.fromkeys("abc"), "a>b", "a>c", input={"x": 1}).complete("a").complete("b", {"x": 2})

    assert it.progress.input_of("c") == {"x": 1}


def test_an_input_mapping_makes_the_input() -> None:
    node = {**WORK, "input_mapping": {"query": "{{ state.q | upper }}", "limit": "{{ state.n + 1 }}", "fixed": 3}}

    it = play({"a": node}, input={"q": "why", "n": 1})

    assert it.progress.input_of("a") == {"query": "WHY", "limit": 2, "fixed": 3}


def test_a_missing_name_in_a_template_fails_the_node() -> None:
    it = play({"a": {**WORK, "input_mapping": {"q": "{{ state.missing }}"}}})

    assert it.status == "failed"
    assert it.progress.error is not None
    assert "missing" in it.progress.error.message


def test_the_templates_of_a_node_are_rendered_when_it_is_scheduled() -> None:
    it = play({"a": {"type": "model", "model": "m", "prompt": "About {{ state.q }}"}}, input={"q": "cats"})

    assert it.progress.run("a").config == {"prompt": "About cats"}


def test_the_log_holds_no_value_of_the_environment() -> None:
    flow = graph({"a": {"type": "model", "model": "m", "prompt": "Key {{ env.KEY }}"}})

    it = Play(flow, {"KEY": "s3cret"}).start()

    assert b"s3cret" not in b"".join(map(ev.encode, it.log))


# The state schema

SCHEMA = {"query": "str", "score": "float"}


def test_an_input_that_does_not_fit_the_schema_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        play({"a": None}, state_schema=SCHEMA, input={"query": 3})

    assert [problem.place for problem in refused.value.problems] == ["input.query"]


def test_a_result_that_does_not_fit_the_schema_fails_the_node() -> None:
    it = play({"a": None}, state_schema=SCHEMA, input={"query": "why"}).complete("a", {"score": "high"})

    assert it.status == "failed"
    assert it.state == {"query": "why"}
    assert it.progress.error is not None
    assert "state schema" in it.progress.error.message


def test_a_result_that_fits_the_schema_is_taken() -> None:
    assert play({"a": None}, state_schema=SCHEMA).complete("a", {"score": 0.5}).state == {"score": 0.5}


# condition


def branching(*branches: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"c": {"type": "condition", "branches": list(branches), **more}, **dict.fromkeys("abd")}


def test_the_first_true_branch_is_taken_alone() -> None:
    nodes = branching(
        {"condition": "state.x > 2", "target": "a"},
        {"condition": "state.x > 1", "target": "b"},
        {"condition": "state.x > 0", "target": "d"},
    )

    it = play(nodes, input={"x": 2})

    assert it.open_work == ["b"]
    assert it.statuses() == {"c": "completed", "a": "skipped", "b": "scheduled", "d": "skipped"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_branch_without_a_condition_is_taken_when_none_is_true_wherever_it_stands(place: int) -> None:
    branches = [{"condition": "state.x", "target": "a"}, {"condition": "state.y", "target": "b"}]
    branches.insert(place, {"target": "d"})

    assert play(branching(*branches)).open_work == ["d"]
    assert play(branching(*branches), input={"y": 1}).open_work == ["b"]


def test_a_condition_without_a_true_branch_fails_saying_so() -> None:
    it = play({"c": {"type": "condition", "branches": [{"condition": "state.x", "target": "end"}]}})

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("no branch is true, and there is none without a condition", node_id="c")


def test_the_error_route_of_a_condition_is_taken_when_no_branch_is_true() -> None:
    nodes = branching({"condition": "state.x", "target": "a"}, {"condition": "state.y", "target": "b"}, on_error="d")

    it = play(nodes)

    assert it.open_work == ["d"]
    assert it.state["error"]["message"].startswith("no branch is true")


def test_a_branch_that_cannot_be_evaluated_fails_the_condition() -> None:
    it = play(
        {"c": {"type": "condition", "branches": [{"condition": "state.x > 1", "target": "end"}]}}, input={"x": [1]}
    )

    assert it.status == "failed"
    assert it.progress.error is not None
    assert "not supported" in it.progress.error.message


def test_a_branch_in_the_words_of_yaml_is_the_same() -> None:
    nodes = {"c": {"type": "branch", "branches": [{"if": "state.x", "next": "a"}, {"next": "b"}]}, "a": None, "b": None}

    assert play(nodes, input={"x": 1}).open_work == ["a"]
    assert play(nodes).open_work == ["b"]


def test_an_edge_of_a_condition_is_a_branch_after_its_own() -> None:
    nodes = {"c": {"type": "condition", "branches": [{"condition": "state.x", "target": "a"}]}, **dict.fromkeys("abd")}
    edges = ["c>b if state.y", "c>d"]

    assert play(nodes, *edges, input={"x": 1, "y": 1}).open_work == ["a"]
    assert play(nodes, *edges, input={"y": 1}).open_work == ["b"]
    assert play(nodes, *edges).open_work == ["d"]


def test_a_branch_may_be_told_again_as_an_edge() -> None:
    nodes = {"c": {"type": "condition", "branches": [{"condition": "state.x", "target": "a"}]}, "a": None}

    assert play(nodes, "c>a").status == "failed"
    assert play(nodes, "c>a", input={"x": 1}).open_work == ["a"]


def test_a_branch_may_lead_to_the_end() -> None:
    assert play({"c": {"type": "condition", "branches": [{"target": "end"}]}}).status == "completed"


def test_a_condition_leaves_the_state_alone() -> None:
    it = play({"c": {"type": "condition", "branches": [{"target": "a"}]}, "a": None}, input={"x": 1})

    assert it.state == {"x": 1}
