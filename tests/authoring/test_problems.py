"""What is said of a file that does not compile: file, line and field, all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jamjet_kernel.authoring import AuthoringError, compile_text, load
from jamjet_kernel.errors import Invalid

Problems = Callable[..., list[str]]

BAD = """\
workflow:
  id: bad
  verson: 1.0
  version: 1.0
nodes:
  a: {type: http, url: u, next: chek, retry: {max_atempts: 3}}
  check:
    type: wat
    next: [{to: a, when: "state.x >"}, {to: nowhere}]
  w: {type: wait, timeout_hours: 24, event: x, on_timeout: chck}
timeout: soon
extra: 1
"""


def test_all_problems_are_found_at_once(problems: Problems) -> None:
    found = problems(BAD)

    assert [line.split(": ")[:2] for line in found] == [
        ["3", "workflow.verson"],
        ["4", "workflow.version"],
        ["6", "nodes.a.next"],
        ["6", "nodes.a.retry.max_atempts"],
        ["8", "nodes.check.type"],
        ["9", "nodes.check.next[0].when"],
        ["9", "nodes.check.next[1].to"],
        ["10", "nodes.w.on_timeout"],
        ["11", "timeout"],
        ["12", "extra"],
    ]
    assert found[0].endswith("unknown field; did you mean 'version'?")
    assert found[1].endswith("1.0 is read as a number; write '1.0.0', three numbers make a version")
    assert found[2].endswith("leads to 'chek', but there is no such node; did you mean 'check'?")
    assert found[3].endswith("unknown field; did you mean 'max_attempts'?")
    assert found[4].endswith("did you mean 'wait'?")


def test_a_problem_knows_its_column_and_its_file() -> None:
    with pytest.raises(AuthoringError) as caught:
        compile_text("id: w\nversion: 1.0.0\nnodes:\n  a: {type: end, typo: 1}\n", "dir/flow.yaml", {})

    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column, problem.field) == ("dir/flow.yaml", 4, 18, "nodes.a.typo")
    assert str(problem).startswith("dir/flow.yaml:4: nodes.a.typo: unknown field")
    assert isinstance(caught.value, Invalid)
    assert caught.value.details["problems"][0]["line"] == 4


def test_a_missing_field_points_to_its_node(problems: Problems) -> None:
    text = "id: w\nversion: 1.0.0\nnodes:\n  a: {type: http}\n"

    assert problems(text) == ["4: nodes.a.url: is required"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a workflow file begins with 'workflow:'"),
        ("# nothing\n", "is empty; a workflow file begins with 'workflow:'"),
        ("- a\n", "1: a workflow file is a mapping that begins with 'workflow:', not a list"),
        ("hello", "1: a workflow file is a mapping that begins with 'workflow:', not a single value"),
        ("wat: 1", "1: is no workflow file: it has none of workflow, agent, workflow_id or nodes"),
        ("id: a\n\tnodes: {}\n", "2: is not YAML: a tab; indent with spaces"),
        ("id: a\nid: b\n", "2: id: is written twice, first on line 1"),
        ("id: .inf\n", "1: id: '.inf' is not a finite number, and JSON has no other"),
        ("id: !thing x\n", "1: id: has the tag '!thing', which stands for nothing here"),
        ("id: !!binary x\n", "1: id: has the tag 'tag:yaml.org,2002:binary', which stands for nothing here"),
        ("? [a]\n: b\n", "1: a key is a text"),
        ("a: &a [*a]\n", "is nested deeper than 60 levels"),
        ("id: 1" + "0" * 5000, "is too large a number"),
        ("[" * 5000, "is nested deeper than 60 levels"),
        ("a: " + "[" * 100 + "]" * 100, "is nested deeper than 60 levels"),
        ("a: 1\n---\nb: 2\n", "expected a single document in the stream"),
        ("a: *nobody\n", "undefined alias 'nobody'"),
        ("a: [1,\n", "is not YAML"),
        ("a: \x07\n", "is not YAML"),
        ("x" * 2_000_000, "is longer than"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_line(problems: Problems, text: str, message: str) -> None:
    assert message in problems(text)[0]


def test_a_million_laughs_end_early(problems: Problems) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    assert "has more than 100000 values, aliases expanded" in problems("\n".join(lines))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1.0.0\nnodes: {a: {type: end}}", "1: id: is required"),
        ("id: w\nnodes: {a: {type: end}}", "1: version: is required"),
        ("id: w\nversion: 2\nnodes: {a: {type: end}}", "2: version: 2 is read as a number; write '2.0.0'"),
        ("id: w\nversion: one\nnodes: {a: {type: end}}", "2: version: 'one' is not a semantic version"),
        ("id: w\nversion: 1.0.0\nnodes: 5", "3: nodes: must be a mapping, not the number 5"),
        ("id: w\nversion: 1.0.0\nnodes: {a: b}", "3: nodes.a: must be a mapping, not the text 'b'"),
        ("workflow: {id: w}\nid: v\nversion: 1.0.0\nnodes: {a: {type: end}}", "1: workflow.id: stands at the top"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: wait}", "4: nodes.a.event: must say what to wait for"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: branch}", "4: nodes.a.conditions: needs conditions"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: end, next: {when: x}}", "4: nodes.a.next.to: is required"),
        ("id: w\nversion: 1.0.0\nmcp: {server: {}}\nnodes:\n  a: {type: end}", "3: mcp.server: unknown field"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: http, url: u, timeout_hours: x}", "must be a number"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: http, url: u, timeout: 1, timeout_ms: 1}", "a second timeout"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {type: end, id: b}", "4: nodes.a.id: is 'b'"),
        ("id: w\nversion: 1.0.0\nnodes:\n  a: {}", "4: nodes.a.type: is required"),
    ],
)
def test_what_makes_no_sense_is_said_where_it_stands(problems: Problems, text: str, message: str) -> None:
    assert any(message in line for line in problems(text)), problems(text)


def test_a_kind_that_is_not_installed_is_said_at_its_node() -> None:
    with pytest.raises(AuthoringError, match="no node kind 'model' is installed"):
        compile_text("id: w\nversion: 1.0.0\nnodes: {a: {type: model, prompt: p}}", "flow.yaml")


def test_missing_files_folders_and_bytes_that_are_no_text_are_problems(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"id: w\nname: caf\xe9\n")

    with pytest.raises(AuthoringError, match=r"missing.yaml: cannot be read: No such file"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(AuthoringError, match=r"cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(AuthoringError, match=r"latin.yaml:2: is not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_a_plain_ir_points_to_its_lines(problems: Problems) -> None:
    text = '{\n "workflow_id": "w",\n "version": "1.0.0",\n "nodes": {\n  "a": {"kind": {"type": "en"}}\n }\n}'

    assert problems(text, "flow.json")[0].startswith("5: nodes.a.kind.type: no node kind 'en' is installed")
