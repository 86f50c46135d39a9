"""`jamjet tokens`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jamjet_kernel.cli.exit_codes import ExitCode

from .conftest import Jamjet


def test_a_token_is_made_used_and_revoked(jamjet: Jamjet, project: Path) -> None:
    made = jamjet("tokens", "create", "ci", "--role", "viewer", "--json").json

    allowed = jamjet("list", "--token", made["token"])
    refused = jamjet("tokens", "list", "--token", made["token"])
    revoked = jamjet("tokens", "revoke", made["token_id"])
    ended = jamjet("list", "--token", made["token"])

    assert allowed.code == ExitCode.OK
    assert (refused.code, "insufficient role — operator required" in refused.err) == (ExitCode.FAILED, True)
    assert (revoked.code, revoked.out) == (ExitCode.OK, f"{made['token_id']} is revoked\n")
    assert (ended.code, "invalid or expired token" in ended.err) == (ExitCode.FAILED, True)


def test_the_list_shows_what_a_token_is_worth(jamjet: Jamjet, project: Path) -> None:
    made = jamjet("tokens", "create", "nightly", "--role", "developer")
    token = jamjet("tokens", "create", "old", "--role", "viewer", "--json").json
    jamjet("tokens", "revoke", token["token_id"])

    listed = jamjet("tokens", "list").out.splitlines()

    assert "shown this once" in made.out
    assert "jam_" not in "".join(listed)
    assert any("nightly" in line and "good" in line for line in listed)
    assert any("old" in line and "revoked" in line for line in listed)


def test_a_span_of_time_counts_from_now(jamjet: Jamjet, project: Path) -> None:
    made = jamjet("tokens", "create", "ci", "--role", "viewer", "--expires", "2d", "--json").json

    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)

    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)


@pytest.mark.parametrize("expires", ["tomorrow", "0d", "-1d", "1y", "99999999w"])
def test_what_is_no_time_is_refused(jamjet: Jamjet, expires: str) -> None:
    said = jamjet("tokens", "create", "ci", "--role", "viewer", f"--expires={expires}")

    assert said.code == ExitCode.USAGE
    assert "is no time" in said.err
