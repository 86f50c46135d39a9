"""The functions of the support triage workflow: plain Python, nothing to register."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

TOPICS = {
    "billing": ("invoice", "charge", "refund", "payment", "price"),
    "outage": ("down", "unreachable", "timeout", "500", "error"),
    "account": ("password", "login", "sign in", "two-factor", "email"),
}
ALARMING = ("down", "lost", "urgent", "immediately", "cannot work", "production")


def load(file: str) -> dict[str, Any]:
    """Reads the tickets. A sync function: it runs on a thread and blocks nobody."""
    with Path(file).open(newline="", encoding="utf-8") as source:
        return {"tickets": list(csv.DictReader(source))}


async def judge(ticket: dict[str, str]) -> dict[str, Any]:
    """What one ticket is about, and whether it can wait."""
    text = ticket["text"].lower()
    hits = {topic: sum(word in text for word in words) for topic, words in TOPICS.items()}
    topic = max(hits, key=lambda name: hits[name])
    return {
        "id": ticket["id"],
        "customer": ticket["customer"],
        "topic": topic if hits[topic] else "other",
        "urgent": any(word in text for word in ALARMING),
    }


def count(tickets: list[dict[str, Any]], by: str) -> dict[str, int]:
    return dict(Counter(ticket[by] for ticket in tickets).most_common())


async def escalate(judged: list[dict[str, Any]]) -> dict[str, Any]:
    return {"escalated": [ticket["id"] for ticket in judged if ticket["urgent"]]}


async def summarize(state: dict[str, Any]) -> str:
    judged, topics = state["judged"], state["topics"]
    lines = [f"{len(judged)} tickets from {len(state['customers'])} customers"]
    lines += [f"  {topic}: {number}" for topic, number in topics.items()]
    if escalated := state.get("escalated"):
        lines.append(f"escalated: {', '.join(escalated)}")
    return "\n".join(lines)
