"""Loops: an edge back runs what follows its target again."""

from __future__ import annotations

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.errors import InvalidTransition

from .conftest import Play, play


def loop(limit: int = 10) -> Play:
    edges = ["a>b", "b>a if output.again", "b>c"]
    return play(dict.fromkeys("abc"), *edges, start_node="a", max_iterations=limit)


def test_an_edge_back_runs_the_node_again_as_a_new_iteration() -> None:
    it = loop().complete("a").complete("b", {"again": True})

    assert it.last == ["NodeCompleted b", "IterationStarted a", "NodeScheduled a"]
    assert it.progress.run("a").iteration == 1

    it.complete("a")

    assert it.progress.run("b").iteration == 1


def test_a_loop_ends_when_its_edge_back_is_not_taken() -> None:
    it = loop().complete("a").complete("b", {"again": True}).complete("a").complete("b", {"again": False})

    assert it.open_work == ["c"]


def test_an_execution_is_over_when_the_edge_back_was_the_only_one() -> None:
    it = play({"a": None}, "a>a if output.again").complete("a", {"again": True})

    assert it.open_work == ["a"]

    assert it.complete("a", {"again": False}).status == "completed"


def test_a_loop_that_goes_round_too_often_fails_the_execution_with_the_reason() -> None:
    it = loop(limit=2)
    for _ in range(2):
        it.complete("a").complete("b", {"again": True})

    assert it.status == "failed"
    assert it.progress.error == ev.Failure(
        "the loop at 'a' went round 2 times, which is its max_iterations", node_id="a"
    )


def test_a_runaway_loop_is_stopped_by_default() -> None:
    it = play({"a": None}, "a>a if true", "a>end")
    while it.status == "running":
        it.complete("a")

    assert it.status == "failed"
    assert len(it.said(ev.NodeCompleted)) == 100


def test_a_loop_of_control_nodes_alone_ends_too() -> None:
    nodes = {"c": {"type": "condition", "branches": [{"condition": "true", "target": "c"}, {"target": "end"}]}}

    assert play(nodes).status == "failed"


def test_the_result_of_an_earlier_iteration_comes_too_late() -> None:
    it = loop().complete("a").complete("b", {"again": True})

    with pytest.raises(InvalidTransition, match="too late"):
        it.complete("a", iteration=0)


def test_what_was_skipped_in_one_iteration_may_run_in_the_next() -> None:
    it = play(
        dict.fromkeys("abcd"), "a>b if output.x", "a>c", "b>d", "c>d", "d>a if output.again", "d>end", start_node="a"
    )
    it.complete("a", {"x": False}).complete("c").complete("d", {"again": True})

    it.complete("a", {"x": True})

    assert it.open_work == ["b"]
    assert it.statuses()["c"] == "skipped"


def test_a_loop_inside_a_loop_counts_anew_with_each_iteration_of_the_outer() -> None:
    edges = ["a>b", "b>b if output.inner", "b>c", "c>a if output.outer", "c>end"]
    it = play(dict.fromkeys("abc"), *edges, start_node="a", max_iterations=4)
    it.complete("a").complete("b", {"inner": True}).complete("b", {"inner": False}).complete("c", {"outer": True})

    it.complete("a").complete("b", {"inner": False}).complete("c", {"outer": False})

    assert it.status == "completed"
    assert [event.node_id for event in it.said(ev.IterationStarted)] == ["b", "a"]


# Segments


def test_a_long_log_is_divided_into_segments() -> None:
    it = play({"a": None}, "a>a if true", "a>end", continue_as_new=10)
    for _ in range(9):
        it.complete("a")

    boundaries = [sequence for sequence, event in enumerate(it.log, 1) if isinstance(event, ev.SegmentBoundary)]

    assert len(boundaries) >= 2
    assert it.progress.boundary == boundaries[-1]
