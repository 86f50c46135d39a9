"""The audit log: looked through, verified, exported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from falcon.asgi import Request, Response

from ..core import chain_export
from ..core.chain import Anchor, Fault
from ..errors import Invalid, Problem
from ..ports import ChainEnd, Principal, SealedRecord
from ..runtime import Runtime
from . import cursors, models
from .answers import answer, timestamp
from .requests import no_query, principal_of, query

JSON_LINES = "application/jsonl"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Audit:
    def __init__(self, runtime: Runtime) -> None:
        self._log = runtime.audit

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.AuditQuery)
        position = cursors.read(asked.cursor, tuple[cursors.Number])
        if position and asked.offset:
            raise Invalid([Problem("offset", "cannot be combined with a cursor")])
        found, total = await self._log.page(
            principal_of(req),
            execution_id=asked.execution_id,
            actor_id=asked.actor_id,
            event_type=asked.event_type,
            since=_milliseconds(asked.since),
            until=_milliseconds(asked.until),
            limit=asked.limit + 1,
            offset=asked.offset,
            before=position[0] if position else None,
        )
        shown, cursor = cursors.page(found, asked.limit, lambda sealed: (sealed.sequence,))
        items = [_item(sealed) for sealed in shown]
        page = {"items": items, "total": total, "limit": asked.limit, "offset": asked.offset}
        answer(resp, {**page, "next_cursor": cursor})

    async def on_get_verify(self, req: Request, resp: Response) -> None:
        asked = query(req, models.AuditAnchor)
        verified = await self._log.verify(principal_of(req), _anchor(asked))
        report = {
            "valid": not verified.count,
            "records": verified.records,
            "problems": [_fault(fault) for fault in verified.faults],
            "problem_count": verified.count,
            "head": _head(verified.end),
        }
        answer(resp, report)

    async def on_get_export(self, req: Request, resp: Response) -> None:
        no_query(req)
        principal = principal_of(req)
        end = await self._log.end(principal)
        resp.content_type = JSON_LINES
        resp.set_header("Content-Disposition", 'attachment; filename="audit.jsonl"')
        resp.stream = self._lines(principal, end)

    async def on_get_key(self, req: Request, resp: Response) -> None:
        no_query(req)
        answer(resp, {"algorithm": "Ed25519", "public_key": self._log.public_key})

    async def _lines(self, principal: Principal, end: ChainEnd | None) -> AsyncIterator[bytes]:
        yield chain_export.header(principal.tenant_id, self._log.all_keys, end)
        async for portion in self._log.portions(principal.tenant_id, end):
            yield b"".join(map(chain_export.line, portion))


def _item(sealed: SealedRecord) -> dict[str, Any]:
    record = sealed.record
    assert record is not None
    return {
        "id": record.audit_id,
        "sequence": sealed.sequence,
        "execution_id": record.execution_id,
        "event_type": record.event_type,
        "actor_id": record.actor_id,
        "created_at": timestamp(record.created_at),
        "resource": record.resource,
        "request_id": record.request_id,
        "address": record.address,
        "data": _data(record.data),
        "digest": sealed.digest.hex(),
    }


def _data(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError):  # somebody changed it in the database; `verify` tells where
        return None


def _fault(fault: Fault) -> dict[str, Any]:
    return {"sequence": fault.sequence, "kind": fault.kind, "message": fault.message}


def _head(end: ChainEnd | None) -> dict[str, Any]:
    return {"sequence": end.sequence if end else 0, "digest": end.digest.hex() if end else None}


def _anchor(asked: models.AuditAnchor) -> Anchor | None:
    if asked.expected_sequence is None and asked.expected_digest is None:
        return None
    if asked.expected_sequence is None or asked.expected_digest is None:
        raise Invalid([Problem("expected_digest", "must be given together with expected_sequence")])
    return Anchor(asked.expected_sequence, bytes.fromhex(asked.expected_digest))


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)
