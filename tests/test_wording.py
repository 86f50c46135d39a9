"""pydantic's messages in plain words."""

from __future__ import annotations

import pytest

from jamjet_kernel.wording import in_plain_words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Input should be a valid dictionary or instance of Edge", "must be a mapping"),
        ("Input should be a valid integer, unable to parse string as an integer", "must be a whole number"),
        ("Input should be 'on' or 'off'", "must be 'on' or 'off'"),
        ("String should have at least 1 character", "must have at least 1 character"),
        ("Value error, needs a name", "needs a name"),
        ("is required", "is required"),
    ],
)
def test_messages_lose_their_python(message: str, words: str) -> None:
    assert in_plain_words(message) == words
