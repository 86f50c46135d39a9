"""docs/plugins.md tells the truth."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import jamjet_kernel
from jamjet_kernel import errors, hookspecs, ports

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {file: text for _, file, text in BLOCKS if file}
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "jamjet_spec")]


def test_the_page_shows_the_example() -> None:
    example = "examples/plugin-text-chunks"

    assert {f"{example}/pyproject.toml", f"{example}/tests/test_text_chunks.py"} <= FILES.keys()
    assert {f"{example}/src/jamjet_text_chunks/{name}.py" for name in ("__init__", "node", "http")} <= FILES.keys()


@pytest.mark.parametrize("file", FILES)
def test_a_file_on_the_page_is_the_file(file: str) -> None:
    assert FILES[file] == (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("source", [text for language, _, text in BLOCKS if language == "python"])
def test_python_on_the_page_compiles(source: str) -> None:
    compile(source, "docs/plugins.md", "exec")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_on_the_page_with_its_arguments(hook: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)

    assert f"\n| `{hook}({arguments})` |" in PAGE


def test_the_page_has_no_hook_that_is_gone() -> None:
    table = PAGE.partition("\n## The hooks\n")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)\(", table, re.MULTILINE) == HOOKS


@pytest.mark.parametrize("value", [ports.NodeCall, ports.NodeResult, ports.Operation, ports.Route])
def test_what_a_plugin_is_given_or_gives_is_on_the_page(value: type) -> None:
    text = PAGE.partition("\n## The hooks\n")[2]

    missing = [name for name in inspect.signature(value).parameters if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_every_class_of_failure_is_on_the_page() -> None:
    assert [name for name in errors.ERROR_CLASSES if f"`{name}`" not in PAGE] == []


def test_what_the_page_imports_is_public() -> None:
    for imported in re.findall(r"^from jamjet_kernel import (.+)$", PAGE, re.MULTILINE):
        assert set(imported.split(", ")) <= set(jamjet_kernel.__all__)


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
    for link in re.findall(r"\]\((\.\./[^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
