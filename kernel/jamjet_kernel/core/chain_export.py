"""A chain as lines of JSON, which verify without the database: first one about the chain, then a line per record."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ..errors import Invalid
from .chain import Anchor, AuditRecord, ChainEnd, Check, Fault, SealedRecord, Verification

FORMAT = "jamjet-audit-1"


class Head(msgspec.Struct, frozen=True):
    sequence: int
    digest: str
    signature: str
    first_sequence: int


class Header(msgspec.Struct, frozen=True):
    """`head` is None for a chain without records. Digests and signatures are in hexadecimal."""

    format: str
    tenant_id: str
    algorithm: str
    public_key: str
    head: Head | None


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """`created_at` is in milliseconds since the epoch and `data` the text of its JSON, as the digest covers them. A
    record that was removed has nothing but its place."""

    sequence: int
    previous: str
    digest: str
    signature: str | None = None
    id: str | None = None
    event_type: str = ""
    actor_id: str = ""
    created_at: int = 0
    execution_id: str | None = None
    resource: str | None = None
    request_id: str | None = None
    address: str | None = None
    data: str = ""


_encode = msgspec.json.Encoder().encode
_line = msgspec.json.Decoder(Line).decode
_header = msgspec.json.Decoder(Header).decode


def header(tenant_id: str, public_key: str, end: ChainEnd | None) -> bytes:
    head = Head(end.sequence, end.digest.hex(), end.signature.hex(), end.first_sequence) if end else None
    return _encode(Header(FORMAT, tenant_id, "Ed25519", public_key, head)) + b"\n"


def line(sealed: SealedRecord) -> bytes:
    signature = sealed.signature.hex() if sealed.signature is not None else None
    place = (sealed.sequence, sealed.previous.hex(), sealed.digest.hex(), signature)
    record = sealed.record
    if record is None:
        return _encode(Line(*place)) + b"\n"
    told = Line(
        *place,
        record.audit_id,
        record.event_type,
        record.actor_id,
        record.created_at,
        record.execution_id,
        record.resource,
        record.request_id,
        record.address,
        record.data.decode("utf-8", "replace"),
    )
    return _encode(told) + b"\n"


def read_header(first: bytes) -> Header:
    """Raises `Invalid`."""
    try:
        found = _header(first)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"the first line is not one of an audit export: {error}") from error
    if found.format != FORMAT:
        raise Invalid(f"the export is of the format {found.format!r}; this version reads {FORMAT!r}")
    return found


def verify_export(
    lines: Iterable[bytes], checker: Callable[[str], Check], anchor: Anchor | None = None
) -> tuple[Header, int, list[Fault]]:
    """The header, how many records there are, and what is wrong. `checker` makes of the header's public key, or of a
    better one, what checks signatures. Raises `Invalid` for what is no export."""
    first, rest = _split(lines)
    found = read_header(first)
    verification = Verification(found.tenant_id, checker(found.public_key), anchor)
    faults = list(verification.take(_records(rest)))
    faults += verification.finish(_end(found.head))
    return found, verification.records, faults


def _split(lines: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    rest = iter(lines)
    return next(rest, b""), rest


def _end(head: Head | None) -> ChainEnd | None:
    if head is None:
        return None
    return ChainEnd(head.sequence, _bytes(head.digest, 1), _bytes(head.signature, 1), head.first_sequence)


def _records(lines: Iterable[bytes]) -> Iterator[SealedRecord]:
    for number, text in zip(itertools.count(2), lines, strict=False):
        if text.strip():
            yield _sealed(text, number)


def _sealed(text: bytes, number: int) -> SealedRecord:
    try:
        read = _line(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"line {number} is no record: {error}") from error
    return SealedRecord(
        read.sequence,
        None if read.id is None and not read.event_type else _record(read),
        _bytes(read.previous, number),
        _bytes(read.digest, number),
        None if read.signature is None else _bytes(read.signature, number),
    )


def _record(read: Line) -> AuditRecord:
    return AuditRecord(
        audit_id=read.id or "",
        event_type=read.event_type,
        actor_id=read.actor_id,
        created_at=read.created_at,
        execution_id=read.execution_id,
        resource=read.resource,
        request_id=read.request_id,
        address=read.address,
        data=read.data.encode(),
    )


def _bytes(text: str, number: int) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Invalid(f"line {number} holds {text[:80]!r}, which is not hexadecimal") from error
