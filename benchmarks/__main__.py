"""The command: `python -m benchmarks [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

from rich.console import Console

from jamjet_kernel.runtime import open_runtime
from jamjet_kernel.settings import Settings

from .figures import Figure, Result, take
from .in_process import InProcess
from .machine import machine
from .over_http import OverHttp
from .report import show


def main() -> None:
    asked = _arguments()
    console = Console(stderr=asked.json == "-", width=None if sys.stdout.isatty() else 180)
    with tempfile.TemporaryDirectory(prefix="jamjet-benchmark-", dir=asked.folder) as name:
        folder = Path(name)
        settings = Settings(database_url=str(folder / "runtime.db"), auth="off")
        on = machine(folder, settings.sqlite_synchronous)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            measure = _measure if asked.postgres is None else _measure_on_postgres
            results = runner.run(measure(settings, folder, asked, console))
    show(console, on, results)
    if asked.json:
        text = json.dumps({"machine": on, "figures": [result.as_json() for result in results]}, indent=2)
        _write(asked.json, text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules[__package__].__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about a minute")
    parser.add_argument("--rounds", type=int, help="how many (9, with --quick 3)")
    parser.add_argument("--only", metavar="TEXT", help="the figures whose name has this in it")
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="write the figures as JSON too; -: to stdout"
    )
    parser.add_argument(
        "--postgres",
        metavar="URL",
        nargs="?",
        const="",
        help="the figures on PostgreSQL instead: on this server, or without a URL on one that is started for it",
    )
    parser.add_argument("--folder", help="where the databases are made: choose the disk that you mean to measure")
    return parser.parse_args()


async def _measure(settings: Settings, folder: Path, asked: argparse.Namespace, console: Console) -> list[Result]:
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(open_runtime(settings))
        inside = stack.enter_context(closing(InProcess(runtime, folder, latencies=100 if asked.quick else 200)))
        await inside.prepare()
        outside = stack.enter_context(OverHttp(folder, inside.commit_latency, quick=asked.quick))
        figures = [figure for figure in (*inside.figures(), *outside.figures()) if _is_wanted(figure, asked.only)]
        with console.status("") as status:
            return await take(figures, asked.rounds or (3 if asked.quick else 9), status.update)


async def _measure_on_postgres(
    settings: Settings, folder: Path, asked: argparse.Namespace, console: Console
) -> list[Result]:
    from .on_postgres import OnPostgres, throwaway_server

    async with AsyncExitStack() as stack:
        url = asked.postgres or stack.enter_context(throwaway_server(folder))
        measuring = await stack.enter_async_context(OnPostgres(url, folder, quick=asked.quick).ready())
        figures = [figure for figure in measuring.figures() if _is_wanted(figure, asked.only)]
        with console.status("") as status:
            return await take(figures, asked.rounds or (3 if asked.quick else 9), status.update)


def _is_wanted(figure: Figure, only: str | None) -> bool:
    return only is None or only.lower() in figure.name.lower()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The server's own choice."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _write(place: str, text: str) -> None:
    if place == "-":
        print(text)
    else:
        Path(place).write_text(text + "\n")


if __name__ == "__main__":
    main()
