"""What an execution may not exceed: budgets, time, and what policies allow."""

from __future__ import annotations

from typing import Any

import pytest

from jamjet_kernel.core import events as ev
from jamjet_kernel.errors import InvalidTransition

from .conftest import WORK, Play, play


def used(tokens: int = 0, cost: float = 0.0) -> ev.Usage:
    return ev.Usage(input_tokens=tokens, output_tokens=tokens, cost_usd=cost)


def error_of(it: Play) -> str:
    assert it.progress.error is not None
    return it.progress.error.message


# Budgets


@pytest.mark.parametrize(
    ("budget", "limit", "amount"),
    [("input_tokens", 10, 11), ("output_tokens", 10, 11), ("total_tokens", 21, 22)],
)
def test_an_exceeded_token_budget_fails_the_execution(budget: str, limit: int, amount: int) -> None:
    it = play({"a": None, "b": None}, "a>b", token_budget={budget: limit}).complete("a", usage=used(11))

    assert it.status == "failed"
    assert it.said(ev.TokenBudgetExceeded) == [
        ev.TokenBudgetExceeded(at=it.at, budget=budget, limit=limit, used=amount)
    ]
    assert error_of(it) == f"the budget of {limit} {budget} is exceeded: {amount} were used"


def test_a_budget_may_be_used_up_exactly() -> None:
    it = play({"a": None, "b": None}, "a>b", token_budget={"total_tokens": 20}).complete("a", usage=used(10))

    assert it.open_work == ["b"]


def test_a_budget_is_of_all_nodes_together() -> None:
    it = play({"a": None, "b": None}, "a>b", "b>end", token_budget={"input_tokens": 10}).complete("a", usage=used(6))

    assert it.status == "running"

    assert it.complete("b", usage=used(6)).status == "failed"


def test_an_exceeded_cost_budget_fails_the_execution() -> None:
    it = play({"a": None, "b": None}, "a>b", cost_budget_usd=0.5).complete("a", usage=used(cost=0.75))

    assert it.status == "failed"
    assert it.said(ev.CostBudgetExceeded) == [ev.CostBudgetExceeded(at=it.at, limit_usd=0.5, used_usd=0.75)]
    assert error_of(it) == "the budget of 0.5 USD is exceeded: 0.75 were spent"


def test_an_exceeded_budget_stops_what_still_runs() -> None:
    it = play(dict.fromkeys("abc"), "a>b", "a>c", cost_budget_usd=1).complete("a").complete("b", usage=used(cost=2))

    assert it.statuses()["c"] == "interrupted"
    assert not it.open_work


def test_an_exceeded_budget_goes_to_its_node_instead() -> None:
    it = play({"a": None, "b": None, "saver": None}, "a>b", cost_budget_usd=1, on_budget_exceeded="saver")

    it.complete("a", usage=used(cost=2))

    assert it.open_work == ["saver"]
    assert "CostBudgetExceeded" in it.last

    assert it.complete("saver").status == "completed"


def test_the_node_for_an_exceeded_budget_does_not_run_otherwise() -> None:
    it = play({"a": None, "saver": None}, cost_budget_usd=1, on_budget_exceeded="saver").complete("a")

    assert it.status == "completed"
    assert it.statuses()["saver"] == "skipped"


def test_the_node_for_an_exceeded_budget_runs_once_even_if_it_spends_more() -> None:
    it = play({"a": None, "saver": None}, cost_budget_usd=1, on_budget_exceeded="saver")

    it.complete("a", usage=used(cost=2)).complete("saver", usage=used(cost=2))

    assert it.status == "completed"
    assert len(it.said(ev.CostBudgetExceeded)) == 1


def test_an_exceeded_budget_may_lead_to_the_end() -> None:
    it = play({"a": None, "b": None}, "a>b", cost_budget_usd=1, on_budget_exceeded="end")

    assert it.complete("a", usage=used(cost=2)).status == "completed"


def test_the_items_of_a_map_spend_the_same_budget() -> None:
    it = play({"m": {"type": "map", "items": "[1, 2, 3]", "body": WORK}}, cost_budget_usd=1)

    assert it.complete("m[0]", usage=used(cost=0.75)).status == "running"
    assert it.complete("m[1]", usage=used(cost=0.75)).status == "failed"


# Time


def test_a_workflow_that_takes_too_long_fails_and_says_so() -> None:
    it = play({"a": None}, timeouts={"workflow_timeout": "10s"})

    assert it.timers == {"/timeout": it.at + 10_000}

    it.fire("/timeout")

    assert it.status == "failed"
    assert it.progress.error == ev.Failure("the workflow took longer than 10 s", "timeout")


def test_the_time_of_a_workflow_that_ends_is_no_longer_measured() -> None:
    assert not play({"a": None}, timeouts={"workflow_timeout": 10}).complete("a").timers


def test_a_workflow_runs_out_of_time_while_it_waits_or_is_paused() -> None:
    ask = {"type": "human_approval"}

    assert play({"h": ask}, timeouts={"workflow_timeout": 10}).fire("/timeout").status == "failed"
    assert play({"a": None}, timeouts={"workflow_timeout": 10}).pause().fire("/timeout").status == "failed"


def test_finalizers_run_after_the_time_is_over() -> None:
    nodes = {"a": None, "f": {"type": "finalizer", "body": WORK}}
    it = play(nodes, timeouts={"workflow_timeout": 10}).fire("/timeout")

    assert it.open_work == ["f"]

    it.complete("f")

    assert it.status == "failed"
    assert "took longer" in error_of(it)


# Policies


def guarded(tool: str = "delete_user", **more: Any) -> dict[str, Any]:
    return {"t": {"type": "tool", "tool_ref": tool, **more}}


BLOCKING = {"blocked_tools": ["delete_*"]}
ASKING = {"require_approval_for": ["delete_*"]}


@pytest.mark.parametrize("where", ["workflow", "node"])
def test_a_blocked_tool_never_runs(where: str) -> None:
    it = play(guarded(policy=BLOCKING)) if where == "node" else play(guarded(), policy=BLOCKING)

    assert it.status == "failed"
    assert not it.said(ev.NodeScheduled)
    assert error_of(it) == "the policy blocks the tool 'delete_user' (delete_*)"
    assert it.said(ev.PolicyViolation) == [
        ev.PolicyViolation(at=it.at, node_id="t", rule="blocked_tools: delete_*", subject="delete_user")
    ]


def test_a_tool_that_no_policy_names_runs() -> None:
    assert play(guarded("search"), policy={**BLOCKING, **ASKING}).open_work == ["t"]


def test_a_glob_tells_upper_from_lower_case() -> None:
    assert play(guarded("Delete_user"), policy=BLOCKING).open_work == ["t"]


def test_the_strictest_policy_wins() -> None:
    assert play(guarded(policy=BLOCKING), policy=ASKING).status == "failed"
    assert play(guarded(policy=ASKING), policy=BLOCKING).status == "failed"
    assert play(guarded(policy={"require_approval_for": []}), policy=ASKING).status == "paused"


def test_the_error_route_takes_over_from_a_policy() -> None:
    it = play({**guarded(on_error="b"), "b": None}, policy=BLOCKING)

    assert it.open_work == ["b"]


def test_the_name_of_a_tool_may_be_a_template() -> None:
    it = play(guarded("{{ state.tool }}"), policy=BLOCKING, input={"tool": "delete_all"})

    assert it.status == "failed"


def test_a_tool_that_needs_approval_asks_before_it_runs() -> None:
    it = play(guarded(), policy=ASKING)

    assert it.status == "paused"
    assert it.approvals["t"].tool == "delete_user"
    assert not it.open_work


def test_an_approved_tool_runs() -> None:
    it = play(guarded(), policy=ASKING).approve("t")

    assert it.open_work == ["t"]
    assert it.status == "running"

    assert it.complete("t", 1).state == {"t": 1}


def test_an_approved_tool_is_tried_again_without_asking_again() -> None:
    it = play(guarded(retry_policy="fast"), policy=ASKING).approve("t").fail("t")

    assert it.open_work == ["t"]
    assert not it.approvals


def test_a_rejected_tool_fails() -> None:
    it = play(guarded(), policy=ASKING).reject("t", user_id="ann")

    assert it.status == "failed"
    assert error_of(it) == "rejected by ann"


def test_a_tool_that_is_approved_while_paused_starts_when_resumed() -> None:
    it = play(guarded(), policy=ASKING).pause().approve("t")

    assert not it.open_work

    assert it.resume().open_work == ["t"]


def test_the_approval_of_a_tool_has_the_workflows_timeout() -> None:
    it = play(guarded(), policy=ASKING, timeouts={"approval_timeout": 60}).fire("t/timeout")

    assert it.status == "failed"
    assert not it.approvals


def test_each_iteration_asks_anew() -> None:
    it = play(guarded(), "t>t if output.again", "t>end", policy=ASKING, start_node="t").approve("t")

    it.complete("t", {"again": True})

    assert list(it.approvals) == ["t"]


def test_each_item_of_a_map_asks_for_itself() -> None:
    nodes = {"m": {"type": "map", "items": "[1, 2]", "body": {"type": "tool", "tool_ref": "delete_user"}}}
    it = play(nodes, policy=ASKING)

    assert list(it.approvals) == ["m[0]", "m[1]"]

    it.approve("m[1]")

    assert it.open_work == ["m[1]"]


def test_the_policy_of_a_body_counts_too() -> None:
    body = {"type": "tool", "tool_ref": "delete_user", "policy": BLOCKING}

    assert play({"m": {"type": "map", "items": "[1]", "body": body}}).status == "failed"


def test_only_an_allowed_model_is_asked() -> None:
    policy = {"model_allowlist": ["small"]}

    assert play({"m": {"type": "model", "model": "small"}}, policy=policy).open_work == ["m"]

    it = play({"m": {"type": "model", "model": "large"}}, policy=policy)

    assert it.status == "failed"
    assert error_of(it) == "the policy does not allow the model 'large'"
    assert it.said(ev.PolicyViolation)[0].subject == "large"


def test_a_model_is_allowed_by_every_list_there_is() -> None:
    def status(model: str) -> str:
        node = {"type": "model", "model": model, "policy": {"model_allowlist": ["small", "large"]}}
        return play({"m": node}, policy={"model_allowlist": ["small", "other"]}).status

    assert [status(model) for model in ("small", "large", "other")] == ["running", "failed", "failed"]


def test_an_empty_list_allows_no_model() -> None:
    assert play({"m": {"type": "model", "model": "small"}}, policy={"model_allowlist": []}).status == "failed"


def test_the_result_of_a_tool_names_the_tool() -> None:
    it = play(guarded("search")).complete("t", 7, duration_ms=5.0)

    assert it.said(ev.ToolCallCompleted) == [
        ev.ToolCallCompleted(at=it.at, node_id="t", tool="search", output=7, duration_ms=5.0)
    ]


def test_a_result_without_an_attempt_of_its_own_changes_nothing() -> None:
    it = play(guarded(), policy=ASKING)

    with pytest.raises(InvalidTransition):
        it.complete("t", 1)

    assert it.state == {}
