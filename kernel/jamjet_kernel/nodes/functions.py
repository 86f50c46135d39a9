"""Python functions by name: how one is found, and what each of its parameters gets.

Rule: everything about a function that does not change between calls is worked out once, by `find`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..context import NodeContext
from ..errors import NodeFailed
from .failures import described, user_frames

EMPTY = inspect.Parameter.empty
WHOLE_INPUT = frozenset({"state", "input", "data"})
CONTEXT = frozenset({"ctx", "context"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """`context`: "always", or "unless_given" when only the parameter's name says so, or None."""

    name: str
    default: Any
    positional: bool
    context: str | None
    adapter: TypeAdapter[Any] | None

    def parse(self, value: Any) -> Any:
        if self.adapter is None:
            return value
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise NodeFailed(_unfit(self.name, error), retryable=False) from error


@dataclass(frozen=True, slots=True)
class Function:
    """A function that was found, and how to call it.

    `whole` is the parameter that gets an object which has no key for it; `value` the one that gets
    an input which is no object. `rest`: it takes any keyword.
    """

    name: str
    target: Callable[..., Any]
    is_async: bool
    parameters: tuple[Parameter, ...]
    rest: bool
    whole: str | None
    value: str | None

    def bind(self, input: Any, context: Callable[[], NodeContext]) -> tuple[list[Any], dict[str, Any]]:
        """Raises `NodeFailed`, not retryable, when the input does not fit."""
        given, whole = (input, self.whole) if isinstance(input, dict) else ({}, self._taker(input))
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self.parameters:
            name = parameter.name
            if name in given and parameter.context != "always":
                value = parameter.parse(given[name])
            elif parameter.context is not None:
                value = context()
            elif name == whole:
                value = parameter.parse(input)
            elif parameter.default is EMPTY:
                raise self._missing(given)
            elif parameter.positional:
                value = parameter.default
            else:
                continue
            if parameter.positional:
                positional.append(value)
            else:
                named[name] = value
        if self.rest:
            named |= {key: value for key, value in given.items() if key not in self._names}
        return positional, named

    @property
    def _names(self) -> set[str]:
        return {parameter.name for parameter in self.parameters}

    def _taker(self, input: Any) -> str | None:
        data = [parameter for parameter in self.parameters if parameter.context is None]
        if input is None:
            return self.value if any(p.name == self.value and p.default is EMPTY for p in data) else None
        if self.value is None and (data or self.rest):
            wanted = ", ".join(parameter.name for parameter in data) or "keywords"
            message = f"{self.name} takes {wanted}: give it an object with these keys, not {_a(input)}"
            raise NodeFailed(message, retryable=False)
        return self.value

    def _missing(self, given: dict[str, Any]) -> NodeFailed:
        required = [p.name for p in self.parameters if p.default is EMPTY and p.context is None]
        missing = [name for name in required if name not in given]
        keys = ", ".join(sorted(map(str, given))[:20]) or "none"
        what = "parameter" if len(missing) == 1 else "parameters"
        message = f"{self.name} needs the {what} {', '.join(missing)}; the input's keys are: {keys}"
        return NodeFailed(message, retryable=False)


def function_name(module: str, function: str) -> str:
    """`module:qualified.name`. Raises ValueError when it cannot be one."""
    for part in (*module.split("."), *function.split(".")):
        if not part.isidentifier():
            message = f"'{module}:{function}' does not name a function; write 'package.module:function'"
            raise ValueError(message)
    return f"{module}:{function}"


def find(name: str, allowed: Sequence[str] = ("*",)) -> Function:
    """Imports the module, so it may take its time. Raises `NodeFailed`, not retryable."""
    module, _, path = name.partition(":")
    _check_allowed(module, allowed)
    target: Any = load(module)
    for step in path.split("."):
        target = _attribute(target, step, name)
    if not callable(target):
        raise NodeFailed(f"{name} is {_a(target)}, not a function", retryable=False)
    # A name that a module merely imported would otherwise lead out of what is allowed (`tools:os.system`).
    _check_allowed(getattr(target, "__module__", None) or module, allowed)
    return _analysed(name, target)


def _check_allowed(module: str, allowed: Sequence[str]) -> None:
    if not any(fnmatchcase(module, glob) for glob in allowed):
        globs = ", ".join(allowed) or "none"
        message = f"functions of {module!r} may not be called; JAMJET_PYTHON_MODULES allows: {globs}"
        raise NodeFailed(message, retryable=False)


def load(name: str) -> Any:
    """The module. Raises `NodeFailed`, not retryable."""
    if not all(name.split(".")):
        raise NodeFailed(f"{name!r} is no module's name; write module or package.module", retryable=False)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            message = f"there is no module {name!r}{_similar(error.name, _siblings(error.name))}"
            raise NodeFailed(message, retryable=False) from error
        raise _unimportable(name, error) from error
    except (Exception, SystemExit) as error:
        raise _unimportable(name, error) from error


def _unimportable(name: str, error: BaseException) -> NodeFailed:
    message = f"the module {name!r} cannot be imported: {described(error)}"
    return NodeFailed(message, retryable=False, details={"traceback": user_frames(error)})


def _siblings(module: str) -> list[str]:
    parent, _, _ = module.rpartition(".")
    path = getattr(importlib.import_module(parent), "__path__", []) if parent else None
    prefix = f"{parent}." if parent else ""
    return [prefix + found.name for found in pkgutil.iter_modules(path)]


def _attribute(owner: Any, step: str, name: str) -> Any:
    try:
        return getattr(owner, step)
    except AttributeError as error:
        public = [key for key, value in vars(owner).items() if callable(value) and not key.startswith("_")]
        where = getattr(owner, "__name__", repr(owner))
        message = f"{name}: there is no {step!r} in {where}{_similar(step, public) or _listed(public)}"
        raise NodeFailed(message, retryable=False) from error


def _similar(wanted: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(wanted, list(names))
    return f"; similar: {', '.join(close)}" if close else ""


def _listed(names: Sequence[str]) -> str:
    return f"; there are: {', '.join(sorted(names)[:10])}" if names else "; it has no functions"


def _analysed(name: str, target: Callable[..., Any]) -> Function:
    code = inspect.unwrap(target)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise NodeFailed(f"{name} yields; a node's function returns its result", retryable=False)
    try:
        found = list(inspect.signature(target).parameters.values())
    except ValueError as error:
        message = f"{name} has no signature to go by; wrap it in a function"
        raise NodeFailed(message, retryable=False) from error
    scope = getattr(code, "__globals__", None) or getattr(type(target).__call__, "__globals__", {})
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = tuple(_parameter(each, scope) for each in found if each.kind not in variable)
    rest = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in found)
    return Function(
        name=name,
        target=target,
        is_async=inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__),
        parameters=parameters,
        rest=rest,
        whole=None if rest else _whole(parameters),
        value=_value(parameters),
    )


def _whole(parameters: Sequence[Parameter]) -> str | None:
    data = [parameter for parameter in parameters if parameter.context is None]
    if len(data) == 1 and (data[0].default is EMPTY or data[0].name in WHOLE_INPUT):
        return data[0].name
    return None


def _value(parameters: Sequence[Parameter]) -> str | None:
    data = [parameter for parameter in parameters if parameter.context is None]
    required = [parameter for parameter in data if parameter.default is EMPTY]
    for candidates in (data, required):
        if len(candidates) == 1:
            return candidates[0].name
    return None


def _parameter(parameter: inspect.Parameter, scope: dict[str, Any]) -> Parameter:
    annotation = _evaluated(parameter.annotation, scope)
    return Parameter(
        name=parameter.name,
        default=parameter.default,
        positional=parameter.kind is inspect.Parameter.POSITIONAL_ONLY,
        context=_context(parameter.name, annotation),
        adapter=TypeAdapter(annotation) if _mentions(annotation, BaseModel) else None,
    )


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    """Each on its own, so that a name imported for type checkers alone spoils only its own parameter."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)
    except Exception:
        return NodeContext if annotation.rpartition(".")[2] == "NodeContext" else annotation


def _context(name: str, annotation: Any) -> str | None:
    if _mentions(annotation, NodeContext):
        return "always"
    return "unless_given" if name in CONTEXT and annotation in (EMPTY, Any, object) else None


def _mentions(annotation: Any, wanted: type) -> bool:
    if isinstance(annotation, type) and not get_args(annotation):
        return issubclass(annotation, wanted)
    return any(_mentions(part, wanted) for part in get_args(annotation))


def _unfit(name: str, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, (name, *each['loc'])))}: {each['msg']}" for each in found[:5])


def _a(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
