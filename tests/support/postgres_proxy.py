"""A line to PostgreSQL that fails where it hurts: between COMMIT and its answer."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from itertools import repeat
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

COMMIT = b"COMMIT\0"


class Fault(Enum):
    NONE = "none"
    ANSWER_LOST = "the COMMIT arrives, its answer does not"
    COMMIT_LOST = "the COMMIT does not arrive"
    CUT = "the COMMIT was sent on, and the line cut"
    TORN = "a part arrives of what is no COMMIT"


class PostgresProxy:
    """Stands on a port of this machine before the server that `url` names. The faults of a `plan` happen to one COMMIT
    after the other; when they are used up, nothing does. Whatever comes by is `torn` with this chance."""

    def __init__(self, url: str, dice: random.Random | None = None) -> None:
        self._target = _address_of(url)
        self._dice = dice or random.Random()
        self.torn = 0.0
        self._faults: Iterator[Fault] = iter(())
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commits = 0
        self.happened: list[Fault] = []
        self._start(self._accept)

    def url(self, direct: str) -> str:
        """The same database by way of this proxy."""
        names = conninfo_to_dict(direct)
        who = ":".join(quote(str(names[name]), safe="") for name in ("user", "password") if names.get(name))
        return f"postgresql://{who}@127.0.0.1:{self.port}/{names['dbname']}?sslmode=disable&gssencmode=disable"

    def plan(self, faults: Iterable[Fault]) -> None:
        """From the next COMMIT on."""
        with self._lock:
            self._faults = iter(faults)

    def cut(self) -> None:
        """Every connection that is open now."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            _end(each)

    def close(self) -> None:
        _end(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> PostgresProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    server = self._connect()
                except OSError:
                    _end(client)
                    continue
                with self._lock:
                    self._sockets |= {client, server}
                # Set while the answer of a COMMIT is to be swallowed.
                mute = threading.Event()
                self._start(self._to_server, client, server, mute)
                self._start(self._to_client, server, client, mute)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _to_server(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        for data in _received(client):
            fault = self._fault() if COMMIT in data else Fault.NONE
            if fault is Fault.COMMIT_LOST:
                break
            if fault is Fault.ANSWER_LOST:
                mute.set()
            if not self._send(server, data) or fault is Fault.CUT:
                break
        else:
            if mute.is_set():  # the other direction still waits for the COMMIT to be done
                return
        self._forget(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        for data in _received(server):
            # The first thing that comes after the COMMIT says that it was done.
            if mute.is_set() or not self._send(client, data):
                break
        self._forget(client, server)

    def _send(self, target: socket.socket, data: bytes) -> bool:
        """Whether the line holds."""
        if self._dice.random() < self.torn:
            self.happened.append(Fault.TORN)
            _sent(target, data[: self._dice.randrange(len(data))])
            return False
        return _sent(target, data)

    def _fault(self) -> Fault:
        with self._lock:
            self.commits += 1
            fault = next(self._faults, Fault.NONE)
            if fault is not Fault.NONE:
                self.happened.append(fault)
            return fault

    def _forget(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._sockets -= set(sockets)
        for each in sockets:
            _end(each)

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def every(count: int, fault: Fault) -> Iterator[Fault]:
    """Of so many COMMITs one."""
    while True:
        yield from repeat(Fault.NONE, count - 1)
        yield fault


def at_random(chance: float, dice: random.Random) -> Iterator[Fault]:
    """Of COMMITs, with this chance each."""
    while True:
        hit = dice.random() < chance
        yield dice.choice((Fault.COMMIT_LOST, Fault.CUT, Fault.ANSWER_LOST)) if hit else Fault.NONE


def _address_of(url: str) -> Path | tuple[str, int]:
    with psycopg.connect(url) as connection:
        host, port = connection.info.host, connection.info.port
    return Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _received(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while data := source.recv(2**16):
            yield data


def _sent(target: socket.socket, data: bytes) -> bool:
    try:
        target.sendall(data)
    except OSError:
        return False
    return True


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
