"""Starting the server: `jamjet-server`, and what `jamjet dev` shares with it.

Order of a life: bind the port, open the runtime, accept requests, announce; on SIGINT or SIGTERM tell so at /ready, go
on for as long as a load balancer needs to see it, end the open event streams, let requests finish, close the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import uvicorn

from .databases import hinted_at_storages, place_of
from .failures import CommandFailed, misspelt_settings, read_settings, told_clearly
from .help import Command
from .service import import_from_here, leave_late_functions, log_to_stderr, loop_factory, signals
from .session import NoAuth

if TYPE_CHECKING:
    from ..runtime import Runtime
    from ..settings import Settings

Announce = Callable[["Settings", str], None]
Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

log = logging.getLogger("jamjet")

# Requests are quick, and who only waits is answered at once; running nodes have a grace of their own.
_REQUEST_GRACE = 2

# Seconds in which a load balancer sees that it should send requests elsewhere.
_DRAIN_SECONDS = 5

# Seconds; longer than nginx (60) and the load balancers of clouds (60) keep a connection: who closes one that the other
# is about to use makes a request fail.
_KEEP_ALIVE = 75

_IS_TAKEN = "another runtime may run there; choose another port with --port or JAMJET_PORT"
_CANNOT_BE = "JAMJET_BIND (or --host) is an address of this machine, and ports below 1024 may need more rights"


def main() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})(_serve)
    with told_clearly():
        app(prog_name="jamjet-server")


def _serve(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen: else JAMJET_BIND, else this machine only."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=0, max=65535, help="Else JAMJET_PORT, else 7700.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", metavar="URL", help="A path or URL; else DATABASE_URL.")
    ] = None,
    no_auth: NoAuth = False,
) -> None:
    """Serve the JamJet runtime. Everything else is set in the environment (JAMJET_…)."""
    settings = read_settings(bind=host, port=port, database_url=database_url, auth="off" if no_auth else None)
    serve(settings, announce=_one_line)


def serve(settings: Settings, *, announce: Announce) -> None:
    """Until it is told to stop. `announce` is called once, when requests are taken."""
    log_to_stderr(settings.log_level)
    import_from_here()
    for name, meant in misspelt_settings():
        log.warning("%s is no setting and changes nothing; was %s meant?", name, meant)
    if settings.auth == "off":
        log.warning("authentication is off: every program on this machine may do everything here")
    with hinted_at_storages(settings.database_url), _bound(settings) as listener:
        actual = settings.model_copy(update=_where(listener, settings))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run(actual, listener, announce))
    leave_late_functions("their nodes run again, elsewhere or at the next start")


async def _run(settings: Settings, listener: socket.socket, announce: Announce) -> None:
    from ..http import create_app
    from ..runtime import open_runtime

    stop = asyncio.Event()
    with signals(stop):
        async with open_runtime(settings) as runtime:
            requests = OpenRequests(create_app(runtime))
            ready = partial(announce, settings, runtime.version)
            server = Server(_config(requests), runtime, stop=stop, requests=requests, ready=ready)
            await server.serve(sockets=[listener])
    log.info("stopped")


def _seconds_to_drain(runtime: Runtime) -> float:
    settings = runtime.settings
    if settings.drain_seconds is not None:
        return settings.drain_seconds
    return 0 if settings.is_local or runtime.storage.exclusive else _DRAIN_SECONDS


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_protocol(),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_REQUEST_GRACE + 3,
        timeout_keep_alive=_KEEP_ALIVE,
    )


def _protocol() -> type[asyncio.Protocol] | Literal["auto"]:
    try:
        from .protocol import Protocol
    except ImportError:  # no httptools, on PyPy for instance
        return "auto"
    return Protocol


class Server(uvicorn.Server):
    """uvicorn, told to stop by an event instead of by signals of its own.

    Its own handlers raise the signal again once the sockets are closed, before the runtime is; and its main loop wakes
    ten times a second to look for one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        runtime: Runtime,
        *,
        stop: asyncio.Event,
        requests: OpenRequests,
        ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._stop = stop
        self._requests = requests
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def main_loop(self) -> None:
        while not self._stop.is_set():
            await self.on_tick(0)  # keeps the Date header right
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), timeout=1)
        await self._drain()
        self._requests.end()
        self._runtime.patience.end()

    async def _drain(self) -> None:
        self._runtime.drain()
        if seconds := _seconds_to_drain(self._runtime):
            log.info("stopping: takes requests for %g more seconds", seconds)
            # Who keeps a connection open comes back by another one, and so to another process.
            self.config.encoded_headers.append((b"connection", b"close"))
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                await self.on_tick(0)
                await asyncio.sleep(min(1, left))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OpenRequests:
    """The application, with its open requests under control: at the end none waits for what will not come any more."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._streams: dict[asyncio.Task[Any], bool] = {}
        self._ending = False

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        from ..http.requests import HANGS_UP

        task = asyncio.current_task()
        assert task is not None
        is_stream = self._streams[task] = _wants_a_stream(scope)
        try:
            await self._app({**scope, HANGS_UP: receive}, receive, send)
        except asyncio.CancelledError:
            if not self._ending:
                raise
            with contextlib.suppress(RuntimeError):  # uvicorn's, where the answer was further on than we thought
                await (_end_stream(send) if is_stream else _turn_away(send))
        finally:
            del self._streams[task]

    def end(self) -> None:
        """Event streams at once, other requests after their grace."""
        self._ending = True
        self._cancel([task for task, is_stream in self._streams.items() if is_stream])
        asyncio.get_running_loop().call_later(_REQUEST_GRACE, lambda: self._cancel(list(self._streams)))

    def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()


async def _end_stream(send: Any) -> None:
    """A proper end instead of a broken connection; the client comes back with its Last-Event-ID."""
    await send({"type": "http.response.body", "body": b""})


async def _turn_away(send: Any) -> None:
    body = b'{"error": "unavailable: the server is stopping", "code": "unavailable", "details": {}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": [*headers, (b"retry-after", b"1")]})
    await send({"type": "http.response.body", "body": body})


def _wants_a_stream(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value for name, value in scope.get("headers", ()))


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """The port, taken but not yet listening: a busy one is told before the database is touched."""
    address = "127.0.0.1" if settings.bind == "localhost" else settings.bind.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, settings.port))
        except OSError as error:
            raise CommandFailed(
                f"cannot listen on {address}:{settings.port}: {error.strerror}",
                hint=_IS_TAKEN if error.errno == errno.EADDRINUSE else _CANNOT_BE,
            ) from error
        yield listener


def _where(listener: socket.socket, settings: Settings) -> dict[str, object]:
    """The port that a wish for any free one led to, and the URL with it."""
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return {"port": port, "public_url": settings.public_url or f"http://{name}:{port}"}


def _one_line(settings: Settings, version: str) -> None:
    print(f"JamJet Runtime {version} on {settings.url} (database {place_of(settings.database_url)})", flush=True)
