"""What work says of its turn: the priority of its execution, and the key of which only so much is done at a time."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.decide import EnqueueWork, SettleWork

from .conftest import WORK, Play, graph, play, problems


def limited(key: Any = "{{ state.customer }}", limit: int = 2, **more: Any) -> dict[str, Any]:
    return {**WORK, "concurrency": {"key": key, "limit": limit}, **more}


SEVEN = ev.Concurrency("seven", 2)


# The priority


def test_an_execution_has_the_priority_that_it_was_started_with() -> None:
    it = Play(graph({"a": None})).start(priority=7)

    assert it.progress.priority == 7


def test_an_execution_has_no_priority_unless_it_is_given_one() -> None:
    assert play({"a": None}).progress.priority == 0


# The key


def test_a_key_is_rendered_when_the_node_is_scheduled() -> None:
    it = play({"a": limited()}, input={"customer": "seven"})

    assert it.work["a"] == EnqueueWork("a", 1, it.at, "general", SEVEN)
    assert it.said(ev.NodeScheduled)[0].concurrency == SEVEN


def test_a_retry_keeps_the_key() -> None:
    it = play({"a": limited(retry_policy={"max_attempts": 2}), "b": None}, "a>b", input={"customer": "seven"})

    it.fail("a")

    assert it.decisions[-1].commands[0] == SettleWork("a", "general", SEVEN)
    assert it.work["a"].concurrency == SEVEN


def test_a_parked_run_keeps_the_key() -> None:
    it = play({"a": limited()}, input={"customer": "seven"}).park("a", 9_000)

    assert it.work["a"].concurrency == SEVEN


def test_what_is_settled_says_which_key_it_had() -> None:
    it = play({"a": limited(queue="gpu")}, input={"customer": "seven"}).complete("a")

    assert it.decisions[-1].commands == (SettleWork("a", "gpu", SEVEN),)


def test_a_key_is_rendered_anew_when_a_failed_execution_is_retried() -> None:
    it = play({"a": limited()}, input={"customer": "seven"}).fail("a").retry()

    assert it.work["a"].concurrency == SEVEN


def test_a_run_that_was_left_in_a_pause_comes_back_with_its_key() -> None:
    it = play({"a": limited()}, input={"customer": "seven"}).pause()
    it.record(ev.NodeHeld(at=0, node_id="a", attempt=1))

    it.resume()

    assert it.work["a"].concurrency == SEVEN


def test_items_of_a_map_have_keys_of_their_own() -> None:
    nodes = {"m": {"type": "map", "items": "state.names", "body": limited("{{ item }}", 1)}}

    it = play(nodes, input={"names": ["ada", "bob"]})

    assert [it.work[run].concurrency for run in ("m[0]", "m[1]")] == [
        ev.Concurrency("ada", 1),
        ev.Concurrency("bob", 1),
    ]


@pytest.mark.parametrize(("value", "key"), [(7, "7"), (1.5, "1.5"), (True, "True"), ("Grüße 1", "Grüße 1")])
def test_a_key_is_a_text(value: Any, key: str) -> None:
    assert play({"a": limited()}, input={"customer": value}).work["a"].concurrency == ev.Concurrency(key, 2)


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_key_is_none(value: Any) -> None:
    assert play({"a": limited()}, input={"customer": value}).work["a"].concurrency is None


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x" * 256, "a\x00b"])
def test_what_no_database_could_keep_as_a_key_fails_the_node(value: Any) -> None:
    it = play({"a": limited()}, input={"customer": value})

    assert it.status == "failed"
    assert it.progress.error is not None
    assert it.progress.error.message.startswith("concurrency.key")


def test_a_key_may_be_the_same_for_all() -> None:
    assert play({"a": limited("openai", 5)}).work["a"].concurrency == ev.Concurrency("openai", 5)


# How it is said


def test_one_piece_of_work_at_a_time_is_the_default() -> None:
    it = play({"a": {**WORK, "concurrency": {"key": "x"}}})

    assert it.work["a"].concurrency == ev.Concurrency("x", 1)


def test_what_does_no_work_of_its_own_has_no_key() -> None:
    nodes = {"m": {"type": "map", "items": "[1]", "node": "b", "concurrency": {"key": "x"}}, "b": WORK}

    assert "a map's body" in problems(nodes)["nodes.m.concurrency"]


def test_a_key_holds_no_secret() -> None:
    assert "env" in problems({"a": limited("{{ env.TOKEN }}")})["nodes.a.concurrency.key"]


def test_a_key_that_refers_to_no_node_is_refused() -> None:
    assert "nodes.x" in problems({"a": limited("{{ nodes.x.output }}")})["nodes.a.concurrency.key"]


def test_a_limit_lets_something_run() -> None:
    assert "nodes.a.concurrency.limit" in problems({"a": limited(limit=0)})
