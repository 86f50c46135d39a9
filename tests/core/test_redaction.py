"""What a data policy keeps out of the log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.redaction import DETECTORS, MASK, Redactor, Rules


def redactor(*fields: str, detectors: tuple[str, ...] = (), mode: str = "mask") -> Redactor:
    return Redactor(Rules(fields, detectors, mode), b"key")


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("email", {"email": "x", "a": {"email": "y", "name": "z"}}, {"email": MASK, "a": {"email": MASK, "name": "z"}}),
        ("a.email", {"email": "x", "a": {"email": "y"}}, {"email": "x", "a": {"email": MASK}}),
        ("$.a.email", {"a": {"email": "y"}}, {"a": {"email": MASK}}),
        ("state.a", {"a": "y"}, {"a": MASK}),
        ("a.*.email", {"a": [{"email": "x"}, {"email": "y"}]}, {"a": [{"email": MASK}, {"email": MASK}]}),
        ("a[].email", {"a": [{"email": "x"}]}, {"a": [{"email": MASK}]}),
        ("a.*", {"a": {"b": "x", "c": {"d": "y"}}, "e": "z"}, {"a": {"b": MASK, "c": {"d": MASK}}, "e": "z"}),
        ("a.**.d", {"a": {"b": {"c": {"d": "x"}}}, "d": "y"}, {"a": {"b": {"c": {"d": MASK}}}, "d": "y"}),
        ("*_email", {"work_email": "x", "email": "y"}, {"work_email": MASK, "email": "y"}),
        ("email", [[{"email": "x"}]], [[{"email": MASK}]]),
        ("email", {"Email": "x"}, {"Email": "x"}),
    ],
)
def test_a_named_field_is_masked(field: str, given: Any, kept: Any) -> None:
    assert redactor(field).value(given) == kept


def test_a_masked_value_keeps_its_type() -> None:
    given = {"x": [1, 2.5, True, None, "a", {"b": 3, "c": ["d"]}]}

    assert redactor("x").value(given) == {"x": [0, 0.0, False, None, MASK, {"b": 0, "c": [MASK]}]}


def test_a_removed_field_is_not_there() -> None:
    assert redactor("x", mode="remove").value({"x": 1, "y": [{"x": 2, "z": 3}]}) == {"y": [{"z": 3}]}


def test_equal_values_have_equal_hashes_and_no_others() -> None:
    hashed = redactor("x", mode="hash").value({"a": {"x": "1"}, "b": {"x": "1"}, "c": {"x": "2"}})

    assert hashed["a"] == hashed["b"] != hashed["c"]
    assert redactor("x", mode="hash").value(hashed) == hashed
    assert Redactor(Rules(["x"], [], "hash"), b"another key").value({"x": "1"}) != hashed["a"]


@pytest.mark.parametrize(
    ("detector", "text"),
    [
        ("email", "write to anna.b+c@mail.example.co.uk, please"),
        ("email", "<o'neil@example.com>"),
        ("phone", "call +49 30 901820"),
        ("phone", "call +1 (212) 555-0187!"),
        ("phone", "call (212) 555-0187"),
        ("phone", "call 212-555-0187."),
        ("phone", "call 030/90 18 20"),
        ("phone", "call 07700 900 123"),
        ("credit_card", "card 4111 1111 1111 1111"),
        ("credit_card", "card 5500-0000-0000-0004,"),
        ("credit_card", "378282246310005"),
        ("ssn", "SSN 078-05-1120"),
        ("ssn", "078 05 1120"),
        ("ip_address", "from 192.168.0.17:80"),
        ("ip_address", "from ::1 and"),
        ("ip_address", "from ::ffff:10.0.0.1."),
        ("ip_address", "2001:db8::8a2e:370:7334"),
    ],
)
def test_personal_data_is_found_in_texts(detector: str, text: str) -> None:
    kept = redactor(detectors=(detector,)).value({"text": text})["text"]

    assert MASK in kept
    assert sum(letter.isdigit() for letter in kept.removesuffix(":80")) == 0
    assert "@" not in kept


@pytest.mark.parametrize(
    ("detector", "text"),
    [
        ("email", "a@b, user@localhost or @anna"),
        ("phone", "on 2026-03-12 at 10:00, order 4711, 12345678901234567890"),
        ("phone", "exec_019ac0b6-7d31-7aa4-9c57-6f9d8e0f1122 v1.2.3"),
        ("credit_card", "4111 1111 1111 1112 and 0000000000000000"),
        ("ssn", "000-12-3456 666-12-3456 912-34-5678 078-00-1120 078-05-0000 078-05 1120"),
        ("ip_address", "at 10:00:00, 1.2.3, 300.1.1.1, a::b::c, std::vector"),
    ],
)
def test_what_only_looks_like_it_is_left(detector: str, text: str) -> None:
    assert redactor(detectors=(detector,)).value(text) == text


def test_names_of_fields_are_texts_too() -> None:
    assert redactor(detectors=("email",)).value({"anna@example.com": 1}) == {MASK: 1}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    for mode in ("mask", "hash", "remove"):
        once = redactor("a", "b.*", detectors=tuple(DETECTORS), mode=mode).value(value)

        assert redactor("a", "b.*", detectors=tuple(DETECTORS), mode=mode).value(once) == once


MAIL = "anna@example.com"
FAILURE = ev.Failure(f"no {MAIL}", details={"to": MAIL})


@pytest.mark.parametrize(
    "event",
    [
        ev.WorkflowStarted(at=1, execution_id="e", workflow_id="w", workflow_version="1", input={"x": MAIL}),
        ev.WorkflowStarted(
            at=1, execution_id="e", workflow_id="w", workflow_version="1", progress={"state": {"x": MAIL}}
        ),
        ev.WorkflowCancelled(at=1, reason=MAIL),
        ev.NodeCompleted(at=1, node_id="n", output=[MAIL], state_patch={"x": MAIL}),
        ev.NodeFailed(at=1, node_id="n", error=FAILURE),
        ev.NodeProgressed(at=1, node_id="n", attempt=1, data=MAIL),
        ev.NodeParked(at=1, node_id="n", attempt=1, until=2, reason=MAIL),
        ev.ApprovalReceived(at=1, decision="approved", user_id=MAIL, comment=MAIL, state_patch={"x": MAIL}),
        ev.ExternalEventReceived(at=1, correlation_key="k", payload={"x": MAIL}),
        ev.ChildWorkflowCompleted(at=1, node_id="n", child_execution_id="c", output={"x": MAIL}),
        ev.ChildWorkflowFailed(at=1, node_id="n", child_execution_id="c", error=FAILURE),
    ],
)
def test_nothing_personal_comes_in_by_any_event(event: ev.Event) -> None:
    assert MAIL.encode() in ev.encode(event)

    assert MAIL.encode() not in ev.encode(redactor(detectors=("email",)).event(event))
