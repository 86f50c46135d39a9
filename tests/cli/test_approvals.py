"""What waits for a person, and the person's answer."""

from __future__ import annotations

import re
from pathlib import Path

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet
from .test_executions import start


def test_what_waits_is_listed_until_it_is_approved(jamjet: Jamjet, project: Path) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 3}')

    table = jamjet("approvals").out
    said = jamjet(
        "approve", execution_id, "--node", "ask", "--user", "user-42", "-m", "fine", "--patch", '{"value": 4}'
    )
    jamjet("events", execution_id, "--follow")

    assert execution_id in table
    assert "Spend it?" in table
    assert said.out == f"{execution_id} approved\n"
    assert execution_id not in jamjet("approvals").out
    inspected = jamjet("inspect", execution_id, "--json").json
    assert inspected["state"]["value"] == 8
    assert re.search(r"approved by token:\w+ \(for user-42\): fine", jamjet("inspect", execution_id).out)


def test_a_rejection_without_a_route_fails_the_execution(jamjet: Jamjet, project: Path) -> None:
    execution_id = start(jamjet, "review.yaml", '{"value": 3}')

    said = jamjet("approve", execution_id, "--reject", "--json")
    jamjet("events", execution_id, "--follow")

    assert said.json == {"execution_id": execution_id, "accepted": True}
    assert jamjet("inspect", execution_id, "--json").json["status"] == "failed"


def test_a_patch_must_be_an_object(jamjet: Jamjet, project: Path) -> None:
    assert jamjet("approve", "exec_1", "--patch", "[1]").code == ExitCode.USAGE
