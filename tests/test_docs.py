"""What the documentation says must be there: it fails when the code goes on and the pages do not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from falcon.testing import ASGIConductor
from pydantic import AliasChoices, BaseModel
from typer.main import get_command

from jamjet_kernel import Settings
from jamjet_kernel.authoring import compile_text
from jamjet_kernel.cli.app import app
from jamjet_kernel.cli.exit_codes import MEANINGS
from jamjet_kernel.core.definition import CONTROL_KINDS, Definition, NodeSpec, RetryPolicy
from jamjet_kernel.core.events import Event
from jamjet_kernel.http import create_app
from jamjet_kernel.plugins import load_kinds
from jamjet_kernel.runtime import Runtime

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
BUILT_IN_KINDS = load_kinds(Settings(plugins=("nodes",)))
SHARED_OPTIONS = {"--runtime", "--token", "--json", "--help"}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_in_the_operations_page_with_its_variables(field: str) -> None:
    row = row_of(page("operations"), field)

    assert missing(variables_of(field), row) == []


def test_every_command_has_its_section() -> None:
    assert missing_headings(page("cli"), [f"jamjet {name}" for name in commands()]) == []


@pytest.mark.parametrize("name", get_command(app).commands)  # type: ignore[attr-defined]  # the app is a group
def test_every_option_of_a_command_is_in_its_section(name: str) -> None:
    section = section_of(page("cli"), f"jamjet {name}")

    assert missing(options_of(commands()[name]), section) == []


@pytest.mark.parametrize("code", MEANINGS)
def test_every_exit_code_is_in_the_cli_page(code: int) -> None:
    assert f"\n| {int(code)} | " in page("cli")


async def test_every_route_is_in_the_rest_page(runtime: Runtime) -> None:
    async with ASGIConductor(create_app(runtime)) as conductor:
        document = (await conductor.simulate_get("/openapi.json", host="localhost")).json

    routes = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]

    assert missing(routes, page("rest")) == []


@pytest.mark.parametrize("kind", [*CONTROL_KINDS, *BUILT_IN_KINDS])
def test_every_node_kind_is_in_the_workflow_page_with_its_fields(kind: str) -> None:
    section = section_of(page("workflows"), "condition" if kind == "branch" else kind)
    model = CONTROL_KINDS.get(kind) or BUILT_IN_KINDS[kind]

    assert f"`{kind}`" in page("workflows")
    assert [name for name in names_of(model) if not re.search(rf"\b{name}\b", section)] == []


@pytest.mark.parametrize("model", [Definition, NodeSpec])
def test_every_field_of_the_ir_is_in_its_section(model: type[BaseModel]) -> None:
    section = section_of(page("workflows"), "The IR")

    assert [name for name in names_of(model) if not re.search(rf"\b{name}\b", section)] == []


def test_every_field_of_a_retry_policy_is_in_the_workflow_page() -> None:
    assert missing(RetryPolicy.model_fields, section_of(page("workflows"), "Failures and retries")) == []


def test_every_event_kind_is_in_the_workflow_page() -> None:
    kinds = [kind.__name__ for kind in get_args(Event)]

    assert [kind for kind in kinds if f"\n| `{kind}` | " not in page("workflows")] == []


def full_workflows() -> list[Any]:
    """The blocks that are fenced as `yaml workflow`."""
    fence = re.compile(r"^```yaml workflow\b[^\n]*\n(.*?)^```", re.M | re.S)
    shown = [(path.stem, text) for path in PAGES for text in fence.findall(path.read_text())]
    return [pytest.param(text, id=f"{name}-{number}") for number, (name, text) in enumerate(shown)]


@pytest.mark.parametrize("text", full_workflows())
def test_every_workflow_that_is_shown_whole_is_valid(text: str) -> None:
    ir = compile_text(text, "shown.yaml", BUILT_IN_KINDS)

    assert ir["nodes"]


def test_the_readme_shows_the_workflow_that_init_writes() -> None:
    template = ROOT / "kernel" / "jamjet_kernel" / "cli" / "template" / "workflow.yaml"

    assert template.read_text().strip() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    assert [link for link in links_of(path) if not resolves(path, link)] == []


# Pages and what they hold


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def row_of(text: str, field: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(f"| `{field}` |")), "")


def section_of(text: str, heading: str) -> str:
    """From the heading to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.M)
    assert found, f"there is no section {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def missing(names: Iterable[str], text: str) -> list[str]:
    """The names that are not there as code: `name`, or `name ARGUMENT`."""
    return [name for name in names if not re.search(rf"`{re.escape(name)}[` ]", text)]


def missing_headings(text: str, headings: Iterable[str]) -> list[str]:
    return [heading for heading in headings if f"\n### {heading}\n" not in text]


# The code


def variables_of(field: str) -> list[str]:
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(name) for name in alias.choices if str(name).isupper()]
    return [f"JAMJET_{field.upper()}"]


def names_of(model: type[BaseModel]) -> list[str]:
    """As they are written. The type is the section's own name."""
    return [info.alias or name for name, info in model.model_fields.items() if name != "type"]


def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # the app is a group
    return found


def options_of(command: Any) -> list[str]:
    options = (option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
    return [option for option in options if option.startswith("--") and option not in SHARED_OPTIONS]


# Links


def links_of(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    links = re.findall(r"\]\(([^()\s]+)\)", text)
    return [link for link in links if not re.match(r"[a-z]+:", link)]


def resolves(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    return target.exists() and (not anchor or anchor in anchors_of(target))


def anchors_of(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
