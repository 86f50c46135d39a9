"""The audit chain: whatever somebody without the key does to it is found, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from jamjet_kernel.core import chain_export
from jamjet_kernel.core.chain import (
    BEGINNING,
    FORGOTTEN,
    Anchor,
    AuditRecord,
    ChainEnd,
    SealedRecord,
    Sign,
    digest_of,
    ranges,
    seal,
    signed_bytes,
    verify,
)
from jamjet_kernel.errors import Invalid

TENANT = "acme"
NOTHING = ChainEnd(0, BEGINNING, b"")


def ours(message: bytes) -> bytes:
    return hashlib.sha256(b"ours" + message).digest()


def theirs(message: bytes) -> bytes:
    return hashlib.sha256(b"theirs" + message).digest()


def check(signature: bytes, message: bytes) -> bool:
    return signature == ours(message)


def record(number: int, **changes: object) -> AuditRecord:
    told = AuditRecord(f"audit_{number}", "node_completed", "worker:w1", 1_700_000_000_000 + number, "exec_1")
    return msgspec.structs.replace(told, **changes)


def chain(*transactions: int, sign: Sign = ours) -> list[SealedRecord]:
    """Transactions of so many records each."""
    sealed: list[SealedRecord] = []
    for count in transactions:
        first = len(sealed) + 1
        sealed += seal(TENANT, end_of(sealed), [record(n) for n in range(first, first + count)], sign)
    return sealed


def end_of(sealed: Sequence[SealedRecord]) -> ChainEnd:
    if not sealed:
        return NOTHING
    last = sealed[-1]
    return ChainEnd(last.sequence, last.digest, last.signature or b"")


def faults(
    sealed: Sequence[SealedRecord], end: ChainEnd | None = None, anchor: Anchor | None = None
) -> list[tuple[int, str]]:
    stored = end_of(sealed) if end is None else end
    return [(fault.sequence, fault.kind) for fault in verify(TENANT, sealed, stored, check, anchor)]


def test_an_untouched_chain_has_no_fault() -> None:
    assert faults(chain(3, 1, 4)) == []
    assert faults([], NOTHING) == []
    assert list(verify(TENANT, [], None, check)) == []


def test_the_digest_is_what_the_documentation_says() -> None:
    told = AuditRecord("audit_1", "node_completed", 'a"é', 12, None, "r", None, None, b'{"x":1}')
    canonical = f'["acme",1,"{"00" * 32}",["audit_1","node_completed","a\\"é",12,null,"r",null,null,"eyJ4IjoxfQ=="]]'

    digest = digest_of("acme", 1, BEGINNING, told)

    assert digest == hashlib.sha256(b"jamjet-audit-1\n" + canonical.encode()).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"audit_id": "other"},
        {"event_type": "node_failed"},
        {"actor_id": "mallory"},
        {"created_at": 1},
        {"execution_id": "exec_2"},
        {"execution_id": None},
        {"resource": "node/a"},
        {"request_id": "r"},
        {"address": "::1"},
        {"data": b"{} "},
        {"data": "no bytes"},
        {"actor_id": "\ud800"},
    ],
)
def test_a_changed_field_is_found(changes: dict[str, object]) -> None:
    sealed = chain(5)
    sealed[2] = replace(sealed[2], record=record(3, **changes))

    assert faults(sealed) == [(3, "changed")]


def test_a_change_with_its_digest_made_anew_is_found() -> None:
    sealed = chain(5)
    changed = record(3, actor_id="mallory")
    sealed[2] = replace(sealed[2], record=changed, digest=digest_of(TENANT, 3, sealed[2].previous, changed))

    assert faults(sealed) == [(4, "unlinked")]


def test_a_chain_made_anew_without_the_key_is_found() -> None:
    sealed = chain(2, 3, sign=theirs)

    assert faults(sealed) == [(2, "forged"), (5, "forged")]


def test_a_chain_made_anew_without_signatures_is_found() -> None:
    sealed = [replace(one, signature=None) for one in chain(2, 3, sign=theirs)]

    assert faults(sealed) == [(5, "end"), (5, "unsigned")]


def test_a_record_that_is_missing_is_found() -> None:
    sealed = chain(5)

    assert faults([*sealed[:1], *sealed[3:]]) == [(2, "missing")]


def test_records_in_another_order_are_found() -> None:
    one, two, three, four = chain(4)

    assert (2, "reordered") in faults([one, three, two, four])
    assert (1, "reordered") in faults([one, one, two, three, four])


def test_records_that_have_changed_places_and_numbers_are_found() -> None:
    one, two, three, four = chain(4)
    swapped = [one, replace(three, sequence=2), replace(two, sequence=3), four]

    assert {sequence for sequence, _ in faults(swapped)} >= {2, 3}


def test_a_chain_that_was_cut_off_is_found_by_its_end() -> None:
    sealed = chain(3, 2)

    assert faults(sealed[:3], end_of(sealed)) == [(4, "truncated")]
    assert faults([], end_of(sealed)) == [(5, "truncated")]


def test_a_chain_that_was_cut_off_with_its_end_is_found_by_an_anchor() -> None:
    sealed = chain(3, 2)
    kept = Anchor(5, sealed[4].digest)

    assert faults(sealed[:3]) == []
    assert faults(sealed[:3], anchor=kept) == [(5, "truncated")]
    assert faults(chain(3, 3), anchor=Anchor(5, chain(3, 2)[3].digest)) == [(5, "rewritten")]
    assert faults(sealed, anchor=kept) == []


def test_a_chain_cannot_be_cut_within_a_transaction() -> None:
    sealed = chain(3, 2)

    assert faults(sealed[:4]) == [(4, "end"), (4, "unsigned")]


def test_a_beginning_that_was_cut_off_is_found() -> None:
    assert faults(chain(5)[2:]) == [(3, "beginning")]


def test_records_of_another_tenant_are_found() -> None:
    sealed = chain(2)

    found = list(verify("other", sealed, end_of(sealed), check))

    assert [(fault.sequence, fault.kind) for fault in found] == [(1, "changed"), (2, "changed")]


def forgotten(sealed: list[SealedRecord], data: bytes, sign: Sign = ours) -> list[SealedRecord]:
    return sealed + seal(TENANT, end_of(sealed), [record(0, event_type=FORGOTTEN, data=data)], sign)


def test_a_beginning_that_was_forgotten_on_purpose_is_fine() -> None:
    sealed = chain(5)
    told = forgotten(sealed, f'{{"first_sequence":3,"previous":"{sealed[1].digest.hex()}"}}'.encode())

    assert faults(told[2:]) == []
    assert faults(told[3:]) == [(4, "beginning")]
    assert faults(told[1:]) == [(2, "beginning")]


def test_nobody_else_can_say_that_it_was_forgotten_on_purpose() -> None:
    sealed = chain(5)
    told = forgotten(sealed, f'{{"first_sequence":3,"previous":"{sealed[1].digest.hex()}"}}'.encode(), theirs)

    assert faults(told[2:]) == [(6, "forged")]


def test_a_record_that_was_emptied_on_purpose_is_fine() -> None:
    told = forgotten(chain(5), b'{"ranges":[[2,3]]}')
    empty = [replace(one, record=None) if one.sequence in (2, 3) else one for one in told]
    more = [replace(one, record=None) if one.sequence in (2, 3, 4) else one for one in told]

    assert faults(empty) == []
    assert faults(more) == [(4, "removed")]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_whatever_byte_is_changed_is_found(transactions: list[int], data: st.DataObject) -> None:
    sealed = chain(*transactions)
    place = data.draw(st.integers(0, len(sealed) - 1))
    field = data.draw(st.sampled_from(["previous", "digest", "signature"]))
    value = getattr(sealed[place], field) or bytes(32)
    at = data.draw(st.integers(0, 31))
    changed = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
    end = end_of(sealed)

    sealed[place] = replace(sealed[place], **{field: changed})

    assert faults(sealed, end)


def test_sequences_are_told_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]
    assert ranges([]) == []


# As a file


def exported(sealed: Sequence[SealedRecord]) -> list[bytes]:
    return [chain_export.header(TENANT, "KEY", end_of(sealed)), *map(chain_export.line, sealed)]


def test_an_export_verifies_alone() -> None:
    told = forgotten(chain(3, 2), b'{"ranges":[[2,3]]}')
    sealed = [replace(one, record=None) if one.sequence in (2, 3) else one for one in told]

    header, records, found = chain_export.verify_export(exported(sealed), lambda key: check)

    assert (header.tenant_id, header.public_key, records, found) == (TENANT, "KEY", 6, [])


@pytest.mark.parametrize("number", range(1, 6))
def test_a_changed_or_missing_line_of_an_export_is_found(number: int) -> None:
    lines = exported(chain(5))
    changed = [*lines]
    changed[number] = changed[number].replace(b"worker:w1", b"worker:w2")
    missing = lines[:number] + lines[number + 1 :]

    for wrong in (changed, missing):
        assert chain_export.verify_export(wrong, lambda key: check)[2]


@pytest.mark.parametrize("lines", [[], [b"{}"], [b"no json"], [chain_export.header("a", "k", None), b"{"]])
def test_what_is_no_export_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(Invalid):
        chain_export.verify_export(lines, lambda key: check)


def test_a_signature_is_ed25519() -> None:
    key = Ed25519PrivateKey.generate()

    [sealed] = seal(TENANT, NOTHING, [record(1)], key.sign)

    assert sealed.signature is not None
    key.public_key().verify(sealed.signature, signed_bytes(sealed.digest))
