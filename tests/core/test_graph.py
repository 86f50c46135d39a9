"""What registration accepts, what it refuses, and how it tells."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core.graph import parse
from jamjet_kernel.errors import Invalid

from .conftest import KINDS, WORK, graph, ir, problems

FINALIZER = {"type": "finalizer", "body": WORK}


# The short form, and what it stands for


def test_a_workflow_id_a_version_and_a_node_are_a_whole_workflow() -> None:
    flow = parse({"workflow_id": "flow", "version": "0.1.0", "nodes": {"a": {"type": "work"}}}, KINDS)

    assert flow.start == "a"
    assert flow.definition.max_iterations == 100
    assert flow.definition.edges == ()
    assert flow.validator is None


def test_a_node_has_defaults() -> None:
    node = graph({"a": None}).nodes["a"]

    assert node.retry.max_attempts == 1
    assert node.timeout is None
    assert node.policies == ()
    assert node.output_key is None


def test_a_kind_may_be_nested_or_flat() -> None:
    nested = graph({"a": {"kind": {"type": "tool", "tool_ref": "t"}, "output_key": "x"}}).nodes["a"]
    flat = graph({"a": {"type": "tool", "tool_ref": "t", "output_key": "x"}}).nodes["a"]

    assert nested == flat


def test_a_node_takes_what_all_nodes_share() -> None:
    assert not problems(
        {
            "a": {
                "id": "a",
                "kind": {"type": "tool", "tool_ref": "t"},
                "retry_policy": "fast",
                "node_timeout_secs": 5,
                "description": "looks things up",
                "labels": {"team": "blue"},
                "policy": {"blocked_tools": ["rm*"]},
                "output_key": "found",
                "input_mapping": {"q": "{{ state.query }}"},
                "on_error": "b",
                "queue": "gpu",
            },
            "b": None,
        },
        "a>b",
    )


def test_a_definition_takes_all_fields_of_the_contract() -> None:
    assert not problems(
        {"a": None},
        name="Flow",
        description="d",
        labels={"team": "blue"},
        state_schema={"query": "str"},
        start_node="a",
        retry_policies={"slow": {"max_attempts": 2, "initial_delay": "2s", "retryable_on": ["timeout"]}},
        timeouts={"node_timeout": 1, "workflow_timeout": "48h", "heartbeat_interval": 5, "approval_timeout": "1h"},
        models={"m": {}},
        tools={"t": {}},
        mcp_servers={"s": {"token_env": "TOKEN"}},
        remote_agents={"r": {}},
        policy={"blocked_tools": ["x"], "require_approval_for": ["y"], "model_allowlist": ["z"]},
        token_budget={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        cost_budget_usd=0.5,
        on_budget_exceeded="a",
        continue_as_new=1000,
        data_policy={
            "pii_fields": ["email"],
            "pii_detectors": ["email"],
            "redaction_mode": "hash",
            "retain_prompts": False,
            "retain_outputs": False,
            "retention_days": 30,
        },
        max_iterations=7,
    )


def test_the_timeout_of_the_workflow_is_that_of_nodes_without_one() -> None:
    flow = graph({"a": None, "b": {**WORK, "node_timeout_secs": "9s"}}, "a>b", timeouts={"node_timeout": "2s"})

    assert flow.nodes["a"].timeout == 2
    assert flow.nodes["b"].timeout == 9


def test_a_retry_policy_is_built_in_or_of_the_workflow_or_written_in_place() -> None:
    flow = graph(
        {
            "a": {**WORK, "retry_policy": "io_default"},
            "b": {**WORK, "retry_policy": "mine"},
            "c": {**WORK, "retry_policy": {"max_attempts": 7}},
        },
        "a>b",
        "b>c",
        retry_policies={"mine": {"max_attempts": 4}},
    )

    assert [flow.nodes[name].retry.max_attempts for name in "abc"] == [5, 4, 7]


def test_a_workflow_may_replace_a_built_in_retry_policy() -> None:
    flow = graph({"a": {**WORK, "retry_policy": "fast"}}, retry_policies={"fast": {"max_attempts": 9}})

    assert flow.nodes["a"].retry.max_attempts == 9


def test_the_policies_of_workflow_and_node_both_apply() -> None:
    flow = graph({"a": {**WORK, "policy": {"blocked_tools": ["b"]}}}, policy={"blocked_tools": ["a"]})

    assert [policy.blocked_tools for policy in flow.nodes["a"].policies] == [("a",), ("b",)]


def test_the_description_of_an_approval_may_stand_beside_its_kind() -> None:
    flow = graph({"h": {"kind": {"type": "human_approval"}, "description": "Ship {{ state.what }}?"}})

    assert "description" in flow.nodes["h"].templates


# The start


def test_the_start_is_the_only_node_without_an_incoming_edge() -> None:
    assert graph({"b": None, "a": None}, "a>b").start == "a"


def test_a_start_node_may_be_named() -> None:
    assert graph({"a": None, "b": None}, "a>b", "b>a if state.again", "b>end", start_node="a").start == "a"


def test_an_edge_to_itself_does_not_hide_the_start() -> None:
    assert graph({"a": None, "b": None}, "a>a if state.again", "a>b").start == "a"


@pytest.mark.parametrize("saver", ["a", "b", "saver"])
def test_the_node_for_an_exceeded_budget_is_the_start_only_if_it_is_the_only_candidate(saver: str) -> None:
    nodes = {"a": None, "b": None, saver: None}

    assert graph(nodes, "a>b", on_budget_exceeded=saver).start == "a"


def test_an_ambiguous_start_lists_the_candidates() -> None:
    assert problems({"a": None, "b": None, "c": None}, "a>c", "b>c") == {
        "start_node": "is needed: the workflow could start at any of a, b"
    }


def test_a_ring_has_no_start_and_lists_all() -> None:
    found = problems({"a": None, "b": None}, "a>b", "b>a if state.again", "b>end")

    assert found == {"start_node": "is needed: the workflow could start at any of a, b"}


def test_an_end_is_no_candidate_for_the_start() -> None:
    end = {"type": "end"}

    assert problems({"a": None, "b": None, "end": end}, "a>b", "b>a", "b>end") == {
        "start_node": "is needed: the workflow could start at any of a, b"
    }
    assert problems({"a": None, "done": end}) == {"nodes.done": "is never reached from 'a'"}
    assert graph({"end": end}).start == "end"


def test_a_start_node_that_does_not_exist_is_refused() -> None:
    assert problems({"a": None}, start_node="z") == {"start_node": "there is no node 'z'"}


@pytest.mark.parametrize("start", ["f", "body"])
def test_a_workflow_does_not_start_at_a_finalizer_or_a_body(start: str) -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": None, "f": FINALIZER}

    message = f"{start!r} is run by what it belongs to; no workflow starts there"

    assert problems(nodes, start_node=start) == {"start_node": message}


def test_a_finalizer_and_a_body_are_no_candidates_for_the_start() -> None:
    nodes = {"f": FINALIZER, "m": {"type": "map", "items": "[1]", "node": "body"}, "body": None}

    assert graph(nodes).start == "m"


# Fields and kinds


@pytest.mark.parametrize("field", ["workflow_id", "version", "nodes"])
def test_the_three_required_fields_are_required(field: str) -> None:
    given = ir({"a": None})
    del given[field]

    with pytest.raises(Invalid) as refused:
        parse(given, KINDS)

    assert [(problem.place, problem.message) for problem in refused.value.problems] == [(f"ir.{field}", "is required")]


@pytest.mark.parametrize("given", [None, [], "flow", 3])
def test_an_ir_is_an_object(given: Any) -> None:
    with pytest.raises(Invalid, match="must be an object"):
        parse(given, KINDS)


def test_a_workflow_has_a_node_at_least() -> None:
    assert list(problems({})) == ["ir.nodes"]


def test_an_unknown_field_of_the_workflow_is_refused() -> None:
    assert problems({"a": None}, colour="red") == {"ir.colour": "unknown field"}


def test_an_unknown_node_type_is_refused_and_the_known_ones_are_listed() -> None:
    message = problems({"a": {"type": "teleport"}})["nodes.a.type"]

    assert message.startswith("no node kind 'teleport' is installed; there are: ")
    assert "human_approval" in message
    assert "work" in message


def test_a_node_without_a_type_is_refused() -> None:
    assert problems({"a": {"colour": "red"}}) == {"nodes.a.type": "is required: the kind of the node"}


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "tool", "tool_ref": "t"},
        {"type": "condition", "branches": [{"target": "end"}]},
        {"type": "parallel", "branches": ["end"]},
        {"type": "join"},
        {"type": "map", "items": "[1]", "body": WORK},
        {"type": "human_approval"},
        {"type": "wait", "condition": "timer", "duration": 1},
        {"type": "subgraph", "workflow_ref": "sub"},
        {"type": "end"},
    ],
    ids=lambda kind: kind["type"],
)
def test_an_unknown_field_of_a_known_type_is_refused_at_its_place(kind: dict[str, Any]) -> None:
    wrong = {**kind, "colour": "red"}

    assert problems({"a": wrong}) == {"nodes.a.colour": "unknown field"}
    assert problems({"a": {"kind": wrong}}) == {"nodes.a.kind.colour": "unknown field"}


def test_an_unknown_field_beside_a_nested_kind_is_refused() -> None:
    assert problems({"a": {"kind": WORK, "colour": "red"}}) == {"nodes.a.colour": "unknown field"}


def test_a_missing_field_of_a_kind_is_refused() -> None:
    assert problems({"a": {"kind": {"type": "tool"}}}) == {"nodes.a.kind.tool_ref": "is required"}


def test_a_place_in_a_list_is_told_by_its_index() -> None:
    wrong = {"type": "condition", "branches": [{"target": "end"}, {"target": "end", "colour": "red"}]}

    assert problems({"a": {"kind": wrong}}) == {"nodes.a.kind.branches[1].colour": "unknown field"}


def test_a_field_of_the_wrong_type_is_refused() -> None:
    assert list(problems({"a": {"type": "tool", "tool_ref": "t", "retries": "many"}})) == ["nodes.a.retries"]


def test_a_field_that_holds_a_template_gets_its_type_when_it_is_rendered() -> None:
    assert not problems({"a": {"type": "tool", "tool_ref": "t", "retries": "{{ state.n }}"}})


def test_an_expression_or_a_template_that_refers_to_no_node_is_refused() -> None:
    nodes = {
        "search": WORK,
        "a": {**WORK, "input_mapping": {"found": "{{ nodes.serch.output }}"}},
        "b": {"type": "wait", "condition": "external_event", "correlation_key": "{{ nodes['zzz'].output }}"},
        "c": {
            "type": "map",
            "items": "nodes.yyy.output",
            "body": {"type": "tool", "tool_ref": "{{ nodes.xxx.output }}"},
        },
        "d": {"type": "condition", "branches": [{"condition": "nodes.www.output", "target": "end"}, {"target": "end"}]},
    }

    assert problems(nodes, "search>a if nodes.vvv.output", "a>b", "b>c", "c>d") == {
        "nodes.a.input_mapping.found": "refers to nodes.serch, and there is no such node; similar: search",
        "nodes.b.correlation_key": "refers to nodes.zzz, and there is no such node",
        "nodes.c.items": "refers to nodes.yyy, and there is no such node",
        "nodes.c.body.tool_ref": "refers to nodes.xxx, and there is no such node",
        "nodes.d.branches[0].condition": "refers to nodes.www, and there is no such node",
        "edges[0].condition": "refers to nodes.vvv, and there is no such node",
    }


def test_an_expression_may_refer_to_any_node_and_to_an_item_of_a_map() -> None:
    fan = {"type": "map", "items": "[1]", "node": "body"}
    condition = "nodes.a.output and nodes.late.output and nodes['fan[0]'].output and nodes.body is defined"

    assert not problems({"a": None, "fan": fan, "body": None, "late": None}, f"a>fan if {condition}", "fan>late")


def test_a_node_named_end_is_an_end() -> None:
    assert not problems({"a": None, "end": {"type": "end"}}, "a>end")
    for kind in (WORK, {"type": "wait", "condition": "timer", "duration": 1}):
        assert problems({"a": None, "end": kind}, "a>end") == {
            "nodes.end": f"'end' ends a path, so this {kind['type']} node would never run: rename it"
        }


def test_an_id_that_is_not_the_key_is_refused() -> None:
    assert problems({"a": {**WORK, "id": "b"}}) == {"nodes.a.id": "is 'b', but the node stands under 'a'"}


@pytest.mark.parametrize("node_id", ["", "1st", "a b", "a[0]", "a/b"])
def test_a_node_id_that_could_be_taken_for_something_else_is_refused(node_id: str) -> None:
    assert problems({node_id: None})[f"nodes.{node_id}"].startswith("a node id starts with a letter")


def test_an_unknown_retry_policy_is_refused_and_the_known_ones_are_listed() -> None:
    message = problems({"a": {**WORK, "retry_policy": "often"}})["nodes.a.retry_policy"]

    assert message == "no retry policy 'often'; there are: no_retry, fast, llm_default, io_default"


def test_a_retry_policy_in_place_is_validated() -> None:
    assert list(problems({"a": {**WORK, "retry_policy": {"max_attempts": 0}}})) == ["nodes.a.retry_policy.max_attempts"]


@pytest.mark.parametrize(
    "wait",
    [
        {"condition": "timer"},
        {"condition": "timer", "duration": 1, "until": "2026-03-12T10:00:00Z"},
        {"condition": "external_event"},
        {"condition": "either", "duration": 1},
        {"condition": "either", "correlation_key": "k"},
    ],
)
def test_a_wait_knows_what_it_waits_for(wait: dict[str, Any]) -> None:
    assert list(problems({"a": {"type": "wait", **wait}})) == ["nodes.a"]


@pytest.mark.parametrize(("field", "value"), [("duration", "soon"), ("until", "tomorrow")])
def test_a_wait_for_no_time_at_all_is_refused(field: str, value: str) -> None:
    found = problems({"a": {"type": "wait", "condition": "timer", field: value}})

    assert list(found) == [f"nodes.a.{field}"]
    assert repr(value) in found[f"nodes.a.{field}"]


@pytest.mark.parametrize("owner", [{"type": "map", "items": "[1]"}, {"type": "finalizer"}])
def test_a_body_is_named_or_written_in_place_but_not_both(owner: dict[str, Any]) -> None:
    edges = ["a>m"] if owner["type"] == "map" else []
    message = "give either node (the id of a node) or body (a node written here)"

    assert problems({"a": None, "m": owner}, *edges) == {"nodes.m": message}
    assert problems({"a": None, "m": {**owner, "node": "b", "body": WORK}, "b": None}, *edges) == {"nodes.m": message}


def test_a_body_does_work() -> None:
    wrong = {"type": "map", "items": "[1]", "body": {"type": "human_approval"}}

    assert problems({"m": wrong}) == {"nodes.m.body": "a body does work; a human_approval node decides"}


def test_a_problem_of_a_body_has_its_place() -> None:
    wrong = {"type": "map", "items": "[1]", "body": {"type": "tool"}}

    assert problems({"m": {"kind": wrong}}) == {"nodes.m.kind.body.tool_ref": "is required"}


@pytest.mark.parametrize("kind", [{"type": "parallel", "branches": ["b"]}, {"type": "end"}])
def test_a_node_that_cannot_fail_has_no_error_route(kind: dict[str, Any]) -> None:
    assert "cannot fail" in problems({"a": {**kind, "on_error": "b"}, "b": None})["nodes.a.on_error"]


# Schemas


def test_a_state_schema_that_is_none_is_refused() -> None:
    assert list(problems({"a": None}, state_schema={"query": "text"})) == ["state_schema"]
    assert list(problems({"a": None}, state_schema={"type": "object", "properties": {"q": {"type": "text"}}})) == [
        "state_schema"
    ]


def test_a_state_schema_stands_by_itself() -> None:
    found = problems({"a": None}, state_schema={"$ref": "https://example.com/schema.json"})

    assert "must stand by itself" in found["state_schema"]


def test_a_state_schema_that_names_a_class_validates_nothing() -> None:
    assert graph({"a": None}, state_schema="app.State").validator is None


# Expressions and templates


def test_a_condition_that_does_not_parse_is_refused() -> None:
    assert list(problems({"a": None, "b": None}, "a>b if state.(")) == ["edges[0].condition"]


def test_each_condition_must_parse_even_if_the_edge_is_told_twice() -> None:
    assert list(problems({"a": None, "b": None}, "a>b if state.x", "a>b if state.(")) == ["edges[1].condition"]


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"type": "condition", "branches": [{"if": "1 +", "target": "end"}]}, "branches[0].condition"),
        ({"type": "map", "items": "[1", "body": WORK}, "items"),
        ({"type": "human_approval", "description": "{{ oops"}, "description"),
        ({"type": "wait", "condition": "external_event", "correlation_key": "{{ 1 + }}"}, "correlation_key"),
        ({"type": "wait", "condition": "timer", "duration": "{{ 1 + }}"}, "duration"),
        ({"type": "wait", "condition": "timer", "until": "{{ 1 + }}"}, "until"),
        ({"type": "subgraph", "workflow_ref": "s", "input_mapping": {"a": "{{ ] }}"}}, "input_mapping.a"),
        ({"type": "subgraph", "workflow_ref": "s", "output_mapping": {"a": "{{ ] }}"}}, "output_mapping.a"),
        ({"type": "work", "prompt": "{% if %}"}, "prompt"),
        ({"type": "work", "body": {"list": ["ok", "{{ ] }}"]}}, "body.list.1"),
    ],
)
def test_what_does_not_parse_is_refused_at_its_place(node: dict[str, Any], place: str) -> None:
    assert list(problems({"a": node})) == [f"nodes.a.{place}"]
    assert list(problems({"a": {"kind": node}})) == [f"nodes.a.kind.{place}"]


def test_an_input_mapping_that_does_not_parse_is_refused() -> None:
    assert list(problems({"a": {**WORK, "input_mapping": {"q": "{{ ( }}"}}})) == ["nodes.a.input_mapping.q"]


# All at once


def test_all_problems_are_told_at_once_and_each_once() -> None:
    found = problems(
        {
            "a": {"kind": {"type": "wait", "condition": "timer", "duration": 1, "timeout": 3}},
            "b": {"type": "teleport"},
            "c": {**WORK, "retry_policy": "often", "on_error": "z"},
            "d": {**WORK, "prompt": "{{ ] }}"},
        },
        "a>b if 1 +",
        "b>z",
        state_schema={"query": "text"},
        on_budget_exceeded="nowhere",
    )

    assert list(found) == [
        "state_schema",
        "nodes.a.kind.timeout",
        "nodes.b.type",
        "nodes.c.retry_policy",
        "nodes.d.prompt",
        "nodes.c.on_error",
        "edges[0].condition",
        "edges[1].to",
        "on_budget_exceeded",
    ]


def test_the_problems_of_the_definition_and_of_its_nodes_are_told_together() -> None:
    found = problems(
        {"a": {"type": "teleport"}, "b": {**WORK, "retry_policy": "mine"}, "c": {**WORK, "retry_policy": "often"}},
        "a>z",
        version="new",
        colour="red",
        retry_policies={"mine": {"max_attempts": 0}},
    )

    assert list(found) == [
        "ir.version",
        "ir.retry_policies.mine.max_attempts",
        "ir.colour",
        "nodes.a.type",
        "nodes.c.retry_policy",
        "edges[0].to",
    ]


def test_an_edge_that_is_no_edge_hides_no_problem_of_a_node() -> None:
    assert list(problems({"a": {"type": "teleport"}}, edges=[{"from": "a"}])) == ["ir.edges[0].to", "nodes.a.type"]


def test_the_shape_is_told_beside_problems_that_do_not_concern_it() -> None:
    found = problems({"a": {**WORK, "retry_policy": "often"}, "b": None, "c": None}, "b>b", "c>c", start_node="a")

    assert list(found) == ["nodes.a.retry_policy", "nodes.b", "nodes.c"]


def test_a_refusal_reads_as_a_list_of_places() -> None:
    with pytest.raises(Invalid, match=r"nodes\.a\.kind\.tool_ref.*is required"):
        graph({"a": {"kind": {"type": "tool"}}})
