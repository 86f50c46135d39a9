"""`POST /text-chunks`: how a text would be cut, before a workflow does it."""

from __future__ import annotations

from falcon.asgi import Request, Response
from pydantic import BaseModel, ValidationError

from jamjet_kernel import Invalid, Operation, Problem, Route

from .node import TextChunks


class Chunk(BaseModel):
    start: int
    text: str


class Preview(BaseModel):
    chunks: list[Chunk]


class PreviewResource:
    async def on_post(self, req: Request, resp: Response) -> None:
        try:
            chunks = TextChunks.model_validate(await req.get_media()).chunks()
        except ValidationError as error:
            raise Invalid([Problem(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]) from None
        except ValueError as error:
            raise Invalid(str(error)) from None
        resp.media = Preview(chunks=[Chunk(start=start, text=text) for start, text in chunks]).model_dump()


ROUTE = Route(
    "/text-chunks",
    PreviewResource(),
    {"POST": Operation("Cut a text into chunks", "read", {200: Preview}, body=TextChunks, tag="text chunks")},
)
