"""Distributions as pip would leave them: a module and its `.dist-info` in a folder on the path."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = Path(__file__).parent / "modules"


class Environment:
    """Installs distributions into folders of their own, for this process and those that it starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def install(
        self,
        module: str,
        source: str | None = None,
        *,
        distribution: str | None = None,
        group: str = "jamjet.plugins",
        **points: str,
    ) -> Path:
        """The module is one of `modules/`, or the source; without entry points it is one by its own name."""
        distribution = distribution or module
        site = self._folder / distribution
        if source is None:
            site.mkdir(exist_ok=True)
            shutil.copy(MODULES / f"{module}.py", site)
        else:
            write(site / f"{module}.py", source)
        info = site / f"{distribution}-1.2.dist-info"
        write(info / "METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in (points or {module: module}).items()]
        write(info / "entry_points.txt", "\n".join([f"[{group}]", *lines, ""]))
        if str(site) not in sys.path:
            self._monkeypatch.syspath_prepend(site)
            path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
            self._monkeypatch.setenv("PYTHONPATH", path)
        return info

    def module(self, name: str) -> object:
        return importlib.import_module(name)

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self._folder)):
                del sys.modules[name]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    for name in [name for name in os.environ if name.startswith("JAMJET_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "site"
    folder.mkdir()
    environment = Environment(folder, monkeypatch)
    yield environment
    environment.forget()
