"""What an operator can set: one model, read once, from the environment.

The names of the contract (`DATABASE_URL`, `RUST_LOG`) are taken beside our own (`JAMJET_…`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .outgoing import networks_of

Names = Annotated[tuple[str, ...], NoDecode]
"""A list in the environment is written `a,b,c`."""

Counts = Annotated[Mapping[str, int], NoDecode]
"""`a=1,b=2`"""

_DAY = 86_400.0
_MANY = 10**9


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="JAMJET_", extra="ignore", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    bind: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(7700, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(None, description="The URL that others reach this runtime by.")
    database_url: str = Field(
        ".jamjet/runtime.db",
        validation_alias=AliasChoices("DATABASE_URL", "JAMJET_DATABASE_URL"),
        description="A SQLite path or URL; other schemes are answered by other storage plugins.",
    )
    migrate: Literal["on", "off"] = Field(
        "on",
        description="off: a start never changes the database's tables; `jamjet db upgrade` does.",
    )
    home: str | None = Field(
        None, description="Folder of the runtime's key and first token: else that of a SQLite database, else .jamjet."
    )
    auth: Literal["on", "off"] = Field(
        "on", description="off: whoever reaches the server is an operator. Only where it listens on loopback."
    )
    signing_key: str | None = Field(
        None, description="The runtime's Ed25519 key as PEM; else signing.key in its home, made at the first start."
    )
    allow_networks: Names = Field(
        (),
        description="Networks that outgoing requests may reach though not public: CIDR, or `loopback`, `private`.",
    )
    log_level: str = Field(
        "info",
        validation_alias=AliasChoices("JAMJET_LOG", "RUST_LOG"),
        description="debug, info, warning or error.",
    )
    compute: str = Field("local", description="Where Python functions run.")
    plugins: Names | None = Field(None, description="The plugins to load, by entry point name; all when not set.")
    sqlite_synchronous: Literal["FULL", "NORMAL", "EXTRA"] = Field(
        "FULL", description="FULL survives a power cut; NORMAL only a crash of the process."
    )
    threads: int = Field(min(32, (os.cpu_count() or 1) + 8), ge=1, description="Threads for sync functions.")
    processes: int = Field(os.cpu_count() or 1, ge=1, description="Processes for functions with isolation: process.")
    concurrency: int = Field(1000, ge=1, description="Nodes that run at the same time in this process.")
    queues: Names = Field(("general",), description="Queues whose work this process does; may be none.")
    queue_limits: Counts = Field(
        {}, description="How many nodes of a queue are at work at a time, in all processes together: `model=10,gpu=2`."
    )
    lease_seconds: float = Field(
        15.0,
        ge=0.3,
        le=_DAY,
        description="A process that gave no sign of life for so long is dead: others take over its work.",
    )
    poll_seconds: float = Field(
        1.0, gt=0, le=_DAY, description="How often to look at a shared database for what no hint told of."
    )
    hints: Literal["on", "off"] = Field("on", description="Whether processes wake each other by NOTIFY.")
    python_modules: Names = Field(("*",), description="Globs of the modules whose functions workflows may call.")
    env_names: Names = Field((), description="Environment variables that workflows may read as env.NAME.")
    http_max_bytes: int = Field(5 * 2**20, ge=1024, description="The largest answer an http node takes.")
    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="The largest request body the server takes.")
    live_executions: int = Field(10_000, ge=1, description="Executions whose progress is kept in memory.")
    shutdown_grace: float = Field(
        10.0, ge=0, le=_DAY, description="Seconds that running nodes get to finish at shutdown."
    )
    drain_seconds: float | None = Field(
        None,
        ge=0,
        le=_DAY,
        description="Seconds from telling, at /ready, that it stops until it takes no more requests: else 5, and 0 on "
        "loopback or SQLite, where nobody else takes them.",
    )
    max_backlog: int = Field(
        200_000, ge=0, le=_MANY, description="Nodes that may wait for a worker before executions are refused with 429."
    )
    max_unwritten: int = Field(
        10_000, ge=1, description="Changes that may wait for the database before executions are refused with 429."
    )
    stall_seconds: float = Field(
        5.0, gt=0, le=_DAY, description="Seconds without an answer after which the database counts as stuck."
    )
    agent_liveness_secs: float = Field(
        60.0,
        gt=0,
        le=365 * _DAY,
        description="Seconds after its last heartbeat from which an agent counts as unreachable.",
    )
    audit_keys: str | None = Field(
        None,
        description="The public keys (PEM) it had before: what they signed in the audit log stays valid.",
    )
    audit_retention_days: int | None = Field(
        None, ge=1, le=36_500, description="How long audit records are kept; for ever when not set."
    )
    receipt_hours: int = Field(24, ge=1, le=87_600, description="How long an Idempotency-Key is remembered.")

    @field_validator("queue_limits", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in map(str.strip, value.split(",")) if part]
        if not all(name.strip() and count.strip().isdecimal() and 0 < int(count) <= _MANY for name, _, count in pairs):
            raise ValueError(f"{value!r} is no list of limits; write it as model=10,gpu=2")
        if len({name.strip() for name, _, _ in pairs}) < len(pairs):
            raise ValueError(f"{value!r} names a queue twice")
        return {name.strip(): int(count) for name, _, count in pairs}

    @field_validator("plugins", "queues", "python_modules", "env_names", "allow_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks_of(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value and not re.match(r"https?://[^/\s]+", value):
            raise ValueError(f"{value!r} is no URL that others could reach; try https://jamjet.example.com")
        return value

    @field_validator("log_level")
    @classmethod
    def _is_a_level(cls, value: str) -> str:
        # RUST_LOG may hold filters such as "jamjet=debug,info"; the last plain word is the level.
        words = [word.rpartition("=")[2].strip().lower() for word in value.split(",")]
        level = {"warn": "warning", "trace": "debug", "off": "critical"}.get(words[-1], words[-1])
        if level not in {"debug", "info", "warning", "error", "critical"}:
            raise ValueError(f"{value!r} is not a log level; try debug, info, warning or error")
        return level

    @model_validator(mode="after")
    def _is_open_to_this_machine_only(self) -> Self:
        if self.auth == "off" and not self.is_local:
            raise ValueError(
                f"authentication can be off only where others cannot connect, and {self.bind!r} is no loopback address;"
                " bind 127.0.0.1, ::1 or localhost, or leave JAMJET_AUTH on"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Only this machine can connect."""
        return self.bind == "localhost" or is_loopback_address(self.bind.strip("[]"))

    @property
    def home_folder(self) -> Path:
        if self.home is not None:
            return Path(self.home).expanduser()
        file = self.database_url.removeprefix("sqlite:///")
        return Path(".jamjet") if "://" in file else Path(file).expanduser().parent

    @property
    def operator_token_file(self) -> Path:
        """Where the first start keeps the operator's token, and the command line on this machine finds it."""
        return self.home_folder / "operator.token"

    @property
    def url(self) -> str:
        return self.public_url or f"http://{self.bind}:{self.port}"


def is_loopback_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
