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
        said, password = str(error).strip(), rest.rpartition("@")[0].partition(":")[2]
        # libpq may quote the password, or a part of it, where that is what it cannot read.
        is_told = "token" in said or (password and password in said)
        raise _unusable("it cannot be read" if is_told else said) from error
    parameters = {name: value for name, value in told.items() if value is not None}
    if "@" in str(parameters.get("dbname", "")):  # behind a slash of the password
        raise _unusable("its database is no name")
    return Server(_name(parameters), parameters)


def _unusable(why: str) -> PluginError:
    return PluginError(
        f"cannot use the PostgreSQL URL of DATABASE_URL: {why}; "
        "write postgresql://user:password@host:5432/database, special characters as %XX"
    )


def _name(parameters: Mapping[str, str | int]) -> str:
    user = f"{parameters['user']}@" if "user" in parameters else ""
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    port = f":{parameters['port']}" if "port" in parameters else ""
    # They may name a schema.
    options = f"?options={parameters['options']}" if "options" in parameters else ""
    return f"postgresql://{user}{host}{port}/{parameters.get('dbname', '')}{options}"
