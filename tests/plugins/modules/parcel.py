"""A storage driver for URLs like `parcel:///folder/file.db`: SQLite under another name."""

from __future__ import annotations

from jamjet_kernel import Settings, Storage, hookimpl


@hookimpl
def open_storage(url: str, settings: Settings) -> Storage | None:
    # Imported here, so that a test sees which drivers a start imports.
    from jamjet_storage_sqlite import open_storage as open_sqlite

    place = url.removeprefix("parcel://")
    return None if place == "/nowhere" else open_sqlite(place, settings)
