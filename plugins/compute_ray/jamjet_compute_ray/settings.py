"""What an operator can set about Ray: `JAMJET_RAY_…`, and which cluster `JAMJET_COMPUTE` means."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jamjet_kernel import PluginError

JsonObject = Annotated[dict[str, Any], NoDecode]
LOCAL = "local"


class RaySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="JAMJET_RAY_", extra="ignore", frozen=True, env_ignore_empty=True)

    runtime_env: JsonObject = Field({}, description="Ray's runtime_env for all functions, as JSON: what code they see.")
    init: JsonObject = Field({}, description="More arguments for ray.init, as JSON.")
    resubmits: int = Field(3, ge=0, description="How often a call is handed in again whose process or machine died.")
    cancel_grace: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="Seconds after which a function that was told to stop is killed with its process.",
    )

    @classmethod
    def read(cls) -> Self:
        try:
            return cls()
        except ValidationError as error:
            found = [
                f"JAMJET_RAY_{str(each['loc'][0]).upper()}: {each['msg'].removeprefix('Value error, ')}"
                for each in error.errors()
            ]
            raise PluginError(f"a setting of the plugin ray is not valid: {'; '.join(found)}") from None

    @field_validator("runtime_env", "init", mode="before")
    @classmethod
    def _is_an_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            raise ValueError(f'is JSON, as in {{"working_dir": "."}}: {error}') from error
        if not isinstance(found, dict):
            raise ValueError('is an object, as in {"working_dir": "."}')
        return found

    @field_validator("init")
    @classmethod
    def _leaves_to_us_what_is_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"address": "JAMJET_COMPUTE", "runtime_env": "JAMJET_RAY_RUNTIME_ENV"}
        for name in ours.keys() & value.keys():
            raise ValueError(f"leaves {name} to {ours[name]}")
        return value

    def runtime_env_without(self, secrets: Path) -> dict[str, Any]:
        """The runtime_env, which must not carry the runtime's key, tokens and database off to the cluster."""
        folder = self.runtime_env.get("working_dir")
        if not isinstance(folder, str) or "://" in folder:
            return self.runtime_env
        here, kept = Path(folder).resolve(), secrets.resolve()
        if here not in kept.parents:
            return self.runtime_env
        pattern = f"/{kept.relative_to(here).as_posix()}/"
        return {**self.runtime_env, "excludes": [*self.runtime_env.get("excludes", ()), pattern]}


def address_of(url: str) -> str:
    """What Ray calls the address. Raises `PluginError`."""
    if re.fullmatch(r"ray://[^/:]+:\d+|ray://\[[0-9a-fA-F:]+\]:\d+", url):
        return url
    if url == "ray":
        return os.environ.get("RAY_ADDRESS") or LOCAL
    address = url.removeprefix("ray:")
    if address in (LOCAL, "auto") or re.fullmatch(r"[^/:]+:\d+", address):
        return address
    raise PluginError(
        f"JAMJET_COMPUTE={url} names no Ray cluster; write ray://host:10001 for one elsewhere, ray:auto or"
        " ray:host:6379 for one that this machine is part of, ray:local for one that is started here"
    )
