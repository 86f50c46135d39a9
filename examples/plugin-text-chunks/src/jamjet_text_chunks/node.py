"""The node kind `text_chunks`."""

from __future__ import annotations

from itertools import islice

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from jamjet_kernel import NodeCall, NodeFailed, NodeResult

from .cutting import cut


class TextChunks(BaseModel):
    """Where a field holds a template, the rendered value is validated just before the node runs."""

    model_config = ConfigDict(extra="forbid")

    text: str
    size: int = Field(1000, ge=20, le=100_000, description="Characters in a chunk, at most.")
    overlap: int = Field(0, ge=0, description="Characters that a chunk repeats of the one before.")
    max_chunks: int = Field(1000, ge=1, description="A text that makes more is refused.")

    @field_validator("overlap")
    @classmethod
    def _is_half_a_chunk_at_most(cls, overlap: int, info: ValidationInfo) -> int:
        size = info.data.get("size")
        if size is not None and overlap > size // 2:
            raise ValueError(f"must be half of the size at most, which is {size // 2}")
        return overlap

    def chunks(self) -> list[tuple[int, str]]:
        """Raises ValueError when there are too many."""
        found = list(islice(cut(self.text, self.size, self.overlap), self.max_chunks + 1))
        if len(found) > self.max_chunks:
            raise ValueError(f"the text makes more than {self.max_chunks} chunks; raise size or max_chunks")
        return found


class TextChunksExecutor:
    kind = "text_chunks"
    config: type[BaseModel] = TextChunks

    async def execute(self, call: NodeCall) -> NodeResult:
        config: TextChunks = call.config
        try:
            chunks = config.chunks()
        except ValueError as error:
            raise NodeFailed(str(error), retryable=False) from error
        call.logger.info("%s cut its text into %d chunks", call.node_id, len(chunks))
        return NodeResult([text for _, text in chunks])
