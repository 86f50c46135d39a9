"""Which of the installed plugins are loaded, in which order, and what stops the start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from jamjet_kernel import PluginError, Settings
from jamjet_kernel.plugins import installed, load, load_kinds, names
from jamjet_kernel.runtime import open_runtime

IMPORT = "from jamjet_kernel import hookimpl\n"


def settings(tmp_path: Path, *plugins: str, **more: Any) -> Settings:
    """Of the built-in plugins `nodes` is always chosen."""
    chosen = ("nodes", *plugins) if plugins else None
    return Settings(**{"database_url": str(tmp_path / "runtime.db"), "plugins": chosen, "shutdown_grace": 0, **more})


def hook(signature: str, *body: str) -> str:
    return IMPORT + "\n".join(["@hookimpl", f"def {signature}:", *(f"    {line}" for line in body), ""])


# Which


def test_all_that_is_installed_is_loaded_without_a_choice(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    environment.install("elsewhere")

    kinds = load_kinds(settings(tmp_path))

    assert "greet" in kinds
    assert {"elsewhere", "greeter"} <= sys.modules.keys()


def test_only_what_the_settings_choose_is_imported(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    environment.install("broken", "raise RuntimeError('nobody asked for me')")

    kinds = load_kinds(settings(tmp_path, "greeter"))

    assert "greet" in kinds
    assert "broken" not in sys.modules


def test_the_choice_may_come_from_the_environment(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install("greeter")
    environment.install("rival")
    monkeypatch.setenv("JAMJET_PLUGINS", "nodes, rival")

    kinds = load_kinds(Settings(database_url=str(tmp_path / "runtime.db")))

    assert kinds["greet"].__module__ == "pydantic.main"
    assert "greeter" not in sys.modules


async def test_the_driver_is_chosen_by_the_scheme_of_the_url(environment: Any, tmp_path: Path) -> None:
    environment.install("temporary", group="jamjet.storage")

    async with open_runtime(settings(tmp_path, database_url="temporary://")) as runtime:
        assert runtime.ready

    assert list(tmp_path.iterdir()) == [tmp_path / "site"]


def test_no_other_driver_is_imported(environment: Any, tmp_path: Path) -> None:
    environment.install("broken", "raise RuntimeError('nobody asked for me')", group="jamjet.storage")

    load(settings(tmp_path))

    assert "broken" not in sys.modules


async def test_a_plugin_may_wrap_what_the_driver_opens(environment: Any, tmp_path: Path) -> None:
    environment.install("wrapping")

    async with open_runtime(settings(tmp_path)) as runtime:
        assert type(runtime.storage).__name__ == "Counting"


async def test_the_compute_is_chosen_by_its_url(environment: Any, tmp_path: Path) -> None:
    environment.install("elsewhere")

    async with open_runtime(settings(tmp_path, compute="elsewhere://cluster")) as runtime:
        compute: Any = runtime.executors["python_fn"].__dict__["_compute"]
        assert (compute.url, compute.closed) == ("elsewhere://cluster", False)

    assert compute.closed


def test_what_was_just_installed_again_is_found(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    load(settings(tmp_path))

    environment.install("greeter", welcome="greeter")

    assert "greet" in load_kinds(settings(tmp_path, "welcome"))


# In which order


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_hooks_are_called_in_the_order_of_the_settings(environment: Any, tmp_path: Path, order: tuple[str]) -> None:
    for name in "abc":
        environment.install(name, hook("http_routes()", f"return ['{name}']"))

    routes = load(settings(tmp_path, *order)).hook.http_routes(runtime=None)

    assert [name for [name] in routes] == list(order)


def test_without_a_choice_the_order_is_that_of_the_names(environment: Any, tmp_path: Path) -> None:
    for name in "bca":
        environment.install(name, hook("agent_protocols()", f"return ['{name}']"))
    chosen = settings(tmp_path)

    contributed = load(chosen).hook.agent_protocols(settings=chosen)

    assert [name for [name] in contributed if isinstance(name, str)] == ["a", "b", "c"]


def test_the_first_to_answer_wins_where_one_answer_is_wanted(environment: Any, tmp_path: Path) -> None:
    for name in "ab":
        environment.install(name, hook("open_compute(url)", f"return '{name}'"))

    manager = load(settings(tmp_path, "b", "a"))

    assert manager.hook.open_compute(url="any", settings=None) == "b"


# What stops the start


def refused(chosen: Settings) -> str:
    with pytest.raises(PluginError) as error:
        load_kinds(chosen)
    return str(error.value)


def test_a_missing_plugin_is_told_with_those_that_are_installed(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")

    said = refused(settings(tmp_path, "greter"))

    assert said == f"no plugin named 'greter'; installed: {', '.join(names('jamjet.plugins'))}"
    assert "greeter, nodes" in said


def test_a_missing_driver_is_told_with_those_that_are_installed(environment: Any, tmp_path: Path) -> None:
    environment.install("temporary", group="jamjet.storage")

    said = refused(settings(tmp_path, database_url="oracle://host/database"))

    assert said == f"no storage named 'oracle'; installed: {', '.join(names('jamjet.storage'))}"
    assert "temporary" in said


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("assert False, 'too old a Python'", "too old a Python"),
        ("import sys; sys.exit(3)", "SystemExit(3)"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(environment: Any, tmp_path: Path, source: str, reason: str) -> None:
    environment.install("broken", source, distribution="jamjet-broken", mine="broken")

    said = refused(settings(tmp_path))

    assert said.startswith("the plugin 'mine' (broken of jamjet-broken 1.2) cannot be imported: ")
    assert reason in said


def test_an_entry_point_to_nowhere_is_named(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter", welcome="greeter:no_such_thing")

    assert "the plugin 'welcome' (greeter:no_such_thing of greeter 1.2) cannot" in refused(settings(tmp_path))


def test_two_distributions_with_one_name_for_their_plugins_are_both_named(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter", hello="greeter")
    environment.install("rival", hello="rival")

    said = refused(settings(tmp_path))

    assert said.startswith("2 of the installed plugins are named 'hello': ")
    assert "greeter 1.2 (greeter)" in said
    assert "rival 1.2 (rival)" in said


@pytest.mark.parametrize("chosen", [("greeter", "greeter"), ("greeter", "welcome")])
def test_one_plugin_under_two_names_is_refused(environment: Any, tmp_path: Path, chosen: tuple[str, str]) -> None:
    environment.install("greeter", greeter="greeter", welcome="greeter")

    assert "is chosen twice" in refused(settings(tmp_path, *chosen))


def test_two_executors_for_a_kind_are_both_named(environment: Any, tmp_path: Path) -> None:
    environment.install("greeter")
    environment.install("rival")

    said = refused(settings(tmp_path))

    assert said == "two executors for the kind 'greet': rival.RivalGreeter and greeter.Greeter"


@pytest.mark.parametrize("kind", ["parallel", "wait", "end"])
def test_a_kind_that_the_kernel_decides_is_taken(environment: Any, tmp_path: Path, kind: str) -> None:
    executors = hook("node_executors()", "import greeter", "mine = greeter.Greeter()", f"mine.kind = {kind!r}")
    environment.install("greeter")
    environment.install("usurper", executors + "    return [mine]\n")

    said = refused(settings(tmp_path, "usurper"))

    assert said == f"two executors for the kind {kind!r}: greeter.Greeter and the kernel"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return ['greet']", "'greet' is no node executor: it needs kind, config and execute(call)"),
        ("return 7", "node_executors takes a list, and got 7 from one of 'plugins:clumsy', 'plugins:nodes'"),
        ("raise RuntimeError('no key')", "the plugin 'plugins:clumsy' failed in node_executors: RuntimeError: no key"),
        ("yield 1 / 0", "the plugin 'plugins:clumsy' failed in node_executors: ZeroDivisionError: division by zero"),
    ],
)
def test_a_hook_that_does_not_do_its_part_stops_the_start(
    environment: Any, tmp_path: Path, body: str, told: str
) -> None:
    environment.install("clumsy", hook("node_executors()", body))

    assert refused(settings(tmp_path, "clumsy")) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("kind = None", "greeter.Greeter is for no kind of node: its kind is None, not a name"),
        ("config = dict", "the config of greeter.Greeter is <class 'dict'>, not a class of pydantic models"),
        ("config = 7", "the config of greeter.Greeter is 7, not a class of pydantic models"),
    ],
)
def test_an_executor_that_could_not_work_is_refused(environment: Any, tmp_path: Path, change: str, told: str) -> None:
    body = ["import greeter", "mine = greeter.Greeter()", f"mine.{change}", "return [mine]"]
    environment.install("greeter")
    environment.install("clumsy", hook("node_executors()", *body))

    assert refused(settings(tmp_path, "clumsy")) == told


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("node_executers(settings)", "unknown hook 'node_executers'"),
        ("node_executors(settings, database)", "database"),
    ],
)
def test_a_plugin_that_does_not_fit_the_hooks_is_named(
    environment: Any, tmp_path: Path, signature: str, reason: str
) -> None:
    environment.install("clumsy", hook(signature, "return []"))

    said = refused(settings(tmp_path))

    assert said.startswith("the plugin 'clumsy' does not fit the hooks: ")
    assert reason in said


async def test_a_driver_that_does_not_answer_to_its_own_scheme_is_told(environment: Any, tmp_path: Path) -> None:
    environment.install("temporary", group="jamjet.storage")

    with pytest.raises(PluginError, match="no storage plugin answers for 'temporary'"):
        async with open_runtime(settings(tmp_path, database_url="temporary://elsewhere")):
            pass


def test_an_unknown_compute_is_told(environment: Any, tmp_path: Path) -> None:
    assert refused(settings(tmp_path, compute="moon://base")) == (
        "no plugin knows the compute 'moon://base'; 'local' is always there"
    )


# What is installed


def test_the_list_of_what_is_installed_tells_where_it_is_from_and_what_it_does(environment: Any) -> None:
    environment.install("greeter", distribution="jamjet-greeter")
    environment.install("broken", "import no_such_library")
    environment.install("leaving", "raise SystemExit('no licence')")

    plugins = {plugin.name: plugin for plugin in installed()}

    greeter, broken = plugins["greeter"], plugins["broken"]
    assert (greeter.distribution, greeter.version, greeter.module) == ("jamjet-greeter", "1.2", "greeter")
    assert greeter.hooks == ["events_recorded", "http_routes", "lifespans", "node_executors"]
    assert broken.error == "ModuleNotFoundError: No module named 'no_such_library'"
    assert plugins["leaving"].error == "SystemExit: no licence"
    assert plugins["sqlite"].hooks == ["open_database", "open_storage"]
