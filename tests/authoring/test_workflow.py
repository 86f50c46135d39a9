"""The first shape of a workflow file: nodes as a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel.authoring import AuthoringError, compile_text, load
from jamjet_kernel.core.graph import parse

Compiled = Callable[..., dict[str, Any]]

RESEARCH = """\
workflow: {id: research, version: 0.1.0, start: search, state_schema: {query: str, report: str}}
nodes:
  search:
    type: http
    url: "https://example.com?q={{ state.query | urlencode }}"
    output_key: results
    retry: {max_attempts: 3, backoff: exponential, delay_ms: 500}
    next: write
  write: {type: model, model: m, system: "…", prompt: "… {{ state.results }}", output_key: report, next: check}
  check: {type: branch, conditions: [{if: "state.report | length > 200", next: end}], default: write}
  end:   {type: end}
"""


def workflow(nodes: str, header: str = "") -> str:
    indented = "\n".join(f"  {line}" for line in nodes.strip("\n").split("\n"))
    return f"workflow: {{id: w, version: 1.0.0}}\n{header}\nnodes:\n{indented}\n"


def test_the_contracts_example_compiles(compiled: Compiled) -> None:
    ir = compiled(RESEARCH)

    assert ir["workflow_id"] == "research"
    assert ir["version"] == "0.1.0"
    assert ir["start_node"] == "search"
    assert ir["edges"] == [{"from": "search", "to": "write"}, {"from": "write", "to": "check"}]
    assert ir["nodes"]["search"] == {
        "kind": {"type": "http", "url": "https://example.com?q={{ state.query | urlencode }}"},
        "output_key": "results",
        "retry_policy": {"max_attempts": 3, "backoff": "exponential", "initial_delay": 0.5},
    }
    assert ir["nodes"]["check"]["kind"]["branches"] == [
        {"condition": "state.report | length > 200", "target": "end"},
        {"target": "write"},
    ]


def test_the_ir_is_what_the_graph_takes(compiled: Compiled, kinds: Any) -> None:
    graph = parse(compiled(RESEARCH), kinds)

    assert graph.start == "search"
    assert ("check", "write") in graph.back


def test_sections_get_their_names_in_the_ir(compiled: Compiled) -> None:
    ir = compiled(
        workflow(
            "a: {type: end}",
            """
retry_policies:
  mine: {max_attempts: 4, backoff: constant, base_delay: 2s, max_delay_ms: 9000, retry_on: [rate_limited]}
models: {chat: {provider: p}}
tools: [{name: find, fn: "app:find"}]
mcp: {servers: [{name: files, command: npx}]}
a2a: {remote_agents: {reviewer: {url: "https://example.com"}}}
policy: {blocked_tools: ["rm.*"]}
timeouts: {workflow: 1h, node: 30s}
budgets: {total_tokens: 1000, max_cost_usd: 0.5}
data_policy: {pii_fields: [email]}
""",
        )
    )

    assert ir["retry_policies"]["mine"] == {
        "max_attempts": 4,
        "backoff": "fixed",
        "initial_delay": "2s",
        "max_delay": 9,
        "retryable_on": ["rate_limit"],
    }
    assert ir["models"] == {"chat": {"provider": "p"}}
    assert ir["tools"] == {"find": {"fn": "app:find"}}
    assert ir["mcp_servers"] == {"files": {"command": "npx"}}
    assert ir["remote_agents"] == {"reviewer": {"url": "https://example.com"}}
    assert ir["policy"] == {"blocked_tools": ["rm.*"]}
    assert ir["timeouts"] == {"workflow_timeout": "1h", "node_timeout": "30s"}
    assert ir["token_budget"] == {"total_tokens": 1000}
    assert ir["cost_budget_usd"] == 0.5


def test_the_header_may_stand_at_the_top_of_the_file(compiled: Compiled) -> None:
    ir = compiled("id: w\nversion: 1.2.3\ntimeout: 10m\nnodes: {a: {type: end}}\n")

    assert (ir["workflow_id"], ir["version"]) == ("w", "1.2.3")
    assert ir["timeouts"] == {"workflow_timeout": "10m"}


def test_next_takes_an_id_a_list_of_ids_or_edges_with_conditions(compiled: Compiled) -> None:
    ir = compiled(
        workflow("""
a: {type: http, url: u, next: [b, c]}
b: {type: http, url: u, next: [{to: d, when: "state.x > 1"}, {else: c}]}
c: {type: http, url: u, next: {to: d, when: "{{ state.y }}"}}
d: {type: end}
""")
    )

    assert ir["edges"] == [
        {"from": "a", "to": "b"},
        {"from": "a", "to": "c"},
        {"from": "b", "to": "d", "condition": "state.x > 1"},
        {"from": "b", "to": "c"},
        {"from": "c", "to": "d", "condition": "state.y"},
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("timeout: 5m", "5m"), ("timeout_secs: 30", 30), ("timeout_hours: 24", 86400), ("timeout_ms: 1500", 1.5)],
)
def test_a_timeout_has_many_spellings(compiled: Compiled, written: str, meant: object) -> None:
    ir = compiled(workflow(f"a: {{type: http, url: u, {written}}}"))

    assert ir["nodes"]["a"]["node_timeout_secs"] == meant


def test_what_a_kind_declares_itself_is_left_to_the_kind(compiled: Compiled) -> None:
    ir = compiled(workflow("a: {type: a2a_task, agent_url: u, timeout: 5, input: {q: 1}, on_error: end}"))

    assert ir["nodes"]["a"] == {
        "kind": {"type": "a2a_task", "agent_url": "u", "timeout": 5, "input": {"q": 1}},
        "on_error": "end",
    }


def test_the_input_of_a_kind_without_one_is_the_nodes_input_mapping(compiled: Compiled) -> None:
    ir = compiled(workflow('a: {type: python_fn, module: m, function: f, input: {q: "{{ state.q }}"}}'))

    assert ir["nodes"]["a"]["input_mapping"] == {"q": "{{ state.q }}"}


def test_an_approval_keeps_its_routes_and_its_timeout(compiled: Compiled) -> None:
    ir = compiled(
        workflow("""
review: {type: human_approval, message: Please look, timeout: 48h, on_approved: a, on_rejected: b, on_timeout: b}
a: {type: end}
b: {type: end}
""")
    )

    assert ir["nodes"]["review"]["kind"] == {
        "type": "human_approval",
        "description": "Please look",
        "timeout_secs": "48h",
        "fallback_node": "b",
        "on_approved": "a",
        "on_rejected": "b",
    }


def test_a_wait_for_an_event_says_so(compiled: Compiled) -> None:
    ir = compiled(
        workflow("""
pay: {type: wait, event: paid, timeout_hours: 24, on_timeout: late, next: late}
late: {type: wait, duration: 5m, next: both}
both: {type: wait, event: "order-{{ state.id }}", until: "2030-01-01T00:00:00Z"}
""")
    )

    kinds = {node_id: node["kind"] for node_id, node in ir["nodes"].items()}
    assert kinds["pay"] == {
        "type": "wait",
        "condition": "external_event",
        "correlation_key": "paid",
        "timeout_secs": 86400,
        "on_timeout": "late",
    }
    assert (kinds["late"]["condition"], kinds["both"]["condition"]) == ("timer", "either")


def test_branches_have_many_spellings(compiled: Compiled) -> None:
    ir = compiled(
        workflow("""
a: {type: condition, branches: [{condition: "state.x", next: b}, {when: "state.y", to: end}], default: c}
b: {type: condition, expression: "state.cost > 10", if_true: c, if_false: end}
c: {type: end}
""")
    )

    assert ir["nodes"]["a"]["kind"]["branches"] == [
        {"condition": "state.x", "target": "b"},
        {"condition": "state.y", "target": "end"},
        {"target": "c"},
    ]
    assert ir["nodes"]["b"]["kind"]["branches"] == [
        {"condition": "state.cost > 10", "target": "c"},
        {"target": "end"},
    ]


@pytest.mark.parametrize("word", ["join", "next"])
def test_the_ends_of_parallel_branches_lead_to_the_join(compiled: Compiled, word: str) -> None:
    ir = compiled(
        workflow(f"""
split: {{type: parallel, branches: [a, b], {word}: write}}
a: {{type: http, url: u, next: a2}}
a2: {{type: http, url: u}}
b: {{type: http, url: u, next: write}}
write: {{type: http, url: u}}
""")
    )

    assert ir["edges"] == [
        {"from": "a", "to": "a2"},
        {"from": "b", "to": "write"},
        {"from": "a2", "to": "write"},
    ]


def test_a_map_and_a_finalizer_have_bodies_written_like_nodes(compiled: Compiled) -> None:
    ir = compiled(
        workflow("""
each: {type: map, items: "{{ state.docs }}", output_key: sums, body: {type: http, url: "{{ item }}", retry: fast}}
clean: {type: finalizer, run_on: always, body: {type: http, url: u}}
""")
    )

    assert ir["nodes"]["each"] == {
        "kind": {
            "type": "map",
            "items": "state.docs",
            "body": {"kind": {"type": "http", "url": "{{ item }}"}, "retry_policy": "fast"},
        },
        "output_key": "sums",
    }


def test_fallback_is_the_route_of_a_failure(compiled: Compiled) -> None:
    ir = compiled(workflow("a: {type: http, url: u, fallback: b}\nb: {type: http, url: u}"))

    assert ir["nodes"]["a"]["on_error"] == "b"


def test_yaml_12_reads_on_and_yes_as_texts(compiled: Compiled) -> None:
    ir = compiled(workflow("a: {type: http, url: yes, headers: {on: no, v: 'off'}}"))

    assert ir["nodes"]["a"]["kind"] == {"type": "http", "url": "yes", "headers": {"on": "no", "v": "off"}}


def test_a_date_stays_a_text(compiled: Compiled) -> None:
    ir = compiled(workflow("a: {type: http, url: u, body: {since: 2026-01-02}}"))

    assert ir["nodes"]["a"]["kind"]["body"] == {"since": "2026-01-02"}


def test_anchors_and_merge_keys_may_stand_under_a_name_of_ones_own(compiled: Compiled) -> None:
    ir = compiled(workflow("a: {<<: *call, url: u}", "x-defaults: &call {type: http, url: v, retry: fast}"))

    assert ir["nodes"]["a"] == {"kind": {"type": "http", "url": "u"}, "retry_policy": "fast"}


@pytest.mark.parametrize(
    "prompt", ["prompt: {file: prompts/a.md}", "prompt_file: prompts/a.md", "prompt: prompts/a.md"]
)
def test_a_prompt_may_name_a_file(tmp_path: Path, kinds: Any, prompt: str) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.md").write_text("Hello {{ state.name }}", encoding="utf-8")
    (tmp_path / "flow.yaml").write_text(workflow(f"a: {{type: model, {prompt}}}"), encoding="utf-8")

    ir = load(tmp_path / "flow.yaml", kinds)

    assert ir["nodes"]["a"]["kind"] == {"type": "model", "prompt": "Hello {{ state.name }}"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.md", "leads out of the workflow file's folder"),
        ("/etc/hostname", "leads out of the workflow file's folder"),
        ("link.md", "leads out of the workflow file's folder"),
        ("missing.md", "cannot read 'missing.md': No such file or directory"),
        (".", "cannot read '.': Is a directory"),
        ("binary.md", "is not UTF-8"),
    ],
)
def test_a_prompt_file_is_readable_text_below_the_folder(tmp_path: Path, kinds: Any, name: str, message: str) -> None:
    (tmp_path / "secret.md").write_text("secret", encoding="utf-8")
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "binary.md").write_bytes(b"\xff\xfe\x00")
    flow = folder / "flow.yaml"
    flow.write_text(
        f"id: w\nversion: 1.0.0\nnodes:\n  a:\n    type: model\n    prompt_file: {name}\n", encoding="utf-8"
    )

    with pytest.raises(AuthoringError) as caught:
        load(flow, kinds)

    assert [(p.line, p.place) for p in caught.value.problems] == [(6, "nodes.a.prompt_file")]
    assert message in caught.value.problems[0].message


def test_kinds_may_be_asked_for(kinds: Any) -> None:
    assert compile_text(RESEARCH, "flow.yaml", lambda: kinds)["workflow_id"] == "research"


@pytest.mark.parametrize("name", ["flow.yaml", "flow.json"])
def test_a_plain_ir_is_read_as_it_is(compiled: Compiled, name: str) -> None:
    text = '{"workflow_id":"w",\n\t"version":"1.0.0",\n"nodes":{"a":{"type":"end","description":"\\ud83d\\ude00 \\/"}}}'
    text = text if name.endswith("json") else text.replace("\t", " ")

    ir = compiled(text, name)

    assert ir == {
        "workflow_id": "w",
        "version": "1.0.0",
        "nodes": {"a": {"type": "end", "description": "😀 /"}},
    }
