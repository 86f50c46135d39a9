"""The executor keeps the contract of all executors, and cuts where it says."""

from __future__ import annotations

from typing import Any

import pytest
from jamjet_text_chunks.cutting import cut
from jamjet_text_chunks.node import TextChunks, TextChunksExecutor
from pydantic import ValidationError

from jamjet_kernel import NodeCall
from jamjet_kernel.testing import ExecutorContract

ARTICLE = "One sentence. Another one!\n\nA paragraph, which is longer. " + "word " * 40


def call(**config: Any) -> NodeCall:
    return NodeCall("exec_1", "cut", 1, TextChunks.model_validate(config), input={}, idempotency_key="key")


class TestTextChunksExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> TextChunksExecutor:
        return TextChunksExecutor()

    @pytest.fixture
    def good_call(self) -> NodeCall:
        return call(text=ARTICLE, size=40)

    @pytest.fixture
    def failing_call(self) -> NodeCall:
        return call(text=ARTICLE, size=40, max_chunks=2)


def test_it_cuts_at_the_end_of_a_paragraph_a_sentence_or_a_word() -> None:
    chunks = [text for _, text in cut(ARTICLE, size=40)]

    assert chunks[:3] == ["One sentence. Another one!\n\n", "A paragraph, which is longer. ", "word " * 8]


@pytest.mark.parametrize("overlap", [0, 7, 20])
@pytest.mark.parametrize("text", [ARTICLE, "x" * 205, " ", ""])
def test_nothing_is_lost_and_no_chunk_is_too_long(text: str, overlap: int) -> None:
    whole = ""
    for start, chunk in cut(text, 40, overlap):
        assert start <= len(whole)
        assert len(chunk) <= 40
        whole = whole[:start] + chunk

    assert whole == text


def test_an_overlap_leaves_room_for_something_new() -> None:
    with pytest.raises(ValidationError, match="half of the size at most, which is 10"):
        TextChunks(text="a", size=20, overlap=11)
