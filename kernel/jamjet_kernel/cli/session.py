"""What a command is given beside its own arguments: a client for the runtime, and where its words go.

The options that make them (`--runtime`, `--token`, `--json`) work before and after the command.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

import typer

from .failures import read_settings
from .output import Output

if TYPE_CHECKING:
    from .client import Client

P = ParamSpec("P")

_TOKEN_HELP = "API token: else JAMJET_TOKEN, else what a runtime of this folder keeps in .jamjet/operator.token."

RuntimeUrl = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="URL",
        envvar=["JAMJET_URL", "JAMJET_RUNTIME"],
        show_envvar=False,
        help="The runtime to talk to: else JAMJET_URL, else port JAMJET_PORT (7700) on this machine.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", envvar="JAMJET_TOKEN", show_envvar=False, help=_TOKEN_HELP),
]
NoAuth = Annotated[
    bool, typer.Option("--no-auth", help="Whoever reaches the server is an operator. Only on a loopback address.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]


@dataclass(frozen=True)
class Given:
    """What the options before the command said."""

    runtime: str | None = None
    token: str | None = None
    json: bool = False


@dataclass(frozen=True)
class Session:
    output: Output
    given: Given

    @property
    def url(self) -> str:
        return self.given.runtime or default_url()

    @property
    def token(self) -> str | None:
        return self.given.token or kept_token(self.url)

    @functools.cached_property
    def client(self) -> Client:
        from .client import Client

        return Client(self.url, self.token, note=self._note)

    def _note(self, text: str) -> None:
        self.output.note(f"[yellow]note:[/] {text}")

    def close(self) -> None:
        if "client" in vars(self):
            self.client.close()


def default_url() -> str:
    return f"http://127.0.0.1:{os.environ.get('JAMJET_PORT') or 7700}"


def kept_token(url: str) -> str | None:
    """The operator's, where a runtime of this folder keeps it; sent to nobody but a runtime on this machine."""
    from ..settings import is_loopback_address

    host = urlsplit(url).hostname or ""
    if host != "localhost" and not is_loopback_address(host):
        return None
    try:
        return read_settings().operator_token_file.read_text().strip() or None
    except OSError:
        return None


def remote(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """For a command that talks to a runtime."""
    return _with_options(command, {"runtime": (RuntimeUrl, None), "token": (Token, None), "json": (AsJson, False)})


def local(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """For a command that needs no runtime."""
    return _with_options(command, {"json": (AsJson, False)})


def _with_options(command: Callable[..., None], options: Mapping[str, tuple[Any, object]]) -> Callable[..., None]:
    """The command as Typer is to see it: without the session, with the options that make it."""

    @functools.wraps(command)
    def called(*, context: typer.Context, **arguments: Any) -> None:
        before = context.obj or Given()
        said = {name: arguments.pop(name) for name in options}
        given = Given(**{**vars(before), **{name: value for name, value in said.items() if value}})
        with closing(Session(Output(given.json), given)) as session:
            command(session, **arguments)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [_keyword("context", typer.Context), *(_keyword(name, *option) for name, option in options.items())]
    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *shared]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _keyword(name: str, annotation: Any, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
