"""A mapping that is a value and yet cheap to change.

What was changed lately lies as a small layer over a large one that versions share, so a change copies about the
square root of all there is. Keys keep the order in which they came.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")

_SMALL = 16


def changed(mapping: Mapping[str, V], changes: Mapping[str, V]) -> Mapping[str, V]:
    """The mapping with these changes."""
    if not isinstance(mapping, _Layers):
        return {**mapping, **changes} if len(mapping) < _SMALL else _Layers(mapping, dict(changes))
    recent = {**mapping.recent, **changes}
    if len(recent) < _SMALL or len(recent) ** 2 < len(mapping.base):
        return _Layers(mapping.base, recent)
    return _Layers({**mapping.base, **recent}, {})


def without(mapping: Mapping[str, V], keys: Iterable[str]) -> Mapping[str, V]:
    gone = frozenset(keys)
    return {key: value for key, value in mapping.items() if key not in gone} if gone else mapping


class _Layers(Mapping[str, V]):
    __slots__ = ("base", "recent")

    def __init__(self, base: Mapping[str, V], recent: dict[str, V]) -> None:
        self.base = base
        self.recent = recent

    def __getitem__(self, key: str) -> V:
        return self.recent[key] if key in self.recent else self.base[key]

    def get(self, key: str, default: V | None = None) -> V | None:  # type: ignore[override]  # plainer than typeshed's
        return self.recent[key] if key in self.recent else self.base.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.recent or key in self.base

    def __iter__(self) -> Iterator[str]:
        return iter({**self.base, **self.recent})

    def __len__(self) -> int:
        return len({**self.base, **self.recent})

    def items(self) -> ItemsView[str, V]:
        return {**self.base, **self.recent}.items()

    def __repr__(self) -> str:
        return repr({**self.base, **self.recent})
