"""The timeline of an execution, as pages and as a stream; and events from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from falcon.asgi import Request, Response, SSEvent

from ..core import events as ev
from ..errors import Invalid, Problem
from ..ports import Operation, Principal, Recorded
from ..runtime import Runtime
from . import cursors, models
from .answers import answer, encode, timestamp
from .requests import body, principal_of, query

STREAM = "text/event-stream"
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """`UNSET` for a field that is always written."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return msgspec.UNSET if field.default is msgspec.NODEFAULT else field.default


TOLD = {"attempt", "decision", "input", "iteration", "output", "payload"}
"""What an event of a kind that has such a field always tells, also where the log leaves out what is the default."""

_DEFAULTS = {
    kind.__name__: {
        field.name: msgspec.Raw(msgspec.json.encode(_default(field)))
        for field in msgspec.structs.fields(kind)
        if field.name in TOLD and _default(field) is not msgspec.UNSET
    }
    for kind in get_args(ev.Event)
}


@dataclass(frozen=True)
class Streamed(Operation):
    """An operation that answers a stream of events too, to who accepts `text/event-stream`."""


class Events:
    """With `Accept: text/event-stream` each event is sent once as it comes, until the execution has ended: its sequence
    as `id`, its kind as `event`, itself as `data`. A client that lost the connection says in `Last-Event-ID` which
    event it saw last."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response, execution_id: str) -> None:
        asked = query(req, models.EventsQuery)
        if _prefers_a_stream(req):
            await self._stream(req, resp, execution_id, asked)
        else:
            await self._page(req, resp, execution_id, asked)

    async def on_post_external(self, req: Request, resp: Response, execution_id: str) -> None:
        given, once = await body(req, models.ExternalEvent, self._runtime.settings.max_body_bytes)
        await self._runtime.external_event(
            principal_of(req), execution_id, correlation_key=given.correlation_key, payload=given.payload, once=once
        )
        answer(resp, {"execution_id": execution_id, "accepted": True})

    async def _page(self, req: Request, resp: Response, execution_id: str, asked: models.EventsQuery) -> None:
        limit = asked.limit or 1000
        position = cursors.read(asked.cursor, tuple[cursors.Number])
        if position and asked.after is not None:
            raise Invalid([Problem("after", "cannot be combined with a cursor")])
        after = position[0] if position else asked.after or 0
        found = await self._runtime.events(principal_of(req), execution_id, after=after, limit=limit + 1)
        shown, cursor = cursors.page(found, limit, lambda recorded: (recorded.sequence,))
        answer(resp, {"events": [_event(recorded) for recorded in shown], "next_cursor": cursor})

    async def _stream(self, req: Request, resp: Response, execution_id: str, asked: models.EventsQuery) -> None:
        for name in ("limit", "cursor"):
            if getattr(asked, name) is not None:
                raise Invalid([Problem(name, "is for pages; a stream goes on after `Last-Event-ID` or `after`")])
        principal = principal_of(req)
        after = _last_event_id(req, asked.after or 0)
        progress = (await self._runtime.execution(principal, execution_id)).progress
        if progress.is_terminal and after >= progress.sequence:
            # "Clients will reconnect if the connection is closed; a client can be told to stop reconnecting using the
            # HTTP 204 No Content response code" (HTML, server-sent events)
            resp.status = 204
            return
        resp.cache_control = ["no-store"]
        resp.set_header("X-Accel-Buffering", "no")
        resp.sse = self._follow(principal, execution_id, after)

    async def _follow(self, principal: Principal, execution_id: str, after: int) -> AsyncIterator[SSEvent]:
        yield SSEvent(comment="follow", retry=1000)
        async for recorded in self._runtime.follow(principal, execution_id, after=after):
            yield SSEvent(comment="keep-alive") if recorded is None else _sent(recorded)


def _prefers_a_stream(req: Request) -> bool:
    return STREAM in req.accept and req.client_prefers((STREAM, "application/json")) == STREAM


def _last_event_id(req: Request, after: int) -> int:
    """A browser that reconnects repeats the URL, so the header knows better."""
    said = req.get_header("Last-Event-ID")
    if not said:
        return after
    if not said.isascii() or not said.isdigit() or len(said) > 15:
        raise Invalid([Problem("Last-Event-ID", f"must be the sequence of an event, not {said!r}")])
    return int(said)


def _sent(recorded: Recorded) -> SSEvent:
    event = _event(recorded)
    return SSEvent(event=event["kind"], event_id=str(recorded.sequence), data=encode(event))


def _event(recorded: Recorded) -> dict[str, Any]:
    """What is particular to the kind is passed on as it is stored, unread."""
    fields = FIELDS.decode(recorded.body)
    node_id = fields.pop("node_id", None)
    kind = msgspec.json.decode(fields.pop("kind"), type=str)
    return {
        "sequence": recorded.sequence,
        "kind": kind,
        "node_id": node_id,
        "created_at": timestamp(msgspec.json.decode(fields.pop("at"), type=int)),
        "data": {**_DEFAULTS[kind], **fields},
    }
