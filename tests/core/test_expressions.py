"""Conditions, templates and input mappings."""

from __future__ import annotations

from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import FrozenInstanceError
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jamjet_kernel.core.expressions import ExpressionError, expression, template

SCOPE: dict[str, Any] = {
    "state": {
        "confidence": 0.9,
        "kind": "a",
        "zip": "00123",
        "sql": "select 1",
        "count": 3,
        "nothing": None,
        "flag": True,
        "docs": [{"title": "x", "score": 2}, {"title": "y", "score": 5}],
        "items": [1, 2],
        "keys": "mine",
        "get": {"deep": 1},
        "_id": 7,
    },
    "output": {"status": "ok"},
    "nodes": {"search": {"output": ["r"]}},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
plain_text = st.text().filter(lambda text: not any(mark in text for mark in ("{{", "{%", "{#")))
constants = st.recursive(
    st.none() | st.booleans() | st.integers() | plain_text,
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
WORDS = """
state a b.c 'x' "y" 1 0 2.5 10 -3 null none true ( ) [ ] { } , : . | ~ + - * / // ** % ! != && ||
== < >= = in not is if else and or defined length join default map list sort sum round upper()
.items format replace {{ }} {% %} {# #} for endfor set range(3) \\ é # @ $
"""
soup = st.lists(
    st.sampled_from(WORDS.split()) | st.text(max_size=3),
    max_size=9,
).map(" ".join)


def evaluate(source: str, scope: Any = SCOPE) -> Any:
    return expression(source).evaluate(scope)


def render(value: Any, scope: Any = SCOPE) -> Any:
    return template(value).render(scope)


# Expressions


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("state.confidence >= 0.8 and state.kind in ['a', 'b']", True),
        ('output.status == "ok"', True),
        ("'SELECT' in state.sql.upper()", True),
        ("state.docs | map(attribute='title') | join('\n')", "x\ny"),
        ("state.docs | selectattr('score', '>', 3) | list", [{"title": "y", "score": 5}]),
        ("state.docs | sum(attribute='score')", 7),
        ("state.docs | sort(attribute='score', reverse=true) | first", {"title": "y", "score": 5}),
        ("state.docs | length > 1", True),
        ("nodes.search.output[0]", "r"),
        ("nodes['search'].output", ["r"]),
        ("[3, 1, 3] | unique | sort", [1, 3]),
        ("[1, 2, 3] | batch(2, fill_with=0)", [[1, 2], [3, 0]]),
        ("{'b': 1, 'a': 2} | dictsort", [["a", 2], ["b", 1]]),
        ("2.345 | round(1, method='floor')", 2.3),
        ("'7' | int + '0.5' | float", 7.5),
        ("'a b/ü' | urlencode", "a%20b/%C3%BC"),
        ("' a ' | trim | upper | replace('A', 'b')", "b"),
        ("{'a': '<'} | tojson", '{"a": "<"}'),
        ("'%s-%03d' % ('x', 7)", "x-007"),
        ("'{}-{:>3}'.format('x', 7)", "x-  7"),
        ("state.sql[:6]", "select"),
        ("1 < state.count < 5", True),
        ("5 < state.count < 1", False),
        ("range(3)", [0, 1, 2]),
        ("(1, 2)", [1, 2]),
        ("'a' if state.flag else 'b'", "a"),
        ("'a' if not state.flag", None),
        ("state.kind is string and state.count is divisibleby 3", True),
        ("20000000 * 1.5", 30000000.0),
    ],
)
def test_jinja_expressions_evaluate_to_native_values(source: str, value: Any) -> None:
    assert evaluate(source) == value


@pytest.mark.parametrize("source", ["missing", "state.missing", "missing.a.b['c'].d", "state.nothing.a.b"])
def test_a_missing_name_is_null_in_an_expression(source: str) -> None:
    assert evaluate(source) is None
    assert evaluate(f"{source} == null") is True
    assert evaluate(f"{source} is none") is True
    assert evaluate(f"{source} is defined") is False
    assert evaluate(f"[{source}, {{'a': {source}}}]") == [None, {"a": None}]


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("null", ["missing", "state.missing.deep", "state.nothing"])
def test_a_comparison_with_null_is_false(operator: str, null: str) -> None:
    assert evaluate(f"{null} {operator} 3") is False
    assert evaluate(f"3 {operator} {null}") is False


def test_nothing_is_in_null() -> None:
    assert evaluate("'a' in missing") is False
    assert evaluate("'a' not in state.nothing") is True


def test_a_method_of_null_is_null() -> None:
    assert evaluate("'SELECT' in state.missing.upper()") is False


def test_calling_a_function_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="'missing' is missing"):
        evaluate("missing()")


def test_default_replaces_a_missing_name() -> None:
    assert evaluate("state.missing.deep | default('x')") == "x"


def test_keys_come_before_methods() -> None:
    assert evaluate("state.items") == [1, 2]
    assert evaluate("state.keys") == "mine"
    assert evaluate("state.get.deep") == 1
    assert evaluate("[state] | map(attribute='items') | first") == [1, 2]


def test_methods_of_objects_work_where_there_is_no_such_key() -> None:
    assert evaluate("output.items()") == [["status", "ok"]]
    assert evaluate("output.get('nope', 1)") == 1


def test_a_method_itself_is_not_a_value() -> None:
    with pytest.raises(ExpressionError, match="not a JSON value"):
        evaluate("output.items")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("state.flag && !state.missing", True),
        ("state.missing || state.kind", "a"),
        ("state.kind != 'b'", True),
        ("!state.flag == false", True),
        ("state.flag == !state.missing", True),
        ("!state.missing is defined", True),
        ("!!state.flag", True),
        ("'a && b || !c' + \"!\"", "a && b || !c!"),
        ("[true, True, false, False, null, None]", [True, True, False, False, None, None]),
        ("{'null': 1}.null", 1),
    ],
)
def test_the_operators_and_words_of_other_languages_are_understood(source: str, value: Any) -> None:
    assert evaluate(source) == value


def test_braces_around_a_whole_expression_are_stripped() -> None:
    assert evaluate("{{ state.count + 1 }}") == 4
    assert evaluate(" {{- {'a': {}} -}} ") == {"a": {}}


def test_a_condition_is_true_or_false() -> None:
    assert expression("state.docs").is_true(SCOPE) is True
    assert expression("state.missing").is_true(SCOPE) is False


@pytest.mark.parametrize(
    "source",
    [
        "",
        "  ",
        "{{ }}",
        "{{ a }} and {{ b }}",
        "a b",
        "a, b",
        "(",
        "a &&",
        "a ! b",
        "{% if a %}",
        "x" * 70_000,
    ],
)
def test_what_is_no_expression_is_refused_when_parsed(source: str) -> None:
    with pytest.raises(ExpressionError):
        expression(source)


def test_an_error_says_what_is_wrong_and_quotes_the_source() -> None:
    with pytest.raises(ExpressionError, match=r"division by zero in '1 / 0'"):
        evaluate("1 / 0")


def test_a_long_source_is_quoted_shortened() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate("1 / 0" + " " * 5000)

    assert len(str(caught.value)) < 300


def test_any_mapping_is_a_scope() -> None:
    scope = ChainMap[str, Any]({"a": 1}, {"b": MappingProxyType({"c": 2})})

    assert evaluate("a + b.c", scope) == 3
    assert evaluate("b", scope) == {"c": 2}


def test_a_scope_shadows_the_globals() -> None:
    assert evaluate("range", {"range": 5}) == 5


def test_an_expression_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        expression("a").source = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "node_ids"),
    [
        ("nodes.a.output > nodes['b-1'].output.n", {"a", "b-1"}),
        ("'x' in nodes.a.output | default([])", {"a"}),
        ("nodes[state.which].output", set()),
        ("nodes.get('a') or nodes.items()", set()),
        ("state.nodes.a", set()),
    ],
)
def test_node_ids_are_the_nodes_that_are_named(source: str, node_ids: set[str]) -> None:
    assert expression(source).node_ids == node_ids


def test_the_node_ids_of_a_template_have_their_place() -> None:
    mapping = {"q": ["{{ nodes.a.output }}"], "t": "{{ nodes['b'].status }}!", "c": "nodes.c"}

    assert template(mapping).node_ids == {("q.0", "a"), ("t", "b")}
    assert template("{% set nodes = {'x': 1} %}{{ nodes.x }}").node_ids == set()


def test_names_are_what_the_scope_must_bring() -> None:
    condition = expression("state.a | length > nodes.x.output and range(n) != null")
    mapping = template({"a": ["{{ x.y }}", "{% for i in z %}{{ i }}{% endfor %}"]})

    assert condition.names == {"state", "nodes", "n"}
    assert mapping.names == {"x", "z"}


# Templates


@given(json_values)
def test_any_value_passes_through_a_template_unchanged(value: Any) -> None:
    assert render("{{ x }}", {"x": value}) is value or render("{{ x }}", {"x": value}) == value


@given(json_values)
def test_any_value_passes_through_an_expression_unchanged(value: Any) -> None:
    assert evaluate("(x)", {"x": value}) == value
    assert evaluate("[x, {'y': x}]", {"x": value}) == [value, {"y": value}]


@given(constants)
def test_a_value_without_templates_is_returned_as_it_is(value: Any) -> None:
    made = template(value)

    assert made.is_constant
    assert made.render({}) is value


def test_a_single_expression_keeps_its_type() -> None:
    assert render("{{ state.zip }}") == "00123"
    assert render("{{ state.docs }}") is SCOPE["state"]["docs"]
    assert render("{{ state.nothing }}") is None
    assert render("{{ state.flag }}") is True
    assert render("{{ state.count * 2 }}") == 6
    assert render("{{ '[1]' ~ '' }}") == "[1]"


def test_text_around_an_expression_makes_it_text() -> None:
    assert render("{{ state.count }}!") == "3!"
    assert render("a {{ state.zip }}\n") == "a 00123\n"


def test_in_text_null_is_empty_and_containers_are_json() -> None:
    assert render("<{{ state.nothing }}>") == "<>"
    assert render("{{ state.items }} {{ {'ä': null} }}") == '[1, 2] {"ä": null}'
    assert render("{{ state.flag }} {{ state.confidence }}") == "True 0.9"
    assert render("{{ [1, null, 'a'] | join('-') }}!") == "1--a!"


def test_nothing_is_escaped_for_html() -> None:
    assert render("<b>{{ '<i> & \"' }}</b>") == '<b><i> & "</b>'


def test_templates_are_found_anywhere_inside_a_value() -> None:
    value = {"{{ key }}": [1, {"a": "{{ state.count }}"}], "b": "n={{ state.count }}", "c": None}

    assert render(value) == {"{{ key }}": [1, {"a": 3}], "b": "n=3", "c": None}


@pytest.mark.parametrize(
    "source",
    [
        "{{ nope }}",
        "a {{ nope.b.c }}",
        "{{ state.nope['x'] }}",
        "{% if state.nope %}{% endif %}",
        "{{ [nope] }}",
        "{{ nope > 1 }}",
        "{{ nope in [1] }}",
        "{{ 1 in nope }}",
        "{{ nope | upper }}",
        "{{ state.docs | map(attribute='nope') }}",
    ],
)
def test_a_missing_name_in_a_template_is_an_error_that_names_it(source: str) -> None:
    with pytest.raises(ExpressionError, match="'nope' is missing"):
        render(source)


def test_default_and_defined_mend_a_missing_name_in_a_template() -> None:
    assert render("{{ state.nope.deep | default('x') }}") == "x"
    assert render("{% if nope is defined %}a{% else %}b{% endif %}") == "b"


def test_statements_work_and_understand_the_operators() -> None:
    loop = "{% for d in docs if d.score > 1 && !d.hidden | default(false) %}"
    body = "{{ loop.index }}{{ d.title }} {% endfor %}"

    assert render(loop + body, SCOPE["state"]) == "1x 2y "


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% set a = 1 %}{{ a }}", "1"),
        ("{% set a %}b{{ 1 }}{% endset %}{{ a }}", "b1"),
        ("{% macro hi(n) %}hi {{ n }}{% endmacro %}{{ hi('x') }}", "hi x"),
        (
            "{% set t = namespace(n=0) %}{% for d in state.docs %}{% set t.n = t.n + d.score %}{% endfor %}{{ t.n }}",
            "7",
        ),
        (
            "{% for i in [1, [2, [3]]] recursive %}"
            "{% if i is iterable %}{{ loop(i) }}{% else %}{{ i }}{% endif %}{% endfor %}",
            "123",
        ),
        ("{% filter upper %}a{% endfilter %}", "A"),
        ("{% for g in state.docs | groupby('title') %}{{ g.grouper }}{% endfor %}", "xy"),
    ],
)
def test_statements_of_jinja_work(source: str, text: str) -> None:
    assert render(source) == text


def test_raw_text_keeps_its_braces() -> None:
    assert render("{% raw %}{{ x }}{% endraw %}") == "{{ x }}"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("{{", ""),
        ({"headers": {"Authorization": "{{ a"}}, "headers.Authorization"),
        ({"items": [1, 2, "{% if %}"]}, "items.2"),
        (["{{ a b }}"], "0"),
    ],
)
def test_a_syntax_error_tells_its_place(value: Any, place: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        template(value)

    assert caught.value.place == place


def test_an_error_while_rendering_tells_its_place_too() -> None:
    made = template({"a": ["{{ nope }}"]})

    with pytest.raises(ExpressionError) as caught:
        made.render({})

    assert caught.value.place == "a.0"


@pytest.mark.parametrize(
    "source",
    [
        "{% include 'x' %}",
        "{% if false %}{% include 'x' %}{% endif %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ [1] | random }}",
        "{% if false %}{{ 1 | nope }}{% endif %}",
        "{{ 1 is nope }}",
    ],
)
def test_what_is_not_available_is_refused_when_parsed(source: str) -> None:
    with pytest.raises(ExpressionError, match=r"not available|no filter|no test"):
        template(source)


@pytest.mark.parametrize("source", ["lipsum()", "cycler(1)", "joiner()", "[1] | map('random') | list"])
def test_there_is_nothing_random_or_stateful(source: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(source)


# The sandbox


@pytest.mark.parametrize(
    "source",
    [
        "''.__class__",
        "state.__class__",
        "missing.__class__",
        "''['__class__']",
        "range.__globals__",
        "state.docs.__class__.__mro__",
        "'{0.__class__}'.format(1)",
        "'{0[__class__]}'.format(state)",
        "[''] | map(attribute='__class__') | list",
        "'a'.encode()",
        "state.docs.append(1)",
        "state.docs.clear()",
        "output.update({'a': 1})",
        "(1).to_bytes(10)",
        "'' | attr('__class__')",
        "dict.fromkeys([1])",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(source)


def test_a_key_may_begin_with_an_underscore() -> None:
    assert evaluate("state._id") == 7
    assert evaluate("state._nope") is None


DOUBLING = "".join(
    f"{{% macro m{n}() %}}{{{{ m{n - 1}() }}}}{{{{ m{n - 1}() }}}}{{% endmacro %}}" for n in range(1, 60)
)


def growing(start: str, following: str) -> str:
    loop = f"{{% for i in range(200) %}}{{% set ns.a = {following} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(a={start}) %}}{loop}{{{{ ns.a }}}}"


@pytest.mark.parametrize(
    "source",
    [
        "10 ** (10 ** 10)",
        "9 ** (9 ** 9)",
        "1 << 999999",
        "'a' * 10 ** 9",
        "10 ** 9 * 'a'",
        "[0] * 10 ** 9",
        "(0,) * 10 ** 9",
        "'%999999999d' % 1",
        "'%.999999999f' % 1",
        "'%(a)999999999d' % {'a': 1}",
        "'%((a)b)999999999d' % {'(a)b': 1}",
        "'%*d' % (999999999, 1)",
        "'%999999999d' | format(1)",
        "('%(a)s' * 100000) % {'a': 'x' * 100000}",
        "'{:>999999999}'.format(1)",
        "'{:>{}}'.format(1, 999999999)",
        "('{0}' * 100000).format('x' * 100000)",
        "'x'.ljust(10 ** 9)",
        "'x'.rjust(10 ** 9)",
        "'x'.center(10 ** 9)",
        "'x'.zfill(10 ** 9)",
        "'x' | center(10 ** 9)",
        "'x' | indent(10 ** 9)",
        "('a' * 1000).replace('a', 'b' * 100000)",
        "('a' * 1000) | replace('a', 'b' * 100000)",
        "('x' * 1000000).join(['a'] * 1000)",
        "(['a' * 1000000] * 5) * 5 | join",
        "range(10 ** 9)",
        "1 | round(-10 ** 9)",
        "1 | round(10 ** 9, 'floor')",
        "[1] | batch(10 ** 9, 'x') | list",
        "[1] | slice(10 ** 9) | list",
        "[1] | slice(10 ** 9, fill_with=0) | list",
        "[range(99999) | list] | sum(start=[])",
        "[[1]] | tojson(indent=10 ** 9)",
        "('a' * 5000000).rfind('b' + 'a' * 2500000)",
        "('a' * 5000000).strip('b' * 1000000)",
        "range(99999) | map('replace', 'x', 'y' * 100000) | list",
        "'x' * 9000000 ~ 'x' * 9000000",
        "0x" + "f" * 60000,
        "9" * 60000,
        "1e999",
        "'nan' | float",
        "(" * 30000,
        "[" * 5000 + "]" * 5000,
        "!" * 20000 + "1",
        "-" * 20000 + "1",
        "not " * 10000 + "1",
        "1" + "+1" * 20000,
        "a" + ".a" * 20000,
        "a" + "|upper" * 9000,
    ],
)
def test_an_attack_in_an_expression_is_an_error(source: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) if range(99999) | sum < 0 %}{% endfor %}",
        "{% for i in range(99999) %}" + "x" * 60000 + "{% endfor %}",
        "{% for i in range(99999) %}{% if big | upper == big %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{% set x = big[1:] %}{% endfor %}",
        "{% for i in range(99999) %}{% if rows == rows %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{{ i }}{{ big }}{% endfor %}",
        "{% macro m0() %}x{% endmacro %}" + DOUBLING + "{{ m59() }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% endif %}{% endmacro %}{{ m(80, 'x') }}",
        "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}",
        growing("'x'", "ns.a ~ ns.a"),
        growing("'x'", "ns.a + ns.a"),
        growing("9", "ns.a * ns.a"),
        growing("[1]", "[ns.a, ns.a]"),
        growing("[1]", "(ns.a, ns.a)"),
        growing("[1]", "{'x': ns.a, 'y': ns.a}"),
        growing("[1]", "dict(x=ns.a, y=ns.a)"),
        growing("[1]", "[1] | batch(9, ns.a) | list"),
        growing("[1]", "['x', 'y'] | map('int', ns.a) | list"),
    ],
)
def test_an_attack_in_a_template_is_an_error(source: str) -> None:
    scope = {"big": "x" * 1_000_000, "rows": [[n] for n in range(10_000)]}

    with pytest.raises(ExpressionError):
        render(source + " ", scope)


def test_a_value_that_is_nested_too_deeply_is_an_error() -> None:
    value: Any = "{{ a }}"
    for _ in range(5000):
        value = [value]

    with pytest.raises(ExpressionError, match="too deeply"):
        template(value)


def test_every_evaluation_has_a_budget_of_its_own_on_any_thread() -> None:
    made = template("{% for i in range(20000) %}{{ n }}{% endfor %}")

    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda n: made.render({"n": n}), range(8)))

    assert texts == [str(n) * 20000 for n in range(8)]


SHAPES = ["{}", "{{{{ {} }}}}", "a {{{{ {} }}}}", "{{% if {} %}}b{{% endif %}}"]


@given(soup | st.text(max_size=30))
def test_any_text_as_an_expression_is_evaluated_or_refused(source: str) -> None:
    with suppress(ExpressionError):
        expression(source).evaluate(SCOPE)


@given(soup | st.text(max_size=30), st.sampled_from(SHAPES))
def test_any_text_as_a_template_is_rendered_or_refused(source: str, shape: str) -> None:
    with suppress(ExpressionError):
        template(shape.format(source)).render(SCOPE)
