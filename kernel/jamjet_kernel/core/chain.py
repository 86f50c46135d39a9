"""The audit chain: records that nobody can change, drop, reorder or add without being found out.

Rule 1: a digest is the SHA-256 of `VERSION` and the canonical JSON (RFC 8785) of one array: the tenant, the sequence,
the digest before it in hexadecimal, and an array of the record's fields in the order of `AuditRecord`, its data in
base64.
Rule 2: a signature covers `VERSION` and a digest, and by it all records before. Some record after each must be signed.
Rule 3: what was removed on purpose is told by a later record of the chain itself, `FORGOTTEN`. Where records were
removed from the middle, their digests stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

VERSION = b"jamjet-audit-1\n"
BEGINNING = bytes(32)
"""What the first record of a chain has for the digest before it."""

FORGOTTEN = "audit_forgotten"
"""A record of this type says what was removed on purpose: `Forgotten` is its data."""


class AuditRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who did what to what. `event_type` is in snake case and the past tense: `node_completed`, `token_revoked`.

    `resource` names what was changed (`workflow/research@1.0.0`); `data` is JSON: what else there is to tell.
    """

    audit_id: str
    event_type: str
    actor_id: str
    created_at: int
    execution_id: str | None = None
    resource: str | None = None
    request_id: str | None = None
    address: str | None = None
    data: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record in its tenant's chain: `digest` covers the record and `previous`, the digest of the one before it.

    The last record of each transaction is signed. Of a record that was removed from the middle only its place is left.
    """

    sequence: int
    record: AuditRecord | None
    previous: bytes
    digest: bytes
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The end of a chain, and where it begins once older records were removed."""

    sequence: int
    digest: bytes
    signature: bytes
    first_sequence: int = 1


class Forgotten(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was removed: all before `first_sequence`, whose `previous` is in hexadecimal; and these ranges."""

    first_sequence: int | None = None
    previous: str | None = None
    ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record's place and digest, kept by somebody outside: a chain that was cut shorter does not have it."""

    sequence: int
    digest: bytes


Sign: TypeAlias = Callable[[bytes], bytes]
Check: TypeAlias = Callable[[bytes, bytes], bool]
"""Whether a signature, the first argument, is one of ours over a message."""

_encode = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256


def digest_of(tenant_id: str, sequence: int, previous: bytes, record: AuditRecord) -> bytes:
    return _sha256(VERSION + _encode((tenant_id, sequence, previous.hex(), record))).digest()


def signed_bytes(digest: bytes) -> bytes:
    """What a signature is made over."""
    return VERSION + digest


def seal(tenant_id: str, end: ChainEnd, records: Sequence[AuditRecord], sign: Sign) -> list[SealedRecord]:
    """The records as they follow that end; the last one is signed."""
    sealed = []
    previous = end.digest
    last = end.sequence + len(records)
    for sequence, record in enumerate(records, end.sequence + 1):
        digest = digest_of(tenant_id, sequence, previous, record)
        signature = sign(signed_bytes(digest)) if sequence == last else None
        sealed.append(SealedRecord(sequence, record, previous, digest, signature))
        previous = digest
    return sealed


# Verification


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong with a chain, and at which sequence."""

    sequence: int
    kind: str
    message: str


class Verification:
    """Reads a chain from its first record to its last, in portions of any size.

    It takes the records as somebody who can write the database but does not have the key may have left them.
    """

    def __init__(self, tenant_id: str, check: Check, anchor: Anchor | None = None) -> None:
        self._tenant_id = tenant_id
        self._check = check
        self._anchor = anchor
        self._first: SealedRecord | None = None
        self._last: SealedRecord | None = None
        self._beginning = (1, BEGINNING.hex())
        self._told: list[tuple[int, int]] = []
        self._emptied: list[tuple[int, int]] = []
        self._anchored = anchor is None
        self.records = 0

    def take(self, records: Iterable[SealedRecord]) -> Iterator[Fault]:
        for sealed in records:
            yield from self._follows(sealed)
            if sealed.record is None:
                _extend(self._emptied, sealed.sequence)
            else:
                yield from self._is_intact(sealed, sealed.record)
                self._take_in(sealed.record)
            yield from self._is_ours(sealed)
            yield from self._is_anchored(sealed)
            self._first = self._first or sealed
            self._last = sealed
            self.records += 1

    def finish(self, end: ChainEnd | None) -> Iterator[Fault]:
        """With the end that is stored beside the records; None: there is none."""
        yield from self._begins()
        yield from self._was_told()
        yield from self._ends(end)
        if self._anchor is not None and not self._anchored:
            first = self._first
            if first is None or self._anchor.sequence >= first.sequence:
                yield Fault(self._anchor.sequence, "truncated", "the chain had this record, and does not have it now")

    def _take_in(self, record: AuditRecord) -> None:
        if record.event_type == FORGOTTEN and (told := _forgotten(record)) is not None:
            self._told.extend(told.ranges)
            if told.first_sequence is not None:
                self._beginning = (told.first_sequence, told.previous or "")

    def _follows(self, sealed: SealedRecord) -> Iterator[Fault]:
        last, sequence = self._last, sealed.sequence
        if last is None:
            return
        if sequence > last.sequence + 1:
            yield Fault(last.sequence + 1, "missing", f"{sequence - last.sequence - 1} records are missing here")
        elif sequence <= last.sequence:
            yield Fault(sequence, "reordered", f"record {sequence} stands after record {last.sequence}")
        elif sealed.previous != last.digest:
            yield Fault(sequence, "unlinked", "it does not follow the record before it")

    def _is_intact(self, sealed: SealedRecord, record: AuditRecord) -> Iterator[Fault]:
        try:
            is_intact = digest_of(self._tenant_id, sealed.sequence, sealed.previous, record) == sealed.digest
        except (TypeError, ValueError, OverflowError, AttributeError):  # it holds what cannot have been written
            is_intact = False
        if not is_intact:
            yield Fault(sealed.sequence, "changed", "its content is not what was written")

    def _is_ours(self, sealed: SealedRecord) -> Iterator[Fault]:
        if sealed.signature is not None and not self._check(sealed.signature, signed_bytes(sealed.digest)):
            yield Fault(sealed.sequence, "forged", "its signature is not one of the runtime's key")

    def _is_anchored(self, sealed: SealedRecord) -> Iterator[Fault]:
        if self._anchor is not None and self._anchor.sequence == sealed.sequence:
            self._anchored = True
            if self._anchor.digest != sealed.digest:
                yield Fault(sealed.sequence, "rewritten", "its digest is not the one that was kept outside")

    def _begins(self) -> Iterator[Fault]:
        if (first := self._first) is None:
            return
        if (first.sequence, first.previous.hex()) != self._beginning:
            place = f"the chain begins at {first.sequence}; it should at {self._beginning[0]}"
            yield Fault(first.sequence, "beginning", f"{place}, and nothing says that older records were removed")

    def _was_told(self) -> Iterator[Fault]:
        told = sorted(self._told)
        for first, last in self._emptied:
            for begin, until in told:
                if begin <= first <= until:
                    first = until + 1
            if first <= last:
                yield Fault(first, "removed", "the record was removed, and nothing says why")

    def _ends(self, end: ChainEnd | None) -> Iterator[Fault]:
        last = self._last
        if last is None:
            if end is not None and end.sequence > 0:
                yield Fault(end.sequence, "truncated", "the chain should have records, and there are none")
        elif end is None:
            yield Fault(last.sequence, "end", "there are records, but the end of their chain is not stored")
        elif end.sequence > last.sequence:
            yield Fault(last.sequence + 1, "truncated", f"the chain should go on until record {end.sequence}")
        elif (end.sequence, end.digest, end.signature) != (last.sequence, last.digest, last.signature):
            yield Fault(last.sequence, "end", "the stored end of the chain is not its last record")
        if last is not None and last.signature is None:
            yield Fault(last.sequence, "unsigned", "the last record is not signed")


def verify(
    tenant_id: str,
    records: Iterable[SealedRecord],
    end: ChainEnd | None,
    check: Check,
    anchor: Anchor | None = None,
) -> Iterator[Fault]:
    verification = Verification(tenant_id, check, anchor)
    yield from verification.take(records)
    yield from verification.finish(end)


def ranges(sequences: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending sequences as first and last of each run."""
    runs: list[tuple[int, int]] = []
    for sequence in sequences:
        _extend(runs, sequence)
    return runs


def _extend(runs: list[tuple[int, int]], sequence: int) -> None:
    if runs and runs[-1][1] + 1 == sequence:
        runs[-1] = (runs[-1][0], sequence)
    else:
        runs.append((sequence, sequence))


def _forgotten(record: AuditRecord) -> Forgotten | None:
    try:
        return msgspec.json.decode(record.data, type=Forgotten)
    except (msgspec.MsgspecError, ValueError):
        return None
