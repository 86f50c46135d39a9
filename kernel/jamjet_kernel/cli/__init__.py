"""The `jamjet` command.

`app.py` is the list of commands, `commands/` holds them, `exit_codes.py` says what scripts can rely on.
What a command alone needs (HTTP, pydantic, the server) is imported when that command runs, so `--help` is quick.
"""

from __future__ import annotations


def main() -> None:
    from .app import app
    from .failures import told_clearly

    with told_clearly():
        app(prog_name="jamjet")
