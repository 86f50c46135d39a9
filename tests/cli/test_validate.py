"""`jamjet validate`."""

from __future__ import annotations

from pathlib import Path

from .conftest import DOUBLE, Jamjet

BROKEN = """workflow: {id: broken, version: 0.1.0, start: a}
nodes:
  a: {type: python_fn, module: steps, functoin: read, next: b}
  b:
    type: branch
    conditions: [{if: "state.words >>> 5", next: nowhere}]
    default: end
  end: {type: end}
"""


def test_every_problem_is_named_with_its_file_line_and_field(jamjet: Jamjet, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)

    said = jamjet("validate", file)

    assert said.code == 1
    lines = said.out.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"{file}:") for line in lines)
    assert {int(line.split(":")[1]) for line in lines} == {3, 6}
    assert any("functoin" in line for line in lines)
    assert any("nowhere" in line for line in lines)


def test_several_files_are_checked_together(jamjet: Jamjet, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(DOUBLE)
    bad.write_text(BROKEN)

    said = jamjet("validate", good, bad, tmp_path / "missing.yaml", "--json")

    assert said.code == 1
    assert [report["valid"] for report in said.json["files"]] == [True, False, False]
    assert said.json["files"][0]["workflow_id"] == "double"
    assert {"file", "line", "column", "place", "message"} <= said.json["files"][1]["problems"][0].keys()


def test_a_valid_file_is_said_to_be(jamjet: Jamjet, tmp_path: Path) -> None:
    file = tmp_path / "double.yaml"
    file.write_text(DOUBLE)

    said = jamjet("validate", file)

    assert said.code == 0
    assert "double 0.1.0" in said.out
