"""The example is a stranger's distribution: built, installed and served like one.

Nothing of this checkout is on the path of what runs here; what it needs comes from the two wheels and the index.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin-text-chunks"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "*cache*", ".hypothesis", ".jamjet", "tests", "benchmarks")
ARTICLE = "A sentence of some length, to be cut. " * 20


@dataclass(frozen=True)
class Installed:
    """A virtual environment, and a folder to work in."""

    bin: Path
    folder: Path

    def run(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(each) for each in (self.bin / command, *arguments)]
        return subprocess.run(line, capture_output=True, text=True, cwd=self.folder, env=environment(), check=False)


def environment() -> dict[str, str]:
    """Without what would lead back to this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAMJET_"))}
    return {name: value for name, value in kept.items() if name not in ("VIRTUAL_ENV", "DATABASE_URL")}


def wheel(project: Path, folder: Path) -> Path:
    # From a copy: an archive must not depend on what else lies about, nor leave anything behind.
    copy, output = folder / "source" / project.name, folder / "wheels" / project.name
    shutil.copytree(project, copy, ignore=LEFT_OUT)
    made = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", output, copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    [built] = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("stranger")
    wheels = [wheel(project, folder) for project in (ROOT, EXAMPLE)]
    venv.create(folder / "venv", with_pip=True)
    fresh = Installed(folder / "venv" / "bin", folder)
    done = fresh.run("pip", "install", "--quiet", *wheels)
    assert done.returncode == 0, done.stderr
    return fresh


@pytest.fixture(scope="module")
def server(installed: Installed) -> Iterator[httpx.Client]:
    command = [installed.bin / "jamjet-server", "--port", "0"]
    with (
        (installed.folder / "server.log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, cwd=installed.folder, env=environment(), text=True
        ) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()
        url = re.search(r"http://\S+", first)
        try:
            assert url, (installed.folder / "server.log").read_text()
            token = (installed.folder / ".jamjet" / "operator.token").read_text().strip()
            with httpx.Client(base_url=url[0], headers={"Authorization": f"Bearer {token}"}) as client:
                yield client
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_the_command_lists_it(installed: Installed) -> None:
    said = installed.run("jamjet", "plugins", "--json")

    [plugin] = [each for each in json.loads(said.stdout)["plugins"] if each["name"] == "text_chunks"]
    assert said.returncode == 0
    assert plugin == {
        "name": "text_chunks",
        "group": "jamjet.plugins",
        "module": "jamjet_text_chunks",
        "distribution": "jamjet-text-chunks",
        "version": "1.0.0",
        "hooks": ["http_routes", "node_executors"],
        "error": None,
    }


def test_its_node_kind_runs_in_a_workflow_over_http(server: httpx.Client) -> None:
    cut = {"type": "text_chunks", "text": "{{ state.article }}", "size": 100, "output_key": "chunks"}
    edges = [{"from": "cut", "to": "end"}]
    ir = {"workflow_id": "cutting", "version": "1.0.0", "nodes": {"cut": cut}, "edges": edges}

    assert server.post("/workflows", json={"ir": ir}).status_code == 201
    started = server.post("/executions", json={"workflow_id": "cutting", "input": {"article": ARTICLE}}).json()
    ended = server.get(f"/executions/{started['execution_id']}", params={"wait": 20}, timeout=30).json()

    assert ended["status"] == "completed"
    assert "".join(ended["state"]["chunks"]) == ARTICLE
    assert all(len(chunk) <= 100 for chunk in ended["state"]["chunks"])


def test_what_its_config_forbids_is_refused_when_the_workflow_is_registered(server: httpx.Client) -> None:
    cut = {"type": "text_chunks", "text": "a", "size": 100, "overlap": 51, "colour": "red"}
    edges = [{"from": "cut", "to": "end"}]

    refused = server.post(
        "/workflows", json={"ir": {"workflow_id": "w", "version": "1.0.0", "nodes": {"cut": cut}, "edges": edges}}
    )

    assert refused.status_code == 400
    assert "half of the size at most, which is 50" in refused.json()["error"]
    assert "nodes.cut.colour: unknown field" in refused.json()["error"]


def test_its_route_answers_and_is_described(server: httpx.Client) -> None:
    body = {"text": "One. Two. Three. Four. Five.", "size": 20, "overlap": 5}

    preview = server.post("/text-chunks", json=body)
    refused = server.post("/text-chunks", json={"text": "a", "size": 1})
    broken = server.post("/text-chunks", content=b"{", headers={"Content-Type": "application/json"})
    described: Any = server.get("/openapi.json").json()["paths"]["/text-chunks"]["post"]

    assert preview.status_code == 200
    assert [chunk["start"] for chunk in preview.json()["chunks"]] == [0, 12]
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "size" in refused.json()["error"]
    assert (broken.status_code, "JSON" in broken.json()["error"]) == (400, True)
    assert described["tags"] == ["text chunks"]


def test_its_workflow_file_runs(installed: Installed, server: httpx.Client) -> None:
    given = json.dumps({"article": ARTICLE})

    said = installed.run(
        *("jamjet", "run", EXAMPLE / "workflow.yaml", "--input", given, "--json", "--runtime", server.base_url)
    )

    assert said.returncode == 0, said.stderr
    ended = json.loads(said.stdout.splitlines()[-1])
    assert ended["state"]["lengths"] == [len(chunk) for chunk in ended["state"]["chunks"]]


def test_its_own_tests_pass() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 0, said.stdout
    assert " passed" in said.stdout
    assert "skipped" not in said.stdout
