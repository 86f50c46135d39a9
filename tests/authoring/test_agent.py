"""An agent file compiles to a graph, whatever its strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jamjet_kernel.authoring import AuthoringError, compile_text
from jamjet_kernel.core.graph import parse

Compiled = Callable[..., dict[str, Any]]


def agent(strategy: str, more: str = "", tools: str = "[search, finish]") -> str:
    return f"""\
agent:
  id: helper
  strategy: {strategy}
  goal: "Find out about {{{{ topic }}}}, in JSON like {{'a': 1}}"
  model: some-model
  tools: {tools}
{more}"""


@pytest.mark.parametrize("tools", ["[search, fetch]", "[]"])
@pytest.mark.parametrize(
    "strategy", ["react", "plan-and-execute", "plan_and_execute", "critic", "reflection", "consensus", "debate"]
)
def test_every_strategy_makes_a_sound_graph(compiled: Compiled, kinds: Any, strategy: str, tools: str) -> None:
    ir = compiled(agent(strategy, tools=tools))

    graph = parse(ir, kinds)
    assert graph.start == ir["start_node"]
    assert "{{ topic }}" in str(ir["nodes"])


def test_react_thinks_calls_a_tool_and_thinks_again(compiled: Compiled, kinds: Any) -> None:
    ir = compiled(agent("react"))

    assert set(ir["nodes"]) == {"think", "think_next", "think_search"}
    assert ir["nodes"]["think_next"]["kind"]["branches"] == [
        {"condition": "state.tool == 'search'", "target": "think_search"},
        {"condition": "state.answer", "target": "end"},
        {"target": "think"},
    ]
    assert ("think_search", "think") in parse(ir, kinds).back


def test_plan_and_execute_verifies_and_plans_again(compiled: Compiled, kinds: Any) -> None:
    more = "  strategy_config: {max_steps: 5, verifier: true, verifier_model: small}\n"

    ir = compiled(agent("plan-and-execute", more))

    assert ir["nodes"]["verify"]["kind"]["model"] == "small"
    assert ir["max_iterations"] == 5
    assert ("verify_next", "plan") in parse(ir, kinds).back


def test_a_critic_uses_its_own_model_and_threshold(compiled: Compiled) -> None:
    ir = compiled(agent("critic", "  verifier: {model: judge, criteria: Is it short?, pass_threshold: 0.8}\n"))

    assert ir["nodes"]["critique"]["kind"]["model"] == "judge"
    assert "Is it short?" in ir["nodes"]["critique"]["kind"]["prompt"]
    assert ir["nodes"]["critique_next"]["kind"]["branches"][0]["condition"] == "state.verdict.score >= 0.8"


def test_limits_become_bounds_of_the_execution(compiled: Compiled) -> None:
    ir = compiled(
        agent("react", "  limits: {max_iterations: 6, max_cost_usd: 0.5, timeout_seconds: 120, max_tokens: 9}\n")
    )

    assert ir["max_iterations"] == 6
    assert ir["cost_budget_usd"] == 0.5
    assert ir["timeouts"] == {"workflow_timeout": 120}
    assert ir["token_budget"] == {"total_tokens": 9}


def test_tools_are_defined_where_the_agent_or_the_file_defines_them(compiled: Compiled) -> None:
    tools = "[{name: search, description: 'Finds {{things}}', input_schema: {type: object, a: {b: {}}}}, fetch]"

    ir = compiled(agent("react", "tools: {fetch: {fn: 'app:fetch'}}\n", tools=tools))

    assert set(ir["tools"]) == {"search", "fetch"}
    assert ir["nodes"]["think_fetch"]["kind"]["tool_ref"] == "fetch"
    assert "Finds { {things}}" in ir["nodes"]["think"]["kind"]["prompt"]


def test_rounds_and_agents_are_counted(compiled: Compiled) -> None:
    debate = compiled(agent("debate", "  rounds: 3\n"))
    consensus = compiled(agent("consensus", "  agents: 4\n  judge: {model: wise}\n"))

    assert sum(node_id.startswith("argue_for") for node_id in debate["nodes"]) == 3
    assert len(consensus["nodes"]["drafts"]["kind"]["branches"]) == 4
    assert consensus["nodes"]["judge"]["kind"]["model"] == "wise"


def test_without_a_model_executor_the_strategy_is_where_it_is_said() -> None:
    with pytest.raises(AuthoringError) as caught:
        compile_text(agent("react", tools="[]"), "agent.yaml", {})

    assert [str(p).split(";")[0] for p in caught.value.problems] == [
        "agent.yaml:3: agent.strategy: no node kind 'model' is installed"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (agent("reakt"), "3: agent.strategy: no strategy 'reakt'"),
        (agent("react", "  golas: 1\n"), "7: agent.golas: unknown field; did you mean 'goal'?"),
        (
            agent("react", "  on_limit_exceeded: return_partial\n"),
            "7: agent.on_limit_exceeded: 'return_partial' is not",
        ),
        (agent("debate", "  rounds: 0\n"), "7: agent.rounds: must be a whole number from 1 to 20"),
        (agent("react", "  limits: {max_iteration: 1}\n"), "did you mean 'max_iterations'?"),
        ("agent: {id: a, strategy: react}", "1: agent.goal: is required"),
        ("agent: 5", "1: agent: must be a mapping, not the number 5"),
    ],
)
def test_problems_of_an_agent_point_to_their_lines(problems: Callable[..., list[str]], text: str, message: str) -> None:
    assert any(message in line for line in problems(text)), problems(text)


def test_a_tool_may_be_a_function_of_a_module(compiled: Compiled, kinds: Any) -> None:
    ir = compiled(agent("react", tools="['fns:look', 'fns_look', next]"))

    parse(ir, kinds)
    calls = {node_id: node["kind"]["tool_ref"] for node_id, node in ir["nodes"].items() if "tool_ref" in node["kind"]}
    assert calls == {"think_fns_look": "fns:look", "think_fns_look_": "fns_look", "think_next_": "next"}
    assert {"condition": "state.tool == 'fns:look'", "target": "think_fns_look"} in (
        ir["nodes"]["think_next"]["kind"]["branches"]
    )
