"""What is registered, and who works."""

from __future__ import annotations

from pathlib import Path

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet


def test_workflows_their_versions_and_a_definition_are_shown(jamjet: Jamjet, project: Path) -> None:
    jamjet("run", "double.yaml", "--input", '{"value": 1}', "--no-follow")

    assert "double" in jamjet("workflows").out
    assert "double" in [one["workflow_id"] for one in jamjet("workflows", "--json").json["workflows"]]
    assert "0.1.0" in jamjet("workflows", "double").out
    assert "0.1.0" in [one["version"] for one in jamjet("workflows", "double", "--json").json["versions"]]
    assert set(jamjet("workflows", "double", "0.1.0").json["nodes"]) >= {"double", "check"}


def test_a_workflow_that_is_not_there_is_said_so(jamjet: Jamjet, project: Path) -> None:
    said = jamjet("workflows", "nowhere")

    assert said.code == ExitCode.FAILED
    assert said.err.startswith("error: not found: workflow nowhere")


def test_the_workers_are_shown(jamjet: Jamjet, project: Path) -> None:
    [worker] = jamjet("workers", "--json").json["workers"]

    assert worker["worker_id"] in jamjet("workers").out
