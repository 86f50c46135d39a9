"""Conditions, templates and input mappings: one language, Jinja2 in its immutable sandbox.

Where it differs from Jinja, it is to fit JSON and durable replays:

- A missing name is null in an expression and an error in a template, at any depth; `default()`
  mends.
- `state.items` is the key `items` when there is one. Only the methods in `_METHODS` can be called.
- `<`, `<=`, `>`, `>=` and `in` with null are false. `&&`, `||`, `!` and `null` are understood.
- Text: null is empty, lists and objects are JSON, anything else as Jinja writes it (`True`, `0.5`).
- Nothing impure: no clock, no randomness, no loader. Tuples and iterators end up as lists.

Everything is bounded. Rule 1: whatever an operation makes passes `_made`, so every value in an
evaluation is small *as a tree*, however often it shares its parts. Rule 2: whatever could be large
before it can be measured is foreseen (`_allow`). Rule 3: every operation pays for what it reads.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial, wraps
from itertools import islice
from typing import Any, Never

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, _GroupTuple
from jinja2.lexer import Lexer, _Rule
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.tests import TESTS
from jinja2.utils import Namespace, missing
from jinja2.visitor import NodeTransformer
from markupsafe import escape

Scope = Mapping[str, Any]

MAX_SOURCE = 64 * 1024
MAX_STEPS = 100_000
MAX_SIZE = 10_000_000
"""Of one value, in characters; an item of a list or an object counts as ten."""
MAX_BITS = 4096

_ITEM = 10
_NODE = 50
_CALL = 100
_STEP = 1000  # units; a unit is about 5 ns, so that a whole budget is worth half a second


class ExpressionError(ValueError):
    """It does not parse or cannot be evaluated. `place` is the path inside a template's value."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Expression:
    """A condition, or the `items` of a map."""

    source: str
    _code: _Code = field(repr=False, compare=False)

    def evaluate(self, scope: Scope) -> Any:
        return self._code.value(scope)

    def is_true(self, scope: Scope) -> bool:
        return self._code.truth(scope)

    @property
    def names(self) -> frozenset[str]:
        return self._code.names

    @property
    def node_ids(self) -> frozenset[str]:
        """Of the nodes that it refers to by a constant: `nodes.search`, `nodes['search']`."""
        return self._code.node_ids


@lru_cache(maxsize=4096)
def expression(source: str) -> Expression:
    return Expression(source, _parsed(source, _parse_expression))


@dataclass(frozen=True)
class Template:
    """A JSON value with templates in its strings. Do not change the value afterwards.

    `node_ids`: the nodes that it refers to by a constant, each with the place inside the value.
    """

    value: Any
    names: frozenset[str]
    node_ids: frozenset[tuple[str, str]]
    _render: Callable[[Scope], Any] | None = field(repr=False, compare=False)

    @property
    def is_constant(self) -> bool:
        return self._render is None

    def render(self, scope: Scope) -> Any:
        try:
            return self.value if self._render is None else self._render(scope)
        except RecursionError as error:
            raise ExpressionError("the value is nested too deeply") from error


def template(value: Any) -> Template:
    try:
        return _template(value, "")
    except RecursionError as error:
        raise ExpressionError("the value is nested too deeply") from error


def _template(value: Any, place: str) -> Template:
    match value:
        case str() if any(mark in value for mark in ("{{", "{%", "{#")):
            code = _located(place, _text_code, value)
            node_ids = frozenset((place, node_id) for node_id in code.node_ids)
            return Template(value, code.names, node_ids, partial(_located, place, code.value))
        case dict():
            return _nested(value, place, value, lambda parts: dict(zip(value, parts, strict=True)))
        case list():
            return _nested(value, place, range(len(value)), list)
        case _:
            return Template(value, frozenset(), frozenset(), None)


def _nested(value: Any, place: str, keys: Any, build: Callable[[Iterator[Any]], Any]) -> Template:
    parts = [_template(value[key], f"{place}.{key}" if place else str(key)) for key in keys]
    if all(part.is_constant for part in parts):
        return Template(value, frozenset(), frozenset(), None)
    names = frozenset[str]().union(*(part.names for part in parts))
    node_ids = frozenset[tuple[str, str]]().union(*(part.node_ids for part in parts))
    return Template(value, names, node_ids, lambda scope: build(part.render(scope) for part in parts))


def _located(place: str, act: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return act(argument)
    except ExpressionError as error:
        error.place = place
        raise


@lru_cache(maxsize=4096)
def _text_code(source: str) -> _Code:
    return _parsed(source, _parse_text)


# Parsing


def _parsed(source: str, parse: Callable[[str], _Code]) -> _Code:
    try:
        if len(source) > MAX_SOURCE:
            raise _Refused(f"longer than {MAX_SOURCE} characters")
        return parse(source)
    except Exception as error:
        raise _failure(error, source) from error


def _parse_expression(source: str) -> _Code:
    wrapped = re.fullmatch(r"\s*\{\{-?(.*?)-?\}\}\s*", source, re.DOTALL)
    inner = wrapped[1] if wrapped else source
    if not inner.strip():
        raise _Refused("empty expression")
    parser = _Parser(_EXPRESSIONS, inner.strip(), state="variable")
    node = parser.parse_expression()
    if not parser.stream.eos:
        parser.fail(f"unexpected {parser.stream.current.value!r}")
    return _value_code(_EXPRESSIONS, source, node)


def _parse_text(source: str) -> _Code:
    tree = _Parser(_TEMPLATES, source).parse()
    match tree.body:
        case [nodes.Output(nodes=[node])] if not isinstance(node, nodes.TemplateData):
            return _value_code(_TEMPLATES, source, node)
        case _:
            return _Code(source, _TEMPLATES, tree.body, _run_text)


def _value_code(environment: _Environment, source: str, node: nodes.Expr) -> _Code:
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("_value", "store"), node, lineno=1)]
    return _Code(source, environment, body, _run_path if _is_path(node) else _run_value)


def _is_path(node: nodes.Expr) -> bool:
    """What it yields comes out of the scope as it is, and needs no look inside."""
    match node:
        case nodes.Getattr() | nodes.Getitem(arg=nodes.Const()):
            return _is_path(node.node)
        case _:
            return isinstance(node, nodes.Name)


class _Lexer(Lexer):
    def __init__(self, environment: _Environment) -> None:
        super().__init__(environment)
        for state in ("variable_begin", "block_begin"):  # before the operators, which have `|`
            self.rules[state].insert(-1, _Rule(re.compile(r"&&|\|\|"), "word", None))
            self.rules[state].insert(-1, _Rule(re.compile(r"!(?!=)"), "not", None))

    def tokeniter(self, *args: Any, **kwargs: Any) -> Iterator[tuple[int, str, str]]:
        words = {"&&": "and", "||": "or"}
        for line, token, text in super().tokeniter(*args, **kwargs):
            yield (line, "name", words[text]) if token == "word" else (line, token, text)


class _Parser(Parser):
    def parse_unary(self, with_filter: bool = True) -> nodes.Expr:
        if self.stream.current.type == "not":  # binds like `-`, tighter than Jinja's word `not`
            line = next(self.stream).lineno
            return nodes.Not(self.parse_unary(), lineno=line)
        return super().parse_unary(with_filter)


class _Rewrite(NodeTransformer):
    """Sends what the sandbox would do unseen through filters that nobody can name."""

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        return nodes.Const(None) if (node.name, node.ctx) == ("null", "load") else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:
        self.generic_visit(node)
        operands = [part for op in node.ops for part in (nodes.Const(op.op), op.expr)]
        return _filter(node.expr, "(compare)", *operands)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(nodes.Const(""), "(concat)", *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(node.node, "(slice)", *(end or nodes.Const(None) for end in ends))

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        node.expr2 = node.expr2 or nodes.Const(None)
        return self.generic_visit(node)

    def visit_List(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        literals = (nodes.Literal, nodes.Pair)
        is_fixed = all(isinstance(part, literals) for part in node.find_all(nodes.Node))
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_fixed or is_target else _filter(node, "(made)")

    visit_Tuple = visit_Dict = visit_List

    def visit_For(self, node: nodes.For) -> nodes.Node:
        step = _step(node)
        self.generic_visit(node)
        node.test = nodes.And(step, node.test) if node.test else None
        node.body.insert(0, nodes.ExprStmt(step))
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        step = _step(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(step))
        return node

    visit_CallBlock = visit_Macro

    def visit_Filter(self, node: nodes.Filter | nodes.Test) -> nodes.Node:
        kind, known = ("test", _TESTS) if isinstance(node, nodes.Test) else ("filter", _FILTERS)
        if node.name not in known:  # Jinja itself tells only at run time where it is in an `if`
            raise _Refused(f"no {kind} named {node.name!r}")
        return self.generic_visit(node)

    visit_Test = visit_Filter

    def refuse(self, node: nodes.Node) -> Never:
        raise _Refused("include, import, extends, block and autoescape are not available")

    visit_Include = visit_Import = visit_FromImport = visit_Extends = refuse
    visit_Block = visit_ScopedEvalContextModifier = refuse


def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _step(node: nodes.Node) -> nodes.Filter:
    """Pays for one run through the node's body."""
    parts = list(node.find_all(nodes.Node))
    text = sum(len(part.data) for part in parts if isinstance(part, nodes.TemplateData))
    return _filter(nodes.Const(_STEP + _NODE * len(parts) + text), "(step)")


# Running


_budget: ContextVar[list[int]] = ContextVar("budget")


class _Refused(Exception):
    """Not a ValueError: Jinja's filters swallow those."""


class _Code:
    def __init__(
        self,
        source: str,
        environment: _Environment,
        body: list[nodes.Node],
        run: Callable[[Iterator[str], Context], Any],
    ) -> None:
        node_ids = frozenset(_node_ids(nodes.Template(body, lineno=1)))
        tree = nodes.Template([_Rewrite().visit(node) for node in body], lineno=1)
        tree.set_environment(environment)
        self.names = frozenset(find_undeclared_variables(tree)) - _GLOBALS.keys()
        self.node_ids = node_ids if "nodes" in self.names else frozenset()
        self._root = environment.from_string(tree).root_render_func
        self._source, self._environment, self._run = source, environment, run

    def value(self, scope: Scope) -> Any:
        return self._bounded(scope, self._run)

    def truth(self, scope: Scope) -> bool:
        return bool(self._bounded(scope, _run_truth))

    def _bounded(self, scope: Scope, run: Callable[[Iterator[str], Context], Any]) -> Any:
        token = _budget.set([MAX_STEPS * _STEP])
        try:
            context = _Context(self._environment, scope)
            return run(self._root(context), context)
        except Exception as error:
            raise _failure(error, self._source) from error
        finally:
            _budget.reset(token)


def _node_ids(tree: nodes.Template) -> Iterator[str]:
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for part in tree.find_all((nodes.Getattr, nodes.Getitem)):
        match part:
            case nodes.Getattr(node=nodes.Name(name="nodes"), attr=node_id) if id(part) not in called:
                yield node_id
            case nodes.Getitem(node=nodes.Name(name="nodes"), arg=nodes.Const(value=str(node_id))):
                yield node_id


def _run_truth(pieces: Iterator[str], context: Context) -> bool:
    return bool(_run_raw(pieces, context))


def _run_value(pieces: Iterator[str], context: Context) -> Any:
    return _plain(_run_raw(pieces, context))


def _run_path(pieces: Iterator[str], context: Context) -> Any:
    value = _run_raw(pieces, context)
    return value if isinstance(value, (str, dict, list)) else _plain(value)


def _run_raw(pieces: Iterator[str], context: Context) -> Any:
    for _ in pieces:
        pass  # there is no text; running the assignment is the point
    return context.vars["_value"]


def _run_text(pieces: Iterator[str], context: Context) -> str:
    return _joined("", pieces)


def _failure(error: Exception, source: str) -> ExpressionError:
    match error:
        case RecursionError():
            reason = "nested too deeply"
        case TemplateSyntaxError():
            reason = error.message or "syntax error"
        case _:
            reason = str(error) or type(error).__name__
    return ExpressionError(f"{_short(reason)} in {_short(source)!r}")


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"


class _Absent(Undefined):
    @property
    def _undefined_message(self) -> str:
        return self._undefined_hint or f"{self._undefined_name!r} is missing"


class _Null(_Absent):
    """A missing name in an expression."""

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Null)

    def __hash__(self) -> int:
        return hash(None)


class _Missing(_Absent, StrictUndefined):
    """A missing name in a template."""


class _Context(Context):
    def __init__(self, environment: _Environment, scope: Scope) -> None:
        # Jinja's own copies the scope. What it sets up for inheritance is not needed.
        self.parent = scope  # type: ignore[assignment]  # it is only read
        self.vars = {}
        self.environment = environment
        self.eval_ctx = environment.eval_ctx
        self.exported_vars = set()
        self.name = None
        self.blocks = {}

    def resolve_or_missing(self, key: str) -> Any:
        for names in (self.vars, self.parent, _GLOBALS):
            if key in names:
                return names[key]
        return missing


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, undefined: type[Undefined]) -> None:
        # Jinja would run constant expressions, and their filters, while it compiles.
        super().__init__(undefined=undefined, finalize=_finalize, optimized=False, keep_trailing_newline=True)
        self.filters, self.tests = _FILTERS, _TESTS
        self.eval_ctx = EvalContext(self)

    @cached_property
    def lexer(self) -> Lexer:
        return _Lexer(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, (dict, Mapping)) and attribute in obj:
            return obj[attribute]
        if attribute.startswith("__" if isinstance(obj, (Mapping, Undefined)) else "_"):
            raise SecurityError(f"{attribute!r} is private")
        if isinstance(obj, Undefined):
            return self.undefined(obj._undefined_message, obj=obj, name=attribute)
        if isinstance(obj, (LoopContext, Namespace, _GroupTuple)):
            return super().getattr(obj, attribute)
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind) and attribute in methods:
                return partial(methods[attribute], obj)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str) or isinstance(obj, Undefined):
            return self.getattr(obj, str(argument))
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(function, _Null) and isinstance(function._undefined_obj, (Undefined, type(None))):
            return function  # a method of null is null, and so is what it returns
        _spend(_CALL)
        for argument in (*args, *kwargs.values()):
            _weigh(argument)
        return _made(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator, left, right:
            case "*", int(), int():
                _allow_bits(left.bit_length() + right.bit_length())
            case "**", int(), int():
                _allow_bits(left.bit_length() * right)
            case "*", int(), str() | list() | tuple():
                _allow(left * _weigh(right))
            case "*", str() | list() | tuple(), int():
                _allow(right * _weigh(left))
            case "%", str(), _:
                _allow(_formatted(left, right))
        return _made(self.binop_table[operator](left, right))


@pass_context  # so that Jinja does not call it while it compiles
def _finalize(context: Context, value: Any) -> str:
    return _text(value)


# Bounds


def _spend(units: int) -> None:
    budget = _budget.get()
    budget[0] -= units
    if budget[0] < 0:
        raise _Refused(f"more than {MAX_STEPS} steps")


def _allow(size: int) -> None:
    if size > MAX_SIZE:
        raise _Refused("the value is too large")


def _allow_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise _Refused(f"an integer of more than {MAX_BITS} bits")


def _touch(value: Any) -> None:
    """Pays for reading the value, but not what is inside of it."""
    if isinstance(value, (str, list, tuple, dict)):
        _spend(len(value) * (1 if isinstance(value, str) else _ITEM))


def _weigh(value: Any) -> int:
    """The size of the value with all that is inside of it, paid for."""
    size, pending = 1, [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, int):
            _allow_bits(part.bit_length())
        elif isinstance(part, (list, tuple, dict)):
            size += len(part) * _ITEM
            _allow(size)
            pending.extend(part)
            pending.extend(part.values() if isinstance(part, dict) else ())
    _allow(size)
    _spend(size)
    return size


def _made(value: Any) -> Any:
    if isinstance(value, (range, Iterator)):
        value = list(islice(value, MAX_SIZE // _ITEM + 1))
    if type(value) not in _LIGHT:
        _weigh(value)
    return value


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    foreseen = _FORESEEN.get(name)

    @wraps(function)  # and so keeps Jinja's marks
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _spend(_CALL)
        for argument in (*args, *kwargs.values()):
            _touch(argument)
        if foreseen:
            _allow(foreseen(*args, **kwargs))
        return _made(function(*args, **kwargs))

    return bounded


def _padded(text: str, width: int = 80, *_: Any) -> int:
    return width


def _scanned(text: str, chars: str | None = None, *_: Any, **__: Any) -> int:
    return len(text) * len(chars or "") // 64  # these search in quadratic time


def _replaced(text: str, old: str, new: str, *_: Any, **__: Any) -> int:
    return text.count(old) * len(new)


def _indented(text: str, width: int | str = 4, *_: Any, **__: Any) -> int:
    return (text.count("\n") + 1) * (width if isinstance(width, int) else len(width))


def _formatted(text: str, values: Any) -> int:
    marks = re.findall(r"%(?:\([^()]*\))?([^%a-zA-Z]*)", text)
    if any("*" in mark or "(" in mark for mark in marks):
        raise _Refused("'*' or '((' in a format")
    widths = sum(int(width) for mark in marks for width in re.findall(r"\d+", mark))
    return len(text) + widths + len(marks) * (_weigh(values) + MAX_BITS)


# Values


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    _weigh(value)
    return _as_json(value)


def _as_json(value: Any) -> Any:
    match value:
        case None | bool() | str() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case dict() | Mapping():
            return {_key(key): _as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_as_json(item) for item in value]
        case _Null():
            return None
        case Undefined():
            return value._fail_with_undefined_error()
        case _:
            raise _Refused(f"the {type(value).__name__} is not a JSON value")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise _Refused(f"the key {key!r} is not a string")
    return key


def _text(value: Any) -> str:
    match value:
        case str():
            _touch(value)
            return value
        case None:
            return ""
        case bool() | int() | float() | Undefined():
            return str(value)
        case _:
            return _json(value)


def _json(value: Any, indent: int | None = None) -> str:
    _allow(_weigh(value) * (indent or 0))
    return json.dumps(_plain(value), ensure_ascii=False, indent=indent)


def _joined(separator: str, values: Any) -> str:
    texts, size = [], 0
    for value in values:
        texts.append(_text(value))
        size += len(texts[-1]) + len(separator)
        _allow(size)
    return separator.join(texts)


@pass_context
def _join(context: Context, values: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        values = FILTERS["map"](context, values, attribute=attribute)
    return _joined(_text(d), values)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count)


def _truncate(text: str, *args: Any, **kwargs: Any) -> str:
    return str(FILTERS["truncate"](_TEMPLATES, text, *args, **kwargs))


def _compare(left: Any, *rest: Any) -> bool:
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        if type(left) not in _LIGHT and type(right) not in _LIGHT:
            _weigh(left)
            _weigh(right)
        if not _COMPARISONS[name](left, right):
            return False
        left = right
    return True


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: not _is_null(left) and not _is_null(right) and compare(left, right)


def _within(left: Any, right: Any) -> bool:
    return not _is_null(right) and left in right


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, _Null)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, *args, **kwargs: function(_text(value), *args, **kwargs)


def _format(text: str, /, *args: Any, **kwargs: Any) -> str:
    return _Formatter(_TEMPLATES).vformat(text, args, kwargs)


def _percent(value: Any, /, *args: Any, **kwargs: Any) -> str:
    text, values = _text(value), kwargs or args
    _allow(_formatted(text, values))
    return text % values


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        _allow(_weigh(value) + sum(map(int, re.findall(r"\d+", format_spec))))
        text = str(super().format_field(value, format_spec))
        _touch(text)
        return text

    def convert_field(self, value: Any, conversion: Any) -> Any:
        _weigh(value)
        return super().convert_field(value, conversion)


class _Namespace(Namespace):
    def __repr__(self) -> str:
        return "namespace"  # what it holds may be large


@pass_context
def _take_step(context: Context, units: int) -> bool:
    _spend(units)
    return True


# What there is


def _each(names: str, make: Callable[[str], Callable[..., Any]]) -> dict[str, Any]:
    return {name: make(name) for name in names.split()}


_LIGHT = (bool, float, type(None))

_FORESEEN: dict[str, Callable[..., int]] = {
    **_each("center ljust rjust zfill", lambda _: _padded),
    **_each("lstrip rfind rindex rpartition rsplit rstrip strip trim", lambda _: _scanned),
    "batch": lambda _, linecount, *__, **___: linecount * _ITEM,
    "indent": _indented,
    "replace": _replaced,
    "round": lambda _, precision=0, *__, **___: (MAX_SIZE + 1) * (abs(precision) > 300),
    "slice": lambda _, __, slices, *___, **____: slices * _ITEM,
    # A sum of lists would copy them again and again.
    "sum": lambda _, __, attribute=None, start=0: (MAX_SIZE + 1) * isinstance(start, (list, tuple)),
}

_FILTERS = {
    **_each(
        "abs batch count d default dictsort filesizeformat first float groupby int items last"
        " length list map max min reject rejectattr reverse round select selectattr slice sort sum"
        " unique",
        lambda name: _bounded(name, FILTERS[name]),
    ),
    **_each(
        "capitalize indent lower title upper wordcount",
        lambda name: _of_text(_bounded(name, FILTERS[name])),
    ),
    **_each("e escape", lambda name: _of_text(_bounded(name, lambda text: str(escape(text))))),
    "center": _of_text(_bounded("center", FILTERS["center"])),
    "format": _bounded("format", _percent),
    "join": _bounded("join", _join),
    "replace": _of_text(_bounded("replace", _replace)),
    "string": _bounded("string", _text),
    "tojson": _bounded("tojson", _json),
    "trim": _of_text(_bounded("trim", str.strip)),
    "truncate": _of_text(_truncate),
    "urlencode": _bounded(
        "urlencode",
        lambda value: FILTERS["urlencode"](value if isinstance(value, dict) else _text(value)),
    ),
    "(compare)": _compare,
    "(concat)": lambda *values: _made(_joined("", values)),
    "(made)": _made,
    "(slice)": _bounded("(slice)", lambda value, *ends: value[slice(*ends)]),
    "(step)": _take_step,
}

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "in": _within,
    "notin": lambda left, right: not _within(left, right),
}


def _comparison(name: str) -> Callable[[str], Callable[[Any, Any], bool]]:
    return lambda _: lambda left, right: _compare(left, name, right)


_TESTS = {
    **_each(
        "boolean defined divisibleby even false float integer iterable lower mapping number odd"
        " sameas sequence string true undefined upper",
        lambda name: _bounded(name, TESTS[name]),  # type: ignore[arg-type]  # Jinja: "function"
    ),
    **_each("none null", lambda _: _is_null),
    **_each("== eq equalto", _comparison("eq")),
    **_each("!= ne", _comparison("ne")),
    **_each("< lt lessthan", _comparison("lt")),
    **_each("<= le", _comparison("lteq")),
    **_each("> gt greaterthan", _comparison("gt")),
    **_each(">= ge", _comparison("gteq")),
    "in": _comparison("in")("in"),
}

_METHODS: dict[type, dict[str, Any]] = {
    str: {
        **_each(
            "capitalize casefold center count endswith find index isalnum isalpha isdecimal isdigit"
            " islower isnumeric isspace istitle isupper ljust lower lstrip partition removeprefix"
            " removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines"
            " startswith strip swapcase title upper zfill",
            lambda name: _bounded(name, getattr(str, name)),
        ),
        "format": _format,
        "join": _joined,
    },
    list: _each("copy count index", lambda name: _bounded(name, getattr(list, name))),
    tuple: _each("count index", lambda name: _bounded(name, getattr(tuple, name))),
    Mapping: {
        "copy": _bounded("copy", dict),
        "get": lambda mapping, *args: mapping.get(*args),
        "items": _bounded("items", lambda mapping: list(mapping.items())),
        "keys": _bounded("keys", list),
        "values": _bounded("values", lambda mapping: list(mapping.values())),
    },
    float: {"is_integer": float.is_integer},
}

_GLOBALS = {"dict": dict, "namespace": _Namespace, "range": safe_range}
_EXPRESSIONS: _Environment = _Environment(_Null)
_TEMPLATES: _Environment = _Environment(_Missing)
