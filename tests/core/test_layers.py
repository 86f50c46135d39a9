"""A mapping of layers is a mapping like any other."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from jamjet_kernel.core.layers import changed, without

changes = st.lists(st.dictionaries(st.integers(0, 60).map(str), st.integers(), max_size=5), max_size=80)


@given(changes)
def test_it_holds_what_a_dict_would_hold_in_the_same_order(changes: list[dict[str, int]]) -> None:
    layers: Mapping[str, int] = {}
    plain: dict[str, int] = {}

    for change in changes:
        layers = changed(layers, change)
        plain.update(change)

    assert list(layers.items()) == list(plain.items())
    assert list(layers) == list(plain)
    assert len(layers) == len(plain)
    assert all(layers[key] == layers.get(key) == value for key, value in plain.items())
    assert "nowhere" not in layers
    assert layers.get("nowhere") is None


def test_what_was_before_a_change_stays_as_it_was() -> None:
    before = changed(dict.fromkeys(map(str, range(100)), 0), {"5": 1})

    after = changed(before, {"5": 2, "new": 3})

    assert (before["5"], "new" in before) == (1, False)
    assert (after["5"], after["new"]) == (2, 3)


def test_keys_can_be_taken_out() -> None:
    mapping = changed(dict.fromkeys(map(str, range(100)), 0), {"5": 1})

    assert set(without(mapping, ["5", "7"])) == set(mapping) - {"5", "7"}
    assert without(mapping, []) is mapping
