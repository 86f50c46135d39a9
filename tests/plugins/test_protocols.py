"""The plugin `protocols`: what it reads out of cards, and what it costs to have it installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jamjet_kernel import AgentCard, Invalid
from jamjet_protocols.a2a import A2a, agent_id_at

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10
)
names = ("name", "url", "version", "description", "skills", "capabilities", "supportedInterfaces", "security")
skills = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "name", "tags", "examples"), json)))


@given(st.fixed_dictionaries({}, optional={**dict.fromkeys(names, json), "skills": json | skills}))
def test_whatever_a_card_says_it_is_read_or_refused(card: dict[str, Any]) -> None:
    try:
        read = A2a().read_card(card, "https://example.com/.well-known/agent.json")
    except Invalid:
        return

    assert read is None or (isinstance(read, AgentCard) and read.name and read.uri)


@pytest.mark.parametrize(
    ("url", "agent_id"),
    [
        ("https://Agent.example.com/.well-known/agent-card.json", "agent.example.com"),
        ("http://localhost:9000/.well-known/agent.json", "localhost:9000"),
        ("http://localhost:9000/math/.well-known/agent.json", "localhost:9000:math"),
        ("http://localhost:9000/agents//math/agent-card.json", "localhost:9000:agents:math"),
        ("https://example.com/cards/math.json?v=1", "example.com:cards:math.json"),
    ],
)
def test_an_agent_is_named_after_its_place(url: str, agent_id: str) -> None:
    assert agent_id_at(url) == agent_id


def test_loading_it_imports_nothing_heavy() -> None:
    heavy = "{'a2a', 'mcp', 'anp', 'httpx', 'base58', 'google'}"
    script = f"import sys, jamjet_protocols; print(sorted({heavy} & sys.modules.keys()))"

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "[]"
