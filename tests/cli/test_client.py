"""Server-sent events as the client reads them."""

from __future__ import annotations

from jamjet_kernel.cli.client import server_sent


def test_comments_and_other_fields_are_left_out() -> None:
    lines = [": keep-alive", "", "id: 1", "event: NodeCompleted", "data: {}", "", "data:a", "data: b", ""]

    assert list(server_sent(lines)) == ["{}", "a\nb"]


def test_an_event_that_was_cut_off_is_left_out() -> None:
    assert list(server_sent(["data: 1", "", "data: 2"])) == ["1"]
