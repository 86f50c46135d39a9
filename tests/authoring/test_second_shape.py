"""The second shape of a workflow file: nodes as a list, with `kind`, `config` and `edges`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Compiled = Callable[..., dict[str, Any]]

REVIEW = """\
workflow:
  id: budget_review
  version: 0.1.0
  description: A request is judged, a person decides
  start_node: assess
  state_schema: {type: object, properties: {request: {type: string}}, required: [request]}
  nodes:
    - id: assess
      kind: model
      label: Assess the risk
      config:
        model: some-model
        prompt_template: "Request: {{ request }}"
        output_to_state: {risk: risk, level: level}
        structured_output: true
      retry: {max_attempts: 2, backoff: exponential}
      timeout: {node_seconds: 30}
      edges:
        - to: decide
    - id: decide
      kind: human_approval
      label: Wait for a person
      config:
        prompt_template: "Approve {{ request }}?"
        timeout: {node_seconds: 86400}
        on_timeout: reject
      edges:
        - {condition: "decision == 'approved'", to: act}
        - {condition: "decision == 'rejected'", to: note}
    - id: act
      kind: tool
      config:
        fn: execute_request
        input_from_state: {request: request, "the-level": "risk.level", odd: a-b}
        output_to_state: {result: action_result}
      edges: [{to: end}]
    - id: note
      kind: tool
      policy: {require_approval_for: ["notes.*"]}
      config: {fn: notes.write, input_from_state: [request]}
      edges: [{to: end, condition: "state.request"}]
    - id: end
      kind: end
policy: {blocked_tools: ["rm.*"]}
"""


def test_a_list_of_nodes_compiles(compiled: Compiled) -> None:
    ir = compiled(REVIEW)

    assert ir["start_node"] == "assess"
    assert ir["policy"] == {"blocked_tools": ["rm.*"]}
    assert ir["nodes"]["assess"] == {
        "description": "Assess the risk",
        "retry_policy": {"max_attempts": 2, "backoff": "exponential"},
        "node_timeout_secs": 30,
        "kind": {
            "type": "model",
            "model": "some-model",
            "prompt": "Request: {{ request }}",
            "structured_output": True,
        },
    }
    assert ir["edges"] == [
        {"from": "assess", "to": "decide"},
        {"from": "act", "to": "end"},
        {"from": "note", "to": "end", "condition": "state.request"},
    ]


def test_edges_that_ask_for_the_decision_are_routes_of_the_approval(compiled: Compiled) -> None:
    ir = compiled(REVIEW)

    assert ir["nodes"]["decide"] == {
        "description": "Wait for a person",
        "kind": {
            "type": "human_approval",
            "description": "Approve {{ request }}?",
            "timeout_secs": 86400,
            "fallback_node": "note",
            "on_approved": "act",
            "on_rejected": "note",
        },
    }


def test_state_mappings_become_templates_and_an_output_key(compiled: Compiled) -> None:
    ir = compiled(REVIEW)

    assert ir["nodes"]["act"]["input_mapping"] == {
        "request": "{{ state.request }}",
        "the-level": "{{ state.risk.level }}",
        "odd": "{{ state['a-b'] }}",
    }
    assert ir["nodes"]["act"]["output_key"] == "action_result"
    assert ir["nodes"]["note"]["input_mapping"] == {"request": "{{ state.request }}"}
    assert ir["nodes"]["note"]["policy"] == {"require_approval_for": ["notes.*"]}


def test_a_problem_points_into_the_list(problems: Callable[..., list[str]]) -> None:
    text = REVIEW.replace("fn: execute_request", "fun: execute_request").replace("to: decide", "to: decid")

    assert problems(text) == [
        "19: workflow.nodes[0].edges[0].to: leads to 'decid', but there is no such node; did you mean 'decide'?",
        "33: workflow.nodes[2].config.fun: unknown field; did you mean 'fn'?",
    ]


def test_several_renamed_results_are_a_problem(problems: Callable[..., list[str]]) -> None:
    text = REVIEW.replace("{risk: risk, level: level}", "{risk: risk, level: severity}")

    assert problems(text) == [
        "14: workflow.nodes[0].config.output_to_state.level: can rename one result, not several; "
        "return an object whose keys are the state's, or name one key"
    ]


def test_nodes_of_a_list_need_ids_of_their_own(problems: Callable[..., list[str]]) -> None:
    text = "id: w\nversion: 1.0.0\nnodes:\n  - {id: a, kind: end}\n  - {id: a, kind: end}\n  - {kind: end}\n"

    assert problems(text) == [
        "5: nodes[1].id: there is another node 'a', on line 4",
        "6: nodes[2].id: is required",
    ]


CHECK = """\
workflow:
  id: w
  version: 0.1.0
  start_node: chk
  nodes:
    - {id: chk, kind: condition, label: Check, config: {}, edges: [{to: done, condition: "{{ state.ok }}"}, {to: end}]}
    - {id: done, kind: end}
    - {id: end, kind: end}
"""


def test_edges_of_a_condition_are_its_branches(compiled: Compiled) -> None:
    ir = compiled(CHECK)

    assert ir["nodes"]["chk"] == {
        "description": "Check",
        "kind": {"type": "condition", "branches": [{"target": "done", "condition": "state.ok"}, {"target": "end"}]},
    }
    assert ir["edges"] == []


def test_a_branch_that_leads_nowhere_is_told_where_it_is_written(problems: Callable[..., list[str]]) -> None:
    assert problems(CHECK.replace("to: done", "to: don")) == [
        "6: workflow.nodes[0].edges[0]: leads to 'don', but there is no such node; did you mean 'done'?"
    ]
