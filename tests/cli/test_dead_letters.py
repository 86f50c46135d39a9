"""`jamjet dead-letters`."""

from __future__ import annotations

from pathlib import Path

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet
from .test_executions import start


def failed(jamjet: Jamjet) -> str:
    execution_id = start(jamjet, "double.yaml", '{"value": -1}')
    jamjet("events", execution_id, "--follow")
    return execution_id


def test_what_failed_is_listed_and_run_again(jamjet: Jamjet, project: Path) -> None:
    execution_id = failed(jamjet)

    listed = jamjet("dead-letters", "list", "--json").json["dead_letters"]
    (letter,) = [letter for letter in listed if letter["execution_id"] == execution_id]
    table = jamjet("dead-letters", "list", "--queue", "general").out
    said = jamjet("dead-letters", "requeue", letter["id"])

    assert (letter["node_id"], letter["error"]) == ("check", "ValueError: -2 is negative")
    assert letter["id"] in table
    assert said.out == f"{execution_id} goes on\n"


def test_all_of_a_queue_run_again(jamjet: Jamjet, project: Path) -> None:
    executions = {failed(jamjet) for _ in range(2)}

    nothing = jamjet("dead-letters", "requeue", "--all", "--queue", "elsewhere")
    requeued = jamjet("dead-letters", "requeue", "--all", "--queue", "general", "--json").json["requeued"]

    assert nothing.out == "nothing to run again\n"
    assert executions <= set(requeued)


def test_a_letter_that_is_not_there_is_told(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("dead-letters", "requeue", "dead_x")

    assert (said.code, "dead_x" in said.err) == (ExitCode.FAILED, True)


def test_what_went_on_is_told_though_another_letter_is_not_there(jamjet: Jamjet, project: Path) -> None:
    execution_id = failed(jamjet)
    listed = jamjet("dead-letters", "list", "--json").json["dead_letters"]
    (letter,) = [letter["id"] for letter in listed if letter["execution_id"] == execution_id]

    said = jamjet("dead-letters", "requeue", letter, letter, "dead_x")

    assert (said.code, said.out) == (ExitCode.FAILED, f"{execution_id} goes on\n")
    assert said.err.count("dead_") == 1


def test_letters_are_named_or_all_are_meant(jamjet: Jamjet, project: Path) -> None:
    for arguments in ([], ["dead_x", "--all"], ["dead_x", "--queue", "general"], ["--all", "--queue", ""]):
        assert jamjet("dead-letters", "requeue", *arguments).code == ExitCode.USAGE
