"""`jamjet run`: a file, an execution, its result."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import BIN, DOUBLE, Jamjet, read_until


def test_the_resulting_state_is_printed_and_nothing_else_on_stdout(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("run", "double.yaml", "--input", '{"value": 21}')

    assert said.code == ExitCode.OK
    assert said.json == {"value": 42, "checked": True}
    assert [line.split()[2] for line in said.err.splitlines()] == [
        "WorkflowStarted", "NodeScheduled", "NodeCompleted", "NodeScheduled", "NodeCompleted", "WorkflowCompleted",
    ]  # fmt: skip


def test_a_script_gets_the_whole_execution(jamjet: Jamjet, project: Path) -> None:
    (project / "input.json").write_text('{"value": 1}')

    said = jamjet("run", "double.yaml", "--input", "@input.json", "--json")

    assert said.err == ""
    assert said.json["status"] == "completed"
    assert said.json["state"] == {"value": 2, "checked": True}


def test_a_failed_execution_says_why(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("run", "double.yaml", "--input", '{"value": -1}')

    assert said.code == ExitCode.FAILED
    assert said.out == ""
    assert "-2 is negative" in said.err.splitlines()[-2]
    assert said.err.splitlines()[-1].startswith("hint: jamjet inspect exec_")


def test_a_script_gets_a_failed_execution_too(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("run", "double.yaml", "--input", '{"value": -1}', "--json")

    assert said.code == ExitCode.FAILED
    assert "-2 is negative" in said.json["error"]["message"]


def test_without_following_only_the_id_is_printed(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("run", "double.yaml", "--input", '{"value": 1}', "--no-follow")

    assert said.code == ExitCode.OK
    assert said.out.startswith("exec_")
    assert len(said.out.split()) == 1


def test_an_execution_that_waits_for_a_person_can_be_left(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("run", "review.yaml", "--input", '{"value": 1}', "--no-wait")

    assert said.code == ExitCode.WAITING
    assert said.out == ""
    assert "Go on with: jamjet approve exec_" in said.err
    assert "--node ask" in said.err


def test_an_edited_file_runs_as_a_build_of_its_version(jamjet: Jamjet, project: Path) -> None:
    jamjet("run", "double.yaml", "--input", '{"value": 1}')
    (project / "edited.yaml").write_text(DOUBLE.replace("next: check", "next: end").replace("check:", "# check:"))

    said = jamjet("run", "edited.yaml", "--input", '{"value": 1}')
    again = jamjet("run", "edited.yaml", "--input", '{"value": 1}', "--no-follow", "--json")

    assert said.code == ExitCode.OK
    assert said.json == {"value": 2}
    assert "this file runs as 0.1.0+" in said.err
    assert again.json["version"].startswith("0.1.0+")


def test_an_invalid_file_never_reaches_the_runtime(jamjet: Jamjet, project: Path) -> None:
    (project / "broken.yaml").write_text(DOUBLE.replace("function: double", "functoin: double"))

    said = jamjet("run", "broken.yaml", "--runtime", "http://127.0.0.1:1")

    assert said.code == ExitCode.FAILED
    assert said.err.startswith("error: broken.yaml is not valid\n  broken.yaml:4:")


def test_ctrl_c_stops_the_watching_and_not_the_execution(jamjet: Jamjet, project: Path) -> None:
    watching = subprocess.Popen(
        [BIN / "jamjet", "run", "slow.yaml"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stderr is not None
    read_until("NodeScheduled", watching.stderr)

    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=10)

    assert watching.returncode == ExitCode.INTERRUPTED
    assert "The execution goes on. Come back with: jamjet events exec_" in errors
    running = jamjet("list", "--workflow", "slow", "--status", "running", "--json").json["executions"]
    for execution in running:
        assert jamjet("cancel", execution["execution_id"]).code == ExitCode.OK
    assert len(running) == 1
