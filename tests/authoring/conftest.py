"""Node kinds as plugins would bring them, and a short way to compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from jamjet_kernel.authoring import AuthoringError, compile_text


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Http(Config):
    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    body: Any = None


class Model(Config):
    model: str | None = None
    prompt: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    structured_output: bool = False
    output_schema: dict[str, Any] | None = None


class Tool(Config):
    references: ClassVar[dict[str, str]] = {"tool_ref": "tools"}
    tool_ref: str | None = None
    fn: str | None = None
    server: str | None = None
    tool: str | None = None
    arguments: Any = None
    input: Any = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class PythonFn(Config):
    module: str
    function: str


class Remote(Config):
    agent_url: str
    skill: str | None = None
    input: Any = None
    timeout: float | None = None


KINDS = {"http": Http, "model": Model, "tool": Tool, "python_fn": PythonFn, "a2a_task": Remote}


@pytest.fixture(scope="session")
def kinds() -> dict[str, type[BaseModel]]:
    return dict(KINDS)


@pytest.fixture
def compiled(kinds: dict[str, type[BaseModel]]) -> Callable[..., dict[str, Any]]:
    return lambda text, filename="flow.yaml": compile_text(text, filename, kinds)


@pytest.fixture
def problems(kinds: dict[str, type[BaseModel]]) -> Callable[..., list[str]]:
    """What is said of a text that does not compile, without the file's name."""

    def of(text: str, filename: str = "flow.yaml") -> list[str]:
        with pytest.raises(AuthoringError) as caught:
            compile_text(text, filename, kinds)
        return [str(problem).removeprefix(f"{filename}:").strip() for problem in caught.value.problems]

    return of
