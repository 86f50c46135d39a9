"""`jamjet init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Jamjet, end, start_dev


def test_a_new_project_is_valid_as_it_is(jamjet: Jamjet, tmp_path: Path) -> None:
    made = jamjet("init", tmp_path / "demo", "--json")

    checked = jamjet("validate", tmp_path / "demo" / "workflow.yaml")

    assert made.json["files"] == ["workflow.yaml", "steps.py", "README.md"]
    assert checked.code == 0, checked.out


def test_a_new_project_runs_as_it_is(jamjet: Jamjet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jamjet("init")
    server = start_dev(tmp_path)

    done = jamjet("run", "workflow.yaml", "--runtime", server.url)
    end(server)

    assert done.code == 0, done.err
    assert done.json["report"] == "7 words; the longest is 'workflows'"


def test_init_overwrites_nothing(jamjet: Jamjet, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")

    refused = jamjet("init", tmp_path)

    assert refused.code == 1
    assert "README.md: already there" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_init_says_what_comes_next(jamjet: Jamjet, tmp_path: Path) -> None:
    said = jamjet("init", tmp_path / "demo").out

    assert "jamjet dev" in said
    assert "jamjet run workflow.yaml" in said
