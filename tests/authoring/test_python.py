"""Python files that define a workflow, and the builder they use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel.authoring import AuthoringError, Workflow, load

Loaded = Callable[..., dict[str, Any]]


@pytest.fixture
def loaded(tmp_path: Path, kinds: Any) -> Loaded:
    def of(text: str, name: str = "greeting.py") -> dict[str, Any]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load(tmp_path / name, kinds)

    return of


GREETING = """\
from jamjet_kernel.authoring import Workflow
from words import hello

wf = Workflow("greeting", version="1.0.0", state_schema={"name": "str"})

@wf.step(next={"store": "state.text", "end": None}, output_key="text", retry_policy="fast")
def greet(name: str) -> str:
    return hello(name)

wf.node("store", type="http", url="https://example.com", next="end")
"""


def test_a_file_with_a_builder_is_a_workflow(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("def hello(name): return f'Hello {name}'\n", encoding="utf-8")
    before = list(sys.path)

    ir = loaded(GREETING)

    assert ir["nodes"]["greet"] == {
        "kind": {"type": "python_fn", "module": "greeting", "function": "greet"},
        "output_key": "text",
        "retry_policy": "fast",
    }
    assert ir["edges"] == [
        {"from": "greet", "to": "store", "condition": "state.text"},
        {"from": "greet", "to": "end"},
        {"from": "store", "to": "end"},
    ]
    assert sys.path == before


@pytest.mark.parametrize(
    "text",
    [
        "workflow = {'workflow_id': 'w', 'version': '1.0.0', 'nodes': {'a': {'type': 'end'}}}",
        "ir = {'workflow_id': 'w', 'version': '1.0.0', 'nodes': {'a': {'type': 'end'}}}\n"
        "class W:\n def compile(self): return ir\n"
        "workflow = W()",
        "from jamjet_kernel.authoring import Workflow\nanything = Workflow('w', '1.0.0').node('a', type='end')",
    ],
)
def test_an_ir_or_what_makes_one_is_a_workflow(loaded: Loaded, text: str) -> None:
    assert loaded(text)["workflow_id"] == "w"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "greeting.py:1: is not Python"),
        ("import this_is_nowhere\n", "greeting.py:1: raised ModuleNotFoundError"),
        ("x = 1\n\nraise SystemExit(3)\n", "greeting.py:3: raised SystemExit: 3"),
        ("def f():\n  return 1 / 0\n\nf()\n", "greeting.py:2: raised ZeroDivisionError"),
        ("x = 1\n", "greeting.py: it defines no workflow; name the one to use 'workflow'"),
        ("workflow = 5\n", "greeting.py: raised TypeError: workflow is a int"),
        ("workflow = {'a': object()}\n", "is not JSON serializable"),
        (
            "from jamjet_kernel.authoring import Workflow\na = Workflow('a')\nb = Workflow('b')\n",
            "several workflows: a, b",
        ),
        (
            "from jamjet_kernel.authoring import Workflow as W\nw = W('w').node('a', type='x')\nw.node('a', type='y')",
            "greeting.py:3: raised ValueError: there is another node 'a', on line 2",
        ),
        (
            "from jamjet_kernel.authoring import Workflow\nw = Workflow('w')\n\nw.node('a', type='http', ulr='u')\n",
            "greeting.py:4: nodes.a.ulr: unknown field; did you mean 'url'?",
        ),
        (
            "from jamjet_kernel.authoring import Workflow\nw = Workflow('w')\nw.step(lambda: 1)\n",
            "<lambda> cannot be imported by a worker",
        ),
    ],
)
def test_what_goes_wrong_points_into_the_file(loaded: Loaded, text: str, message: str) -> None:
    with pytest.raises(AuthoringError) as caught:
        loaded(text)

    assert any(message in str(problem) for problem in caught.value.problems), caught.value.problems


def test_a_worker_must_be_able_to_import_the_file(loaded: Loaded) -> None:
    text = "from jamjet_kernel.authoring import Workflow\nw = Workflow('w')\n\n@w.step\ndef f(): ...\n"

    assert loaded(text)["nodes"]["f"]["kind"]["module"] == "greeting"
    with pytest.raises(AuthoringError, match=r"my-flow.py:4: nodes.f: a worker cannot import 'my-flow'"):
        loaded(text, "my-flow.py")


def test_the_builder_takes_functions_of_other_modules() -> None:
    wf = Workflow("w")

    wf.step(sys.intern, next="b")
    wf.node("b", type="end").edge("intern", "b", when="state.x")

    assert wf.to_ir()["nodes"]["intern"]["kind"] == {"type": "python_fn", "module": "sys", "function": "intern"}
