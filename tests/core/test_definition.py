"""How durations, state schemas and retry policies are written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from jamjet_kernel.core.definition import BUILT_IN_RETRY_POLICIES, Definition, RetryPolicy, json_schema, seconds
from jamjet_kernel.core.retries import delay_of

from .conftest import WORK


def defined(**fields: Any) -> Definition:
    return Definition.model_validate({"workflow_id": "flow", "version": "0.1.0", "nodes": {"a": WORK}, **fields})


# Durations


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (2, 2),
        (0.5, 0.5),
        ("2", 2),
        ("2.5", 2.5),
        ("2s", 2),
        ("30s", 30),
        ("5m", 300),
        ("48h", 172_800),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        (timedelta(minutes=1), 60),
    ],
)
def test_a_duration_is_read_in_seconds(written: Any, value: float) -> None:
    assert seconds(written) == value


@pytest.mark.parametrize("written", ["soon", "", "5 apples", "h", True])
def test_what_is_no_duration_is_refused_with_an_example(written: Any) -> None:
    with pytest.raises(ValueError, match="'48h'"):
        seconds(written)


@pytest.mark.parametrize("written", [-1, "-5s", "200000h"])
def test_a_delay_is_neither_negative_nor_longer_than_ten_years(written: Any) -> None:
    with pytest.raises(ValidationError):
        RetryPolicy(initial_delay=written)


def test_all_timeouts_take_durations() -> None:
    timeouts = defined(
        timeouts={
            "node_timeout": "30s",
            "workflow_timeout": "48h",
            "heartbeat_interval": 5,
            "approval_timeout": "1h",
        }
    ).timeouts

    assert timeouts.node_timeout == 30
    assert timeouts.workflow_timeout == 172_800
    assert timeouts.heartbeat_interval == 5
    assert timeouts.approval_timeout == 3_600


# Names and versions


@pytest.mark.parametrize("workflow_id", ["research", "team:research.agent_2", "2nd-try", "_x"])
def test_a_workflow_id_holds_letters_digits_and_some_marks(workflow_id: str) -> None:
    assert defined(workflow_id=workflow_id).workflow_id == workflow_id


@pytest.mark.parametrize("workflow_id", ["", "a b", "a/b", ".hidden", "é!", "x" * 256])
def test_another_workflow_id_is_refused(workflow_id: str) -> None:
    with pytest.raises(ValidationError, match="use letters, digits"):
        defined(workflow_id=workflow_id)


@pytest.mark.parametrize("version", ["0.1.0", "1.2.3-rc.1", "1.2.3+build.7"])
def test_a_version_is_semantic(version: str) -> None:
    assert defined(version=version).version == version


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "latest", ""])
def test_another_version_is_refused_with_an_example(version: str) -> None:
    with pytest.raises(ValidationError, match=r"try '0\.1\.0'"):
        defined(version=version)


def test_a_definition_cannot_be_changed() -> None:
    definition = defined()

    with pytest.raises(ValidationError, match="frozen"):
        definition.version = "0.2.0"


# State schemas


@pytest.mark.parametrize(
    ("short", "schema"),
    [
        ("str", {"type": "string"}),
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("list", {"type": "array"}),
        ("dict", {"type": "object"}),
        ("any", {}),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("str?", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("str | None", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "string", "minLength": 1}, {"type": "string", "minLength": 1}),
        ({"name": "str"}, {"type": "object", "properties": {"name": {"type": "string"}}}),
    ],
)
def test_a_short_type_stands_for_a_json_schema(short: Any, schema: dict[str, Any]) -> None:
    assert json_schema({"field": short}) == {"type": "object", "properties": {"field": schema}}


def test_the_short_form_names_all_its_fields() -> None:
    schema = json_schema({"query": "str", "score": "float", "items": "list"})

    assert schema == {
        "type": "object",
        "properties": {"query": {"type": "string"}, "score": {"type": "number"}, "items": {"type": "array"}},
    }


def test_a_field_may_be_called_type() -> None:
    assert json_schema({"type": "str", "name": "str"}) == {
        "type": "object",
        "properties": {"type": {"type": "string"}, "name": {"type": "string"}},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"required": ["a"]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"additionalProperties": False},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    ],
)
def test_a_json_schema_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert json_schema(schema) == schema


def test_a_state_schema_may_be_json_text() -> None:
    assert json_schema('{"query": "str"}') == json_schema({"query": "str"})


@pytest.mark.parametrize("label", ["my_app.state.ResearchState", "State", None, {}])
def test_a_name_of_a_class_is_only_a_label(label: Any) -> None:
    assert json_schema(label) is None


def test_json_text_that_is_broken_is_an_error() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        json_schema('{"query": ')


@pytest.mark.parametrize("kind", ["text", "list[text]", 3])
def test_an_unknown_short_type_is_an_error_that_names_the_field_and_the_types(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"field: .*try one of str, "):
        json_schema({"field": kind})


# Retry policies


def test_the_built_in_retry_policies_are_those_of_the_contract() -> None:
    told = {name: (it.max_attempts, it.backoff, it.jitter) for name, it in BUILT_IN_RETRY_POLICIES.items()}

    assert told.pop("no_retry")[0] == 1
    assert told == {
        "fast": (2, "fixed", False),
        "llm_default": (3, "exponential", True),
        "io_default": (5, "exponential", True),
    }
    assert BUILT_IN_RETRY_POLICIES["fast"].initial_delay == 1


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        ("fixed", [2_000, 2_000, 2_000, 2_000]),
        ("linear", [2_000, 4_000, 6_000, 8_000]),
        ("exponential", [2_000, 4_000, 8_000, 16_000]),
    ],
)
def test_delays_grow_with_the_attempts_as_the_backoff_says(backoff: Any, delays: list[int]) -> None:
    policy = RetryPolicy(max_attempts=9, backoff=backoff, initial_delay="2s")

    assert [delay_of(policy, attempt, 0.0) for attempt in (1, 2, 3, 4)] == delays


@pytest.mark.parametrize("backoff", ["fixed", "linear", "exponential"])
def test_no_delay_is_longer_than_max_delay(backoff: Any) -> None:
    policy = RetryPolicy(max_attempts=9_999, backoff=backoff, initial_delay=2, max_delay=5)

    assert delay_of(policy, 9_998, 0.0) <= 5_000


def test_jitter_cuts_the_delay_by_up_to_a_half() -> None:
    policy = RetryPolicy(backoff="fixed", initial_delay=10, jitter=True)

    assert [delay_of(policy, 1, jitter) for jitter in (0.0, 0.5, 1.0)] == [10_000, 7_500, 5_000]


def test_without_jitter_the_delay_is_exact() -> None:
    assert delay_of(RetryPolicy(backoff="fixed", initial_delay=10), 1, 1.0) == 10_000


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"backoff": "quadratic"}, {"retryable_on": ["bad_luck"]}, {"delay": 1}, {"max_delay": "x"}],
)
def test_a_retry_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetryPolicy.model_validate(wrong)
