"""What must stay true of the shape of the code, whoever adds to it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import jamjet_kernel
from jamjet_kernel import errors, hookspecs, http, runtime, testing
from jamjet_kernel.errors import JamJetError
from jamjet_kernel.http.errors import STATUSES
from jamjet_kernel.nodes import remote

ROOT = Path(__file__).parent.parent
KERNEL = ROOT / "kernel" / "jamjet_kernel"
PLUGINS = {path.name: path for path in ROOT.glob("plugins/*/*") if (path / "__init__.py").exists()}
EXAMPLES = {path.name: path for path in ROOT.glob("examples/*/src/*") if (path / "__init__.py").exists()}
LIBRARIES = {"jamjet_storage_sql"}
"""Packages beside the plugins that several of them may build on."""

REACHES = {
    "errors": set(),
    "core": {"errors"},
    "ports": {"core", "errors"},
    "access": {"errors", "ports"},
    "context": {"ports"},
    "outgoing": {"errors"},
    "results": {"errors", "ports"},
    "settings": {"outgoing"},
    "wording": set(),
    "testing": {"core", "errors", "ports"},
}
"""What the inner parts of the kernel may import of it: nothing else."""

OUTER = {
    "runtime": {"http", "cli", "authoring", "nodes", "testing"},
    "http": {"cli", "authoring", "nodes", "testing"},
    "nodes": {"runtime", "http", "cli", "authoring", "plugins", "testing"},
    "authoring": {"runtime", "http", "cli", "nodes", "testing"},
    "hookspecs": {"http", "cli", "authoring", "nodes", "testing", "plugins"},
    "plugins": {"runtime", "http", "cli", "authoring", "nodes", "testing"},
}
"""What the outer parts must not import of the kernel."""

# fmt: off
IMPURE = {
    "asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib",
}
# fmt: on


@dataclass(frozen=True)
class Import:
    """`name` is imported from `module`, or the module as a whole where it is None."""

    file: Path
    line: int
    module: str
    name: str | None

    @property
    def unit(self) -> str:
        """The part of the kernel that is imported: `core` of `jamjet_kernel.core.events`."""
        parts = [*self.module.split("."), *([self.name] if self.name else [])]
        return parts[1] if len(parts) > 1 else ""

    def __str__(self) -> str:
        what = f"{self.name} from {self.module}" if self.name else self.module
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {what}"


def imports(package: Path) -> Iterator[Import]:
    """All of them, also within functions and under TYPE_CHECKING, with relative ones spelled out."""
    for file in sorted(package.rglob("*.py")):
        home = file.relative_to(package.parent).with_suffix("").parts[:-1]
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Import):
                yield from (Import(file, node.lineno, alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = home[: len(home) - node.level + 1] if node.level else ()
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield from (Import(file, node.lineno, module, alias.name) for alias in node.names)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def kernel_imports(unit: str) -> list[Import]:
    files = {KERNEL / f"{unit}.py", *(KERNEL / unit).rglob("*.py")}
    return [found for found in imports(KERNEL) if found.file in files]


def within_kernel(unit: str) -> list[Import]:
    found = [each for each in kernel_imports(unit) if each.module.split(".")[0] == "jamjet_kernel"]
    return [each for each in found if each.unit != unit]


def said(wrong: list[Import]) -> str:
    return "\n".join(map(str, wrong))


# Arrows


@pytest.mark.parametrize("unit", REACHES)
def test_the_inner_parts_import_only_what_is_further_in(unit: str) -> None:
    wrong = [each for each in within_kernel(unit) if each.unit not in REACHES[unit]]

    assert not wrong, said(wrong)


@pytest.mark.parametrize("unit", OUTER)
def test_the_outer_parts_import_nothing_from_further_out(unit: str) -> None:
    wrong = [each for each in within_kernel(unit) if each.unit in OUTER[unit]]

    assert not wrong, said(wrong)


def test_every_part_has_its_place_among_the_arrows() -> None:
    modules = {path.stem for path in KERNEL.glob("*.py")} | {path.parent.name for path in KERNEL.glob("*/__init__.py")}

    known = REACHES.keys() | OUTER.keys() | {"__init__", "cli"}
    assert modules == known, "say in REACHES or OUTER where the new part belongs"


def test_the_core_is_pure() -> None:
    wrong = [each for each in kernel_imports("core") if each.module.split(".")[0] in IMPURE]

    assert not wrong, said(wrong)


def test_the_core_neither_reads_a_clock_nor_talks_to_the_world() -> None:
    wrong = []
    for file in sorted((KERNEL / "core").rglob("*.py")):
        for node in ast.walk(parsed(file)):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in {"now", "utcnow", "today"}:
                wrong.append(f"{file.name}:{called.lineno} asks for the time")
            if isinstance(called, ast.Name) and called.id in {"open", "print", "input", "__import__", "eval", "exec"}:
                wrong.append(f"{file.name}:{called.lineno} calls {called.id}")
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                wrong.append(f"{file.name}:{node.lineno} waits")

    assert not wrong, "\n".join(wrong)


# Plugins


def test_there_are_plugins_to_look_at() -> None:
    assert PLUGINS.keys() >= {"jamjet_storage_sql", "jamjet_storage_sqlite"} | LIBRARIES
    assert EXAMPLES.keys() >= {"jamjet_text_chunks"}


def test_the_kernel_names_no_plugin_not_even_in_a_string() -> None:
    wrong = []
    for file in sorted(KERNEL.rglob("*.py")):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                wrong += [f"{file.name}:{node.lineno} says {name}" for name in PLUGINS if name in node.value]
    wrong += [str(each) for each in imports(KERNEL) if each.module.split(".")[0] in PLUGINS]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("plugin", sorted(PLUGINS.keys() | EXAMPLES.keys()))
def test_a_plugin_imports_public_names_of_the_kernel_only(plugin: str) -> None:
    public = {module.__name__: module.__all__ for module in (jamjet_kernel, http, runtime, testing, remote)}
    wrong = [
        each
        for each in imports((PLUGINS | EXAMPLES)[plugin])
        if each.module.split(".")[0] == "jamjet_kernel" and each.name not in public.get(each.module, ())
    ]

    assert not wrong, said(wrong)


@pytest.mark.parametrize("plugin", sorted(PLUGINS.keys() | EXAMPLES.keys()))
def test_a_plugin_imports_no_other_plugin(plugin: str) -> None:
    libraries = {name: importlib.import_module(name).__all__ for name in LIBRARIES}
    others = (PLUGINS.keys() | EXAMPLES.keys()) - {plugin}
    wrong = [
        each
        for each in imports((PLUGINS | EXAMPLES)[plugin])
        if (package := each.module.split(".")[0]) in others and each.name not in libraries.get(package, ())
    ]

    assert not wrong, said(wrong)


# The public surface


def test_the_surface_lists_what_can_be_imported_and_nothing_else() -> None:
    modules = {name for name, value in vars(jamjet_kernel).items() if inspect.ismodule(value)}
    bound = {name for name in vars(jamjet_kernel) if not name.startswith("_")} - {"TYPE_CHECKING"}

    assert all(hasattr(jamjet_kernel, name) for name in jamjet_kernel.__all__)
    assert bound - (modules - {"chain", "events"}) | {"Runtime"} == set(jamjet_kernel.__all__)
    assert len(jamjet_kernel.__all__) == len(set(jamjet_kernel.__all__))


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = jamjet_kernel.nonsense  # type: ignore[attr-defined]  # that is the point


# Hooks


HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "jamjet_spec")]


def implementations(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(d) for d in node.decorator_list):
                yield node.name, file


def test_there_are_hooks_to_look_at() -> None:
    assert {"open_storage", "open_compute", "node_executors", "http_routes", "lifespans", "events_recorded"} <= {*HOOKS}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_when_it_is_called_and_what_it_promises(hook: str) -> None:
    said = getattr(hookspecs, hook).__doc__ or ""

    assert len(said.split()) >= 8
    assert said.rstrip().endswith(".")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_implemented_by_a_test(hook: str) -> None:
    found = {name for name, _ in implementations(ROOT / "tests")}

    assert hook in found, f"no plugin of the tests implements {hook}; tests/plugins is the place for one"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_called_by_the_kernel(hook: str) -> None:
    called = {
        node.attr
        for file in KERNEL.rglob("*.py")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("hook")
    }

    assert hook in called


# Errors


ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, JamJetError)]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_has_a_status_that_somebody_chose(error: type[JamJetError]) -> None:
    """Its own or that of a more specific ancestor; JamJetError's is for what nobody thought of."""
    chosen = [kind for kind in error.__mro__ if kind in STATUSES and (kind is not JamJetError or error is JamJetError)]

    assert chosen, f"{error.__name__} has no status in http/errors.py"


def test_errors_have_codes_of_their_own_and_are_in_the_tree_that_the_module_draws() -> None:
    codes = [error.code for error in ERRORS]

    assert len(codes) == len(set(codes))
    for error in ERRORS:
        assert error.__name__ in (errors.__doc__ or "")
        assert error.__doc__
