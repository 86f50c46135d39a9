"""Whatever a text holds, it compiles or it has problems; it does not crash."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from jamjet_kernel.authoring import AuthoringError, compile_text
from jamjet_kernel.core.graph import parse

Kinds = dict[str, Any]
_WORDS = """
workflow agent nodes edges id version start type kind config next to when if conditions branches default retry
retry_policy retry_policies timeout timeout_hours timeouts input_from_state output_to_state prompt prompt_file file
tools models mcp servers a2a remote_agents policy limits strategy strategy_config goal verifier rounds body items
join wait_for on_error on_timeout on_approved fallback event duration description label labels output_key
input_mapping url name workflow_id state_schema budgets x-note condition target from queue
"""
_NAMES = """
a b c end http model tool branch condition wait map parallel join human_approval finalizer subgraph react debate
1.0.0 30s reject
"""
WORDS = st.sampled_from(_WORDS.split())
NAMES = WORDS | st.sampled_from(_NAMES.split())
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | NAMES, inner, max_size=4),
    max_leaves=12,
)
NODES = st.dictionaries(NAMES, st.dictionaries(WORDS, VALUES, max_size=5), max_size=4) | VALUES
FILES = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "version": VALUES | st.just("1.0.0"),
        "workflow": VALUES,
        "agent": VALUES,
        "nodes": NODES,
        "tools": VALUES,
        "retry_policies": VALUES,
        "mcp": VALUES,
        "limits": VALUES,
    },
)
_KINDS = "http model tool python_fn a2a_task branch wait map parallel join human_approval finalizer"
_FIELDS = "next retry timeout branches join wait_for body input url on_approved prompt policy labels config"
TYPED = st.fixed_dictionaries(
    {"type": st.sampled_from(_KINDS.split())}, optional=dict.fromkeys(_FIELDS.split(), VALUES)
)
SENSIBLE = st.fixed_dictionaries(
    {
        "id": st.just("w"),
        "version": st.just("1.0.0"),
        "nodes": st.dictionaries(st.sampled_from("abc"), TYPED, min_size=1),
    },
)
AGENTS = st.fixed_dictionaries(
    {"agent": st.dictionaries(WORDS | st.sampled_from(["model", "agents", "judge", "system"]), VALUES, max_size=8)}
)


def compiles_or_says_why(text: str, kinds: Kinds) -> None:
    try:
        ir = compile_text(text, "flow.yaml", kinds)
    except AuthoringError as error:
        said = [str(problem) for problem in error.problems]
    else:
        said = [parse(json.loads(json.dumps(ir)), kinds).start]
    assert said
    assert all(said)


@given(text=st.text() | st.text(alphabet="ab:-[]{},&*!|>'\"%@#?\n \t\\0123.~<="))
@example(text="%YAML 1.1\n---\nid: yes")
@example(text="%TAG ! x\n---\na: !b c")
@example(text='"\\uZZZZ"')
@example(text="!!int ''")
@example(text="a: !!float x")
@example(text="a: 0o\n")
@example(text="<<: 5")
@example(text="<<: [{a: 1}, {nodes: 2}]")
@example(text="\ufeffid: w")
def test_no_text_crashes(kinds: Kinds, text: str) -> None:
    compiles_or_says_why(text, kinds)


@given(value=FILES | SENSIBLE | AGENTS)
def test_no_structure_crashes(kinds: Kinds, value: Any) -> None:
    compiles_or_says_why(json.dumps(value), kinds)


@given(value=SENSIBLE, at=st.integers(0, 400), slip=st.text(max_size=3))
def test_no_slip_of_the_hand_crashes(kinds: Kinds, value: Any, at: int, slip: str) -> None:
    text = json.dumps(value, indent=1)

    compiles_or_says_why(text[:at] + slip + text[at + len(slip) :], kinds)
