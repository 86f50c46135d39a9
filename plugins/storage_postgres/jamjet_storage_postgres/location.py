"""Which database a storage URL names, as libpq reads it, and how to speak of it without the password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from jamjet_kernel import PluginError

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True)
class Server:
    """What libpq connects with; `name` is for people."""

    name: str
    parameters: Mapping[str, str | int] = field(repr=False)


def server_of(url: str) -> Server:
    """Raises `PluginError` for a URL that libpq cannot read."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in SCHEMES:
        raise PluginError(f"cannot use {scheme!r} as a storage: PostgreSQL is reached by psycopg, as postgresql://…")
    try:
        told = conninfo_to_dict(f"postgresql://{rest}")
    except ProgrammingError as error:
        # libpq may quote a part of the password where that is what it cannot read.
        said = "it cannot be read" if "token" in str(error) else str(error).strip()
        raise PluginError(
            f"cannot use the PostgreSQL URL of DATABASE_URL: {said}; "
            "write postgresql://user:password@host:5432/database, special characters as %XX"
        ) from error
    parameters = {name: value for name, value in told.items() if value is not None}
    return Server(_name(parameters), parameters)


def _name(parameters: Mapping[str, str | int]) -> str:
    user = f"{parameters['user']}@" if "user" in parameters else ""
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"postgresql://{user}{host}{port}/{parameters.get('dbname', '')}"
