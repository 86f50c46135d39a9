"""Looking at executions, and moving them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet


def start(jamjet: Jamjet, file: str, input: str = "{}") -> str:
    started = jamjet("run", file, "--input", input, "--no-follow")
    assert started.code == ExitCode.OK, started.err
    return started.out.strip()


def finished(jamjet: Jamjet, file: str, input: str = "{}") -> str:
    return str(jamjet("run", file, "--input", input, "--json").json["execution_id"])


def test_inspect_shows_fields_state_nodes_and_timeline(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": 21}')

    for_people = jamjet("inspect", execution_id).out
    for_scripts = jamjet("inspect", execution_id, "--json").json

    for word in (execution_id, "✓ completed", '"value": 42', "double", "check", "WorkflowCompleted"):
        assert word in for_people
    assert for_scripts["state"] == {"value": 42, "checked": True}
    assert [event["sequence"] for event in for_scripts["events"]] == list(range(1, 7))


def test_events_are_json_lines_for_scripts(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": 1}')

    all_of_them = jamjet("events", execution_id, "--json").lines
    the_last = jamjet("events", execution_id, "--json", "--after", 5).lines
    followed = jamjet("events", execution_id, "--json", "--follow").lines

    assert [event["kind"] for event in all_of_them][:2] == ["WorkflowStarted", "NodeScheduled"]
    assert [event["sequence"] for event in the_last] == [6]
    assert followed == all_of_them


def test_following_ends_at_once_when_there_is_nothing_to_come(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": 1}')

    said = jamjet("events", execution_id, "--follow", "--after", 6)

    assert (said.code, said.out) == (ExitCode.OK, "")


def test_list_can_be_narrowed(jamjet: Jamjet, project: Path) -> None:
    done = finished(jamjet, "double.yaml", '{"value": 1}')
    failed = finished(jamjet, "double.yaml", '{"value": -1}')

    found = jamjet("list", "--status", "failed", "--workflow", "double", "--limit", 1, "--json").json["executions"]

    assert [execution["execution_id"] for execution in found] == [failed]
    table = jamjet("list").out
    assert done in table
    assert failed in table
    assert "there are more" in jamjet("list", "--limit", 1).err
    assert "there are more" not in jamjet("list", "--limit", 1000).err


def test_an_unknown_status_is_refused_with_what_would_work(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("list", "--status", "done")

    assert said.code == ExitCode.FAILED
    assert said.err.startswith("error: bad request: status")


def test_cancel_stops_for_good(jamjet: Jamjet, project: Path) -> None:
    execution_id = start(jamjet, "slow.yaml")

    said = jamjet("cancel", execution_id, "--reason", "enough")

    assert said.out == f"{execution_id} cancelled\n"
    assert jamjet("inspect", execution_id, "--json").json["status"] == "cancelled"
    assert jamjet("events", execution_id, "--json").lines[-1]["data"]["reason"] == "enough"


def test_what_is_paused_starts_nothing_until_it_is_resumed(jamjet: Jamjet, project: Path) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 1}')

    assert jamjet("pause", execution_id).out == f"{execution_id} paused\n"
    jamjet("approve", execution_id)
    held = jamjet("inspect", execution_id, "--json").json
    assert jamjet("resume", execution_id).out == f"{execution_id} resumed\n"
    jamjet("events", execution_id, "--follow")
    resumed = jamjet("inspect", execution_id, "--json").json

    assert (held["status"], held["state"]["value"]) == ("paused", 1)
    assert (resumed["status"], resumed["state"]["value"]) == ("completed", 2)


def test_an_external_event_is_posted_with_its_payload(jamjet: Jamjet, project: Path) -> None:
    execution_id = start(jamjet, "payment.yaml")

    said = jamjet("resume", execution_id, "--event", "payment-received", "--payload", '{"amount": 500}', "--json")
    jamjet("events", execution_id, "--follow")

    assert said.json == {"execution_id": execution_id, "accepted": True}
    assert jamjet("inspect", execution_id, "--json").json["state"] == {"payment": {"amount": 500}}


def test_a_failed_execution_is_retried_from_where_it_failed(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": -1}')

    said = jamjet("retry", execution_id, "--follow", "--json")

    assert said.code == ExitCode.FAILED
    kinds = [event["kind"] for event in jamjet("events", execution_id, "--json").lines]
    assert kinds.count("WorkflowRetried") == 1
    assert kinds.count("WorkflowFailed") == 2


def test_a_fork_goes_on_with_an_edited_state(jamjet: Jamjet, project: Path) -> None:
    failed = finished(jamjet, "double.yaml", '{"value": -1}')

    said = jamjet("fork", failed, "--patch", '{"value": 5}', "--follow")

    assert said.code == ExitCode.OK, said.err
    assert said.json == {"value": 5, "checked": True}


def test_a_fork_is_told_by_its_id(jamjet: Jamjet, project: Path) -> None:
    source = finished(jamjet, "double.yaml", '{"value": 1}')

    said = jamjet("fork", source, "--at", 1, "--state", '{"value": 7}')

    assert said.out.startswith("exec_")
    assert said.out.strip() != source


@pytest.mark.parametrize("command", ["inspect", "events", "cancel", "pause", "resume", "retry", "fork", "approve"])
def test_what_is_not_there_is_said_in_the_contracts_words(jamjet: Jamjet, project: Path, command: str) -> None:
    said = jamjet(command, "exec_nowhere")

    assert said.code == ExitCode.FAILED
    assert said.out == ""
    assert said.err == "error: not found: execution exec_nowhere\n"


def test_what_is_over_cannot_be_moved(jamjet: Jamjet, project: Path) -> None:
    execution_id = finished(jamjet, "double.yaml", '{"value": 1}')

    said = jamjet("retry", execution_id)

    assert said.code == ExitCode.FAILED
    assert said.err.startswith("error: conflict: ")
    assert len(said.err.splitlines()) == 1
