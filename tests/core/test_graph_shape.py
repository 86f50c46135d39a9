"""Edges, joins and the shape of the whole: what registration accepts and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import WORK, graph, problems

FINALIZER = {"type": "finalizer", "body": WORK}


def join_of(*sources: str) -> dict[str, Any]:
    return {"type": "join", "wait_for": list(sources)}


# Edges and references


def test_an_edge_from_or_to_nowhere_is_refused() -> None:
    assert problems({"a": None}, "a>z", "z>a") == {
        "edges[0].to": "leads to 'z', but there is no such node",
        "edges[1].from": "there is no node 'z'",
    }


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"type": "condition", "branches": [{"condition": "x", "target": "end"}, {"target": "z"}]}, "branches[1]"),
        ({"type": "branch", "branches": [{"target": "z"}]}, "branches[0]"),
        ({"type": "parallel", "branches": ["end", "z"]}, "branches[1]"),
        ({"type": "human_approval", "on_approved": "z"}, "on_approved"),
        ({"type": "human_approval", "on_rejected": "z"}, "on_rejected"),
        ({"type": "human_approval", "fallback_node": "z"}, "fallback_node"),
        ({"type": "wait", "condition": "timer", "duration": 1, "on_timeout": "z"}, "on_timeout"),
    ],
)
def test_a_route_to_nowhere_is_refused_at_its_place(node: dict[str, Any], place: str) -> None:
    message = "leads to 'z', but there is no such node"

    assert problems({"a": node}) == {f"nodes.a.{place}": message}
    assert problems({"a": {"kind": node}}) == {f"nodes.a.kind.{place}": message}


def test_an_error_route_to_nowhere_is_refused() -> None:
    assert list(problems({"a": {**WORK, "on_error": "z"}})) == ["nodes.a.on_error"]
    assert list(problems({"a": {"kind": WORK, "on_error": "z"}})) == ["nodes.a.on_error"]


def test_the_node_for_an_exceeded_budget_must_exist() -> None:
    assert list(problems({"a": None}, on_budget_exceeded="z")) == ["on_budget_exceeded"]


def test_a_body_that_does_not_exist_is_refused() -> None:
    node = {"type": "map", "items": "[1]", "node": "z"}

    assert problems({"m": {"kind": node}}) == {"nodes.m.kind.node": "there is no node 'z'"}
    assert problems({"m": node}) == {"nodes.m.node": "there is no node 'z'"}


@pytest.mark.parametrize("target", ["f", "body"])
def test_no_edge_leads_to_what_is_run_by_something_else(target: str) -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": None, "f": FINALIZER}

    assert "no edge leads there" in problems(nodes, f"m>{target}")["edges[0].to"]


@pytest.mark.parametrize("source", ["f", "body"])
def test_no_edge_leads_on_from_what_is_run_by_something_else(source: str) -> None:
    """What waits for such an edge would never run."""
    nodes = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": None, "f": FINALIZER, "b": None}
    message = f"{source!r} is run by what it belongs to; no edge leads on from there"

    assert problems(nodes, "m>b", f"{source}>b") == {"edges[1].from": message}
    assert problems({**nodes, "b": join_of(source)}, "m>b") == {"nodes.b.wait_for[0]": message}


def test_a_body_has_no_error_route() -> None:
    named = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": {**WORK, "on_error": "b"}, "b": None}
    in_place = {"m": {"type": "map", "items": "[1]", "body": {**WORK, "on_error": "b"}}, "b": None}

    assert list(problems(named, "m>b")) == ["nodes.body.on_error"]
    assert list(problems(in_place, "m>b")) == ["nodes.m.body.on_error"]


def test_a_condition_has_a_branch_or_an_edge() -> None:
    empty = {"type": "condition", "branches": []}
    message = "a condition without a branch can only fail"

    assert problems({"c": empty}) == {"nodes.c.branches": message}
    assert problems({"c": {"kind": empty, "on_error": "b"}, "b": None}) == {"nodes.c.kind.branches": message}
    assert not problems({"c": empty, "b": None}, "c>b")


def test_nothing_can_follow_an_end() -> None:
    assert problems({"a": None, "stop": {"type": "end"}, "b": None}, "a>stop", "stop>b") == {
        "nodes.stop": "nothing can follow an end"
    }


def test_end_is_a_target_and_may_be_a_node() -> None:
    assert not problems({"a": None}, "a>end")
    assert not problems({"a": None, "end": {"type": "end"}}, "a>end")
    assert not problems({"a": None, "stop": {"type": "end"}}, "a>stop")


# The shape of the whole


def test_an_unreachable_node_is_refused() -> None:
    assert problems({"a": None, "b": None, "c": None}, "a>b", "c>b", start_node="a") == {
        "nodes.c": "is never reached from 'a'"
    }


def test_a_node_is_reached_by_any_route() -> None:
    assert not problems(
        {
            "a": {**WORK, "on_error": "b"},
            "b": {"type": "human_approval", "on_approved": "c", "on_rejected": "d", "fallback_node": "e"},
            "c": {"type": "wait", "condition": "timer", "duration": 1, "on_timeout": "f"},
            "d": {"type": "condition", "branches": [{"target": "g"}]},
            "e": {"type": "parallel", "branches": ["h"]},
            **dict.fromkeys("fgh"),
        }
    )


def test_finalizers_bodies_and_the_node_for_an_exceeded_budget_need_no_edge() -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "node": "body"}, "body": None, "f": FINALIZER, "saver": None}

    assert not problems(nodes, on_budget_exceeded="saver")


def test_a_ring_without_a_way_out_is_refused() -> None:
    found = problems({"a": None, "b": None}, "a>b", "b>a", start_node="a")

    assert list(found) == ["nodes.a", "nodes.b"]
    assert "no way from here to an end" in found["nodes.a"]


@pytest.mark.parametrize(
    ("node", "edge"),
    [
        ({**WORK, "on_error": "a"}, None),
        ({"type": "human_approval", "on_rejected": "a"}, None),
        ({"type": "wait", "condition": "external_event", "correlation_key": "k", "on_timeout": "a"}, None),
        (WORK, "b>a if state.again"),
    ],
)
def test_a_ring_is_left_where_no_edge_need_be_taken(node: dict[str, Any], edge: str | None) -> None:
    edges = ["a>b", edge] if edge else ["a>b"]

    assert not problems({"a": None, "b": node}, *edges, start_node="a")


@pytest.mark.parametrize(
    "node",
    [
        {"type": "human_approval", "on_approved": "a"},
        {"type": "condition", "branches": [{"condition": "state.again", "target": "a"}]},
        {"type": "condition", "branches": [{"target": "a"}]},
    ],
)
def test_a_ring_is_not_left_by_failing(node: dict[str, Any]) -> None:
    assert list(problems({"a": None, "b": node}, "a>b", start_node="a")) == ["nodes.a", "nodes.b"]


def test_a_ring_with_a_way_out_is_a_loop() -> None:
    flow = graph({"a": None, "b": None, "c": None}, "a>b", "b>a if state.again", "b>c", start_node="a")

    assert flow.back == {("b", "a")}


# Joins


def test_a_join_waits_for_its_edges_where_it_names_nothing() -> None:
    flow = graph({"a": None, "b": None, "c": None, "j": {"type": "join"}}, "a>b", "a>c", "b>j", "c>j")

    assert flow.sources["j"] == ("b", "c")


def test_what_a_join_waits_for_becomes_its_edges() -> None:
    flow = graph(
        {"p": {"type": "parallel", "branches": ["a", "b"]}, **dict.fromkeys("ab"), "j": join_of("a", "b")},
    )

    assert flow.sources["j"] == ("a", "b")


def test_the_join_of_a_parallel_waits_for_its_branches() -> None:
    flow = graph(
        {"p": {"type": "parallel", "branches": ["a", "b"], "join": "j"}, **dict.fromkeys("ab"), "j": {"type": "join"}}
    )

    assert flow.sources["j"] == ("a", "b")


def test_the_join_of_a_parallel_waits_for_the_last_nodes_of_its_branches() -> None:
    nodes = {
        "p": {"type": "parallel", "branches": ["a", "b"], "join": "j"},
        **dict.fromkeys(["a", "a2", "a3", "b"]),
        "j": {"type": "join"},
    }

    flow = graph(nodes, "a>a2 if state.x", "a>a3")

    assert flow.sources["j"] == ("a2", "a3", "b")


def test_a_branch_that_finds_its_join_itself_is_left_alone() -> None:
    nodes = {"p": {"type": "parallel", "branches": ["a"], "join": "j"}, **dict.fromkeys("abc"), "j": {"type": "join"}}

    assert graph(nodes, "a>b", "a>c", "b>j").sources["j"] == ("b",)


def test_the_join_of_a_parallel_must_exist() -> None:
    found = problems({"p": {"type": "parallel", "branches": ["a"], "join": "z"}, "a": None})

    assert found == {"nodes.p.join": "leads to 'z', but there is no such node"}


def test_any_node_may_be_the_join_of_a_parallel() -> None:
    flow = graph({"p": {"type": "parallel", "branches": ["a", "b"], "join": "c"}, **dict.fromkeys("abc")})

    assert flow.sources["c"] == ("a", "b")


def test_a_join_that_waits_for_nothing_that_exists_can_never_be_satisfied() -> None:
    found = problems({"a": None, "j": {"kind": join_of("a", "z")}}, "a>j")

    assert found == {"nodes.j.kind.wait_for[1]": "can never be satisfied: there is no node 'z'"}
    assert list(problems({"a": None, "j": join_of("a", "z")}, "a>j")) == ["nodes.j.wait_for[1]"]


def test_a_join_that_waits_for_itself_can_never_be_satisfied() -> None:
    found = problems({"a": None, "j": {"kind": join_of("a", "j")}}, "a>j")

    assert found == {"nodes.j.kind.wait_for[1]": "can never be satisfied: a join cannot wait for itself"}


def test_a_join_that_waits_for_what_comes_after_it_can_never_be_satisfied() -> None:
    found = problems({"a": None, "j": {"kind": join_of("a", "b")}, "b": None, "c": None}, "a>j", "j>b", "b>c")

    assert found == {"nodes.j.kind.wait_for": "can never be satisfied: 'b' comes only after this join"}
