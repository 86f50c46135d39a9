"""What every storage must do.

Subclass `StorageContract` in a test module and give it a `storage` fixture that answers an empty storage:

    class TestMyStorage(StorageContract):
        @pytest_asyncio.fixture
        async def storage(self, tmp_path):
            storage = open_mine(tmp_path)
            yield storage
            await storage.close()
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ..core.chain import FORGOTTEN, Fault, verify
from ..core.progress import Status
from ..errors import Conflict, JamJetError, KeyTaken, LeaseLost, LimitReached, SequenceConflict, StorageError
from ..ports import (
    DEFAULT_TENANT,
    Agent,
    AgentStatus,
    AuditRecord,
    Commit,
    DeadLetter,
    Delivery,
    Head,
    Lease,
    Loaded,
    OpenApproval,
    Receipt,
    Recorded,
    Role,
    SealedRecord,
    Snapshot,
    Spent,
    Storage,
    Tenant,
    TenantStatus,
    Timer,
    Token,
    Worker,
    WorkflowVersion,
    WorkItem,
)

TENANT = "acme"
NOON = 1_700_000_000_000


def commit(execution_id: str = "e1", expected: int = 0, count: int = 1, **changes: Any) -> Commit:
    """One step of `count` events. What is no field of a `Commit` goes into its head."""
    sequence = expected + count
    given = {name: changes.pop(name) for name in list(changes) if name in Head.__dataclass_fields__}
    head = Head(execution_id, "research", "1.0.0", Status.RUNNING, sequence, created_at=NOON)
    step = Commit(TENANT, replace(head, **given), expected, log(execution_id, expected + 1, sequence))
    return replace(step, **changes)


def log(execution_id: str, first: int, last: int) -> list[Recorded]:
    return [Recorded(n, f'{{"execution": "{execution_id}", "n": {n}}}'.encode()) for n in range(first, last + 1)]


def item(run_id: str = "search", execution_id: str = "e1", **changes: Any) -> WorkItem:
    return replace(WorkItem(execution_id, run_id, 1, "default", NOON, tenant_id=TENANT), **changes)


def keyed(run_id: str, execution_id: str = "e1", key: str = "bob", limit: int = 1, **changes: Any) -> WorkItem:
    return item(run_id, execution_id, concurrency_key=key, concurrency_limit=limit, **changes)


def runs(items: Sequence[WorkItem]) -> list[str]:
    return sorted(found.run_id for found in items)


def timer(timer_id: str = "t1", fire_at: int = NOON, execution_id: str = "e1") -> Timer:
    return Timer(execution_id, timer_id, fire_at, node_id="wait", tenant_id=TENANT)


def approval(node_id: str = "review", execution_id: str = "e1") -> OpenApproval:
    return OpenApproval(execution_id, node_id, NOON, "research", "Looks good?", NOON + 1, "send_mail")


def delivery(delivery_id: str = "d1", execution_id: str = "e2") -> Delivery:
    return Delivery(delivery_id, execution_id, b'{"done": true}', tenant_id=TENANT)


def worker(worker_id: str, **changes: Any) -> Worker:
    return replace(Worker(worker_id, "runtime", "host", 42, "1.0", NOON), **changes)


def dead_letter(run_id: str, execution_id: str = "e1", **changes: Any) -> DeadLetter:
    letter = DeadLetter(execution_id, run_id, "default", 3, "it broke", "custom", NOON, "research")
    return replace(letter, **changes)


def settled(done: WorkItem) -> Commit:
    """The next commit of `e1`: the result of this item."""
    return commit(expected=1, lease=Lease(done.run_id, done.fence), settle=[done.run_id])


def receipt(key: str = "key-1", result: str = "e1", created_at: int = NOON) -> Receipt:
    return Receipt(key, "fingerprint", result, created_at)


def workflow(workflow_id: str = "research", version: str = "1.0.0", ir: bytes = b"{}") -> WorkflowVersion:
    return WorkflowVersion(workflow_id, version, ir, NOON)


async def store(storage: Storage, *commits: Commit) -> None:
    assert await storage.commit(commits) == [None] * len(commits)


async def loaded(storage: Storage, execution_id: str = "e1", until: int | None = None) -> Loaded:
    found = await storage.executions.load(TENANT, execution_id, until)
    assert found is not None
    return found


async def sequence_of(storage: Storage, execution_id: str = "e1") -> int | None:
    """The head's, having seen that the log ends there and has no gap."""
    found = await storage.executions.load(TENANT, execution_id)
    if found is None:
        assert await storage.executions.events(TENANT, execution_id) == []
        return None
    assert [event.sequence for event in found.events] == list(range(1, found.head.sequence + 1))
    return found.head.sequence


def kinds(answers: Sequence[JamJetError | None]) -> list[type[JamJetError] | None]:
    return [None if answer is None else type(answer) for answer in answers]


async def pages(page: Callable[[Any], Awaitable[list[Any]]], cursor: Callable[[Any], Any]) -> list[Any]:
    """Everything, page by page."""
    rows: list[Any] = []
    while found := await page(cursor(rows[-1]) if rows else None):
        rows.extend(found)
    return rows


def audited(event_type: str, at: int = NOON, actor_id: str = "anna", **changes: Any) -> AuditRecord:
    return msgspec.structs.replace(AuditRecord(f"audit_{event_type}", event_type, actor_id, at), **changes)


def sign(message: bytes) -> bytes:
    return hashlib.sha256(b"secret" + message).digest()


async def event_types(storage: Storage) -> list[str]:
    return [sealed.record.event_type if sealed.record else "" for sealed in await storage.audit.chain(TENANT)]


async def faults(storage: Storage, tenant_id: str = TENANT) -> list[Fault]:
    """What is wrong with the tenant's chain."""
    records = await storage.audit.chain(tenant_id, limit=10_000)
    end = await storage.audit.end(tenant_id)
    return list(verify(tenant_id, records, end, lambda signature, message: signature == sign(message)))


class CommitContract:
    async def test_a_commit_is_read_back_as_it_was_written(self, storage: Storage) -> None:
        created = commit(count=2, completed_at=NOON + 5, parent_execution_id="e0", status=Status.COMPLETED)

        await store(storage, created)

        assert await loaded(storage) == Loaded(created.head, None, created.events)
        assert await storage.executions.head(TENANT, "e1") == created.head
        assert await storage.executions.events(TENANT, "e1") == created.events

    async def test_nothing_is_known_of_an_execution_that_was_never_committed(self, storage: Storage) -> None:
        assert await storage.executions.load(TENANT, "nobody") is None
        assert await storage.executions.head(TENANT, "nobody") is None
        assert await storage.executions.events(TENANT, "nobody") == []

    async def test_no_commits_are_no_work(self, storage: Storage) -> None:
        assert await storage.commit([]) == []

    async def test_a_later_commit_moves_the_head_on(self, storage: Storage) -> None:
        await store(storage, commit(count=2))
        await store(storage, commit(expected=2, status=Status.FAILED, completed_at=NOON + 9))

        head = await storage.executions.head(TENANT, "e1")

        assert head is not None
        assert (head.sequence, head.status, head.completed_at) == (3, Status.FAILED, NOON + 9)
        assert await sequence_of(storage) == 3

    async def test_a_retried_execution_is_no_longer_completed(self, storage: Storage) -> None:
        await store(storage, commit(status=Status.FAILED, completed_at=NOON))
        await store(storage, commit(expected=1))

        head = await storage.executions.head(TENANT, "e1")

        assert head is not None
        assert (head.status, head.completed_at) == (Status.RUNNING, None)

    async def test_a_stale_writer_loses(self, storage: Storage) -> None:
        await store(storage, commit(count=2))
        await store(storage, commit(expected=2))

        stale = commit(expected=2, enqueue=[item()], ask=[approval()], status=Status.CANCELLED)
        answers = await storage.commit([stale])

        assert kinds(answers) == [SequenceConflict]
        assert await sequence_of(storage) == 3
        assert await storage.work.pending() == []
        assert await storage.approvals.page(TENANT) == []

    async def test_a_writer_ahead_of_the_log_loses(self, storage: Storage) -> None:
        await store(storage, commit())

        assert kinds(await storage.commit([commit(expected=2)])) == [SequenceConflict]
        assert kinds(await storage.commit([commit("nobody", expected=1)])) == [SequenceConflict]
        assert await sequence_of(storage) == 1
        assert await sequence_of(storage, "nobody") is None

    async def test_an_execution_is_created_once(self, storage: Storage) -> None:
        await store(storage, commit(workflow_id="first"))

        answers = await storage.commit([commit(workflow_id="second", count=3)])

        assert kinds(answers) == [SequenceConflict]
        assert (await loaded(storage)).head.workflow_id == "first"
        assert await sequence_of(storage) == 1

    async def test_of_two_creations_in_one_batch_the_first_wins(self, storage: Storage) -> None:
        answers = await storage.commit([commit(workflow_id="first"), commit(workflow_id="second")])

        assert kinds(answers) == [None, SequenceConflict]
        assert (await loaded(storage)).head.workflow_id == "first"

    async def test_of_concurrent_writers_one_wins(self, storage: Storage) -> None:
        await store(storage, commit())

        answers = await asyncio.gather(*(storage.commit([commit(expected=1)]) for _ in range(8)))

        assert sorted(kinds([answer for [answer] in answers]), key=str) == [SequenceConflict] * 7 + [None]
        assert await sequence_of(storage) == 2

    async def test_one_loser_leaves_its_neighbours_alone(self, storage: Storage) -> None:
        await store(storage, commit("b"))
        batch = [
            commit("a", enqueue=[item(execution_id="a")]),
            commit("b", expected=5, enqueue=[item(execution_id="b")]),
            commit("c", enqueue=[item(execution_id="c")]),
        ]

        answers = await storage.commit(batch)

        assert kinds(answers) == [None, SequenceConflict, None]
        assert [await sequence_of(storage, name) for name in "abc"] == [1, 1, 1]
        assert [work.execution_id for work in await storage.work.pending()] == ["a", "c"]

    async def test_commits_of_one_execution_follow_each_other_in_a_batch(self, storage: Storage) -> None:
        batch = [
            commit(count=2, enqueue=[item("a"), item("b")], set_timers=[timer("t1"), timer("t2")]),
            commit("other", enqueue=[item("a", execution_id="other")]),
            commit(expected=2, settle=["a"], enqueue=[item("c")], cancel_timers=["t1"]),
            commit(expected=3, settle=["c"], enqueue=[item("a", attempt=2)], set_timers=[timer("t3")]),
            commit(expected=4, settle=["b"], cancel_timers=["t3"], status=Status.PAUSED),
        ]

        await store(storage, *batch)

        head = await storage.executions.head(TENANT, "e1")
        assert head is not None
        assert (await sequence_of(storage), head.status) == (5, Status.PAUSED)
        assert await storage.work.pending() == [item("a", attempt=2), item("a", execution_id="other")]
        assert [due.timer_id for due in await storage.timers.claim("w1", NOON)] == ["t2"]

    async def test_later_commits_of_a_loser_are_refused_too(self, storage: Storage) -> None:
        await store(storage, commit())
        batch = [
            commit(expected=3),
            commit(expected=4, enqueue=[item()]),
            commit("neighbour"),
            commit(expected=1),
        ]

        answers = await storage.commit(batch)

        assert kinds(answers) == [SequenceConflict, SequenceConflict, None, SequenceConflict]
        assert await sequence_of(storage) == 1
        assert await storage.work.pending() == []

    async def test_commits_before_a_loser_stay(self, storage: Storage) -> None:
        answers = await storage.commit([commit(), commit(expected=1), commit(expected=1), commit(expected=2)])

        assert kinds(answers) == [None, None, SequenceConflict, SequenceConflict]
        assert await sequence_of(storage) == 2

    async def test_a_batch_of_a_thousand_commits_is_one_call(self, storage: Storage) -> None:
        created = [commit(f"e{n}", count=3, enqueue=[item(execution_id=f"e{n}")]) for n in range(1001)]
        moved = [commit(f"e{n}", expected=3, settle=["search"]) for n in range(1001)]

        await store(storage, *created)
        await store(storage, *moved)

        assert {await sequence_of(storage, f"e{n}") for n in (0, 499, 500, 999, 1000)} == {4}
        assert len(await storage.executions.page(TENANT, limit=2000)) == 1001
        assert await storage.work.pending() == []

    async def test_a_value_that_cannot_be_stored_hurts_its_own_commit_only(self, storage: Storage) -> None:
        unstorable = commit("bad", created_at=2**70)

        answers = await storage.commit([commit("a"), unstorable, commit("c")])

        assert kinds(answers) == [None, StorageError, None]
        assert [await sequence_of(storage, name) for name in ("a", "bad", "c")] == [1, None, 1]

    async def test_a_megabyte_is_stored_as_it_is(self, storage: Storage) -> None:
        body = bytes(range(256)) * 4096

        await store(storage, replace(commit(), events=[Recorded(1, body)], snapshot=Snapshot(1, body)))

        assert await storage.executions.events(TENANT, "e1") == [Recorded(1, body)]
        assert (await loaded(storage)).snapshot == Snapshot(1, body)

    @pytest.mark.parametrize(
        "name",
        ["'; DROP TABLE events; --", '"quoted"', "a%b_c*", "100% :name ? %s {x}", "naïve 🧡 日本語", "a\\b\nc", " "],
    )
    async def test_an_id_is_only_an_id(self, storage: Storage, name: str) -> None:
        await store(
            storage,
            commit("neighbour", enqueue=[item(execution_id="neighbour")]),
            commit(name, enqueue=[item(name, name)], ask=[approval(name, name)], receipt=receipt(name, name)),
        )
        await store(storage, commit(name, expected=1, settle=[name], answered=[name]))

        assert await sequence_of(storage, name) == 2
        assert await storage.work.pending() == [item(execution_id="neighbour")]
        assert await storage.approvals.page(TENANT, execution_id=name) == []
        assert await storage.receipts.get(TENANT, name) == receipt(name, name)


class ExecutionsContract:
    async def test_loading_is_the_newest_snapshot_and_the_tail(self, storage: Storage) -> None:
        await store(
            storage,
            commit(count=2, snapshot=Snapshot(2, b"two")),
            commit(expected=2, count=2, snapshot=Snapshot(4, b"four")),
            commit(expected=4, count=2),
        )

        found = await loaded(storage)

        assert found.head.sequence == 6
        assert found.snapshot == Snapshot(4, b"four")
        assert found.events == log("e1", 5, 6)

    async def test_loading_until_a_sequence_sees_nothing_later(self, storage: Storage) -> None:
        await store(
            storage,
            commit(count=2, snapshot=Snapshot(2, b"two")),
            commit(expected=2, count=4, snapshot=Snapshot(6, b"six")),
        )

        before, at, after = [await loaded(storage, until=until) for until in (1, 6, 99)]
        between = await loaded(storage, until=4)

        assert (before.snapshot, before.events) == (None, log("e1", 1, 1))
        assert (between.snapshot, between.events) == (Snapshot(2, b"two"), log("e1", 3, 4))
        assert (at.snapshot, at.events) == (after.snapshot, after.events) == (Snapshot(6, b"six"), [])

    async def test_events_come_in_order_and_in_pages(self, storage: Storage) -> None:
        await store(storage, commit(count=7), commit("other", count=2))

        first = await storage.executions.events(TENANT, "e1", limit=3)
        rest = await storage.executions.events(TENANT, "e1", after=3)

        assert first == log("e1", 1, 3)
        assert rest == log("e1", 4, 7)

    async def test_a_page_is_newest_first(self, storage: Storage) -> None:
        times = {"a": NOON, "b": NOON + 2, "c": NOON + 1, "d": NOON + 1}
        await store(storage, *(commit(name, created_at=at) for name, at in times.items()))

        newest = await storage.executions.page(TENANT)

        assert [head.execution_id for head in newest] == ["b", "d", "c", "a"]

    async def test_a_cursor_continues_where_the_page_ended(self, storage: Storage) -> None:
        await store(storage, *(commit(f"e{n}", created_at=NOON + n // 3) for n in range(10)))

        found = await pages(
            lambda before: storage.executions.page(TENANT, limit=4, before=before),
            lambda head: (head.created_at, head.execution_id),
        )

        assert [head.execution_id for head in found] == [f"e{n}" for n in reversed(range(10))]

    async def test_limit_and_offset_count_from_the_newest(self, storage: Storage) -> None:
        await store(storage, *(commit(f"e{n}", created_at=NOON + n) for n in range(5)))

        found = await storage.executions.page(TENANT, limit=2, offset=1)

        assert [head.execution_id for head in found] == ["e3", "e2"]
        assert await storage.executions.page(TENANT, offset=5) == []

    async def test_a_page_is_narrowed_by_status_and_workflow(self, storage: Storage) -> None:
        await store(
            storage,
            commit("a", workflow_id="x"),
            commit("b", workflow_id="y", status=Status.PAUSED),
            commit("c", workflow_id="x", status=Status.PAUSED),
        )
        await store(storage, commit("c", expected=1, workflow_id="x", status=Status.COMPLETED))

        async def names(**narrowed: Any) -> list[str]:
            return [head.execution_id for head in await storage.executions.page(TENANT, **narrowed)]

        assert await names(status=Status.PAUSED) == ["b"]
        assert await names(status=Status.COMPLETED) == ["c"]
        assert await names(workflow_id="x") == ["c", "a"]
        assert await names(workflow_id="x", status=Status.RUNNING) == ["a"]
        assert await names(workflow_id="nothing") == []


class WorkContract:
    async def test_work_is_read_back_as_it_was_enqueued(self, storage: Storage) -> None:
        leased = item(attempt=3, queue="gpu", priority=-2, available_at=NOON + 7, lease_owner="worker-1")

        await store(storage, commit(enqueue=[leased]))

        assert await storage.work.pending() == [leased]

    async def test_settling_ends_the_named_runs_only(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item("a"), item("b")]), commit("e2", enqueue=[item("a", "e2")]))
        await store(storage, commit(expected=1, settle=["a", "never enqueued"]))

        assert await storage.work.pending() == [item("b"), item("a", "e2")]

    async def test_a_run_settled_and_enqueued_in_one_commit_waits(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(attempt=1)]))
        await store(storage, commit(expected=1, settle=["search"], enqueue=[item(attempt=2)]))

        assert await storage.work.pending() == [item(attempt=2)]

    async def test_a_run_has_one_work_item_at_most(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(lease_owner="worker-1")]))
        await store(storage, commit(expected=1, enqueue=[item(attempt=2)]))

        assert await storage.work.pending() == [item(attempt=2)]

    async def test_work_of_all_tenants_comes_page_by_page(self, storage: Storage) -> None:
        names = [f"{letter}{n}" for letter in "ab" for n in range(3)]
        for tenant in ("t2", "t1"):
            work = [(name, [item(run, name, tenant_id=tenant) for run in ("y", "x")]) for name in names]
            await store(storage, *(commit(name, tenant_id=tenant, enqueue=items) for name, items in work))

        found = await pages(
            lambda after: storage.work.pending(after, limit=5),
            lambda last: (last.tenant_id, last.execution_id, last.run_id),
        )

        expected = [(tenant, name, run) for tenant in ("t1", "t2") for name in names for run in ("x", "y")]
        assert [(work.tenant_id, work.execution_id, work.run_id) for work in found] == expected

    async def test_a_delivery_is_gone_once_it_is_taken_in(self, storage: Storage) -> None:
        await store(storage, commit("child", send=[delivery("d1", "e1"), delivery("d2", "e1")]), commit())
        assert await storage.work.deliveries() == [delivery("d1", "e1"), delivery("d2", "e1")]

        await store(storage, commit(expected=1, delivered="d1"))

        assert await storage.work.deliveries() == [delivery("d2", "e1")]

    async def test_a_delivery_taken_in_by_a_refused_commit_stays(self, storage: Storage) -> None:
        await store(storage, commit("child", send=[delivery("d1", "e1")]), commit())

        answers = await storage.commit([commit(expected=7, delivered="d1")])

        assert kinds(answers) == [SequenceConflict]
        assert await storage.work.deliveries() == [delivery("d1", "e1")]

    async def test_a_dropped_delivery_is_gone(self, storage: Storage) -> None:
        theirs = replace(delivery("d1"), tenant_id="rival")
        await store(storage, commit(send=[delivery("d1"), delivery("d2")]), commit(tenant_id="rival", send=[theirs]))

        await storage.work.drop_delivery(TENANT, "d1")
        await storage.work.drop_delivery(TENANT, "never sent")

        assert await storage.work.deliveries() == [theirs, delivery("d2")]

    async def test_deliveries_come_page_by_page(self, storage: Storage) -> None:
        await store(storage, commit(send=[delivery(f"d{n}") for n in range(5)]))

        found = await pages(
            lambda after: storage.work.deliveries(after, limit=2), lambda delivery: delivery.delivery_id
        )

        assert [delivery.delivery_id for delivery in found] == [f"d{n}" for n in range(5)]


class LeasesContract:
    """Who holds a piece of work, and how it passes on."""

    async def test_the_most_urgent_and_then_the_oldest_is_claimed_first(self, storage: Storage) -> None:
        work = [
            item("young", available_at=NOON - 1),
            item("old", available_at=NOON - 9),
            item("urgent", priority=5),
            item("later", available_at=NOON + 1),
            item("taken", lease_owner="w9"),
            item("elsewhere", queue="gpu"),
        ]
        await store(storage, commit(enqueue=work))

        claimed = await storage.work.claim("w1", "default", NOON, 2)
        rest = await storage.work.claim("w1", "default", NOON, 10)

        assert [found.run_id for found in claimed] == ["urgent", "old"]
        assert [(found.lease_owner, found.fence) for found in claimed] == [("w1", 1), ("w1", 1)]
        assert [found.run_id for found in rest] == ["young"]
        assert await storage.work.next_due("default", NOON) == NOON + 1
        assert await storage.work.next_due("default", NOON + 1) is None
        assert await storage.work.next_due("nothing", NOON) is None
        assert await storage.work.backlog(10) == 2

    async def test_of_one_tenant_only_its_own_is_claimed(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item()]), commit(tenant_id="rival", enqueue=[item(tenant_id="rival")]))

        claimed = await storage.work.claim("w1", "default", NOON, 10, tenant_id="rival", lease_ms=1000)

        assert [found.tenant_id for found in claimed] == ["rival"]

    async def test_concurrent_claims_never_share_an_item(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(f"n{n}") for n in range(50)]))

        claims = await asyncio.gather(*(storage.work.claim(f"w{n}", "default", NOON, 10) for n in range(8)))

        claimed = [found.run_id for batch in claims for found in batch]
        assert len(claimed) == len(set(claimed))
        assert len(claimed) + len(await storage.work.claim("w9", "default", NOON, 50)) == 50

    async def test_a_queue_has_no_more_items_at_work_than_its_limit(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(f"n{n}") for n in range(5)]))

        claims = await asyncio.gather(
            *(storage.work.claim(f"w{n}", "default", NOON, 2, queue_limit=3) for n in range(4))
        )

        assert sum(map(len, claims)) == 3
        assert await storage.work.claim("w1", "default", NOON, 1, queue_limit=3) == []

    async def test_a_concurrency_key_has_no_more_items_at_work_than_its_limit(self, storage: Storage) -> None:
        work = [keyed(f"n{n}", key="customer-7", limit=2) for n in range(5)]
        await store(storage, commit(enqueue=[*work, item("free")]))

        claims = await asyncio.gather(*(storage.work.claim(f"w{n}", "default", NOON, 10) for n in range(4)))

        claimed = [found for batch in claims for found in batch]
        assert sorted(found.concurrency_key or "" for found in claimed) == ["", "customer-7", "customer-7"]
        done = next(found for found in claimed if found.concurrency_key)
        await store(storage, replace(settled(done), freed=["customer-7"]))
        assert len(await storage.work.claim("w9", "default", NOON, 10)) == 1

    async def test_what_waits_for_its_key_is_in_nobodys_way(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[keyed(f"n{n}", priority=1) for n in range(60)]), commit("e2"))
        (held,) = await storage.work.claim("w1", "default", NOON, 10)
        await store(storage, commit("e2", expected=1, enqueue=[item("free", "e2"), keyed("other", "e2", "ada")]))

        claimed = await storage.work.claim("w1", "default", NOON, 2)

        assert (held.concurrency_key, runs(claimed)) == ("bob", ["free", "other"])
        assert await storage.work.claim("w1", "default", NOON, 10) == []
        assert await storage.work.backlog(1000) == 59

    async def test_of_each_key_as_much_is_claimed_as_there_is_room_for(self, storage: Storage) -> None:
        work = [
            keyed(f"{key}{n}", key=key, limit=limit, available_at=NOON - 5 + n)
            for key, limit in (("a", 1), ("b", 3))
            for n in range(5)
        ]
        await store(storage, commit(enqueue=work))

        claimed = await storage.work.claim("w1", "default", NOON, 10)

        assert runs(claimed) == ["a0", "b0", "b1", "b2"]

    async def test_with_a_key_or_without_the_most_urgent_is_claimed_first(self, storage: Storage) -> None:
        work = [
            item("plain", available_at=NOON - 2),
            item("urgent plain", priority=1),
            keyed("keyed", key="a", available_at=NOON - 1),
            keyed("urgent keyed", key="b", priority=2),
            keyed("last", key="c"),
        ]
        await store(storage, commit(enqueue=work))

        claims = [await storage.work.claim("w1", "default", NOON, 2) for _ in range(3)]

        assert [[found.run_id for found in claimed] for claimed in claims] == [
            ["urgent keyed", "urgent plain"],
            ["plain", "keyed"],
            ["last"],
        ]

    async def test_of_one_key_the_most_urgent_is_claimed_first(self, storage: Storage) -> None:
        work = [keyed("young"), keyed("old", available_at=NOON - 9), keyed("later", priority=9, available_at=NOON + 9)]
        await store(storage, commit(enqueue=work))
        claimed = await storage.work.claim("w1", "default", NOON, 1)
        await store(storage, commit(expected=1, enqueue=[keyed("urgent", priority=5)]))
        for sequence, now in enumerate((NOON, NOON, NOON + 9), 2):
            done = commit(expected=sequence, settle=[claimed[-1].run_id], freed=["bob"])
            await store(storage, done)
            claimed += await storage.work.claim("w1", "default", now, 1)

        assert [found.run_id for found in claimed] == ["old", "urgent", "young", "later"]

    async def test_a_key_counts_in_all_queues_of_its_tenant(self, storage: Storage) -> None:
        await store(
            storage, commit(enqueue=[keyed("a", limit=2), keyed("b", limit=2), keyed("c", queue="gpu", limit=2)])
        )
        await store(storage, commit(tenant_id="rival", enqueue=[keyed("theirs", tenant_id="rival")]))

        claimed = await storage.work.claim("w1", "default", NOON, 10)

        assert runs(claimed) == ["a", "b", "theirs"]
        assert await storage.work.claim("w1", "gpu", NOON, 10) == []
        await store(storage, commit(expected=1, settle=["a"], freed=["bob"]))
        assert runs(await storage.work.claim("w1", "gpu", NOON, 10)) == ["c"]
        await store(storage, commit(expected=2, settle=["c"], freed=["bob"], enqueue=[keyed("d", limit=2)]))
        assert runs(await storage.work.claim("w1", "default", NOON, 10)) == ["d"]

    async def test_what_waits_to_be_tried_again_leaves_its_place_to_others(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[keyed("a"), keyed("b", available_at=NOON + 5)]))
        (first,) = await storage.work.claim("w1", "default", NOON, 10)
        again = replace(first, lease_owner=None, attempt=2, available_at=NOON + 7)

        await store(storage, commit(expected=1, settle=["a"], freed=["bob"], enqueue=[again]))

        assert await storage.work.claim("w1", "default", NOON, 10) == []
        assert await storage.work.next_due("default", NOON) == NOON + 5
        assert runs(await storage.work.claim("w1", "default", NOON + 7, 10)) == ["b"]
        await store(storage, commit(expected=2, settle=["b"], freed=["bob"]))
        assert runs(await storage.work.claim("w1", "default", NOON + 7, 10)) == ["a"]

    async def test_a_key_has_room_again_when_its_work_is_given_back_or_its_holder_dies(self, storage: Storage) -> None:
        await storage.workers.join(worker("w1"), 60_000)
        await store(storage, commit(enqueue=[keyed("a"), keyed("b")]))
        held = await storage.work.claim("w1", "default", NOON, 10)

        await storage.work.give_back(held)
        held += await storage.work.claim("w1", "default", NOON, 10)
        await storage.workers.leave(worker("w1"))
        held += await storage.work.claim("r1", "default", NOON, 10, lease_ms=1)
        await asyncio.sleep(0.01)
        await storage.workers.bury()
        held += await storage.work.claim("w2", "default", NOON, 10)
        await storage.workers.join(worker("w3"), 60_000)
        held += await storage.work.claim("w3", "default", NOON, 10)

        assert len(held) == 5
        assert {found.concurrency_key for found in held} == {"bob"}

    async def test_many_claim_and_settle_and_no_key_has_too_many_at_work(self, storage: Storage) -> None:
        limits = {"a": 1, "b": 2, "c": 3}
        for n in range(45):
            key = "abc"[n % 3]
            await store(storage, commit(f"e{n}", enqueue=[keyed("run", f"e{n}", key, limits[key], priority=n % 2)]))
        at_work: Counter[str] = Counter()
        done: list[str] = []

        async def work(name: str) -> None:
            while len(done) < 45:
                held = await storage.work.claim(name, "default", NOON, 2)
                at_work.update(found.concurrency_key or "" for found in held)
                assert all(at_work[key] <= limit for key, limit in limits.items())
                await asyncio.sleep(0.001)
                for found in held:
                    at_work[found.concurrency_key or ""] -= 1
                    end = commit(found.execution_id, 1, lease=Lease("run", found.fence), settle=["run"])
                    await store(storage, replace(end, freed=[found.concurrency_key or ""]))
                    done.append(found.execution_id)

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(f"w{n}") for n in range(6)))

        assert len(set(done)) == 45
        assert await storage.work.pending() == []

    async def test_a_result_is_taken_from_who_holds_the_work(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(lease_owner="w1", fence=7), item("other")]))

        await store(storage, commit(expected=1, lease=Lease("search", 7), settle=["search"]))

        assert await storage.work.pending() == [item("other")]

    async def test_a_late_result_is_refused(self, storage: Storage) -> None:
        await store(
            storage, commit(enqueue=[item()]), commit("e2", enqueue=[item("b", "e2", fence=3, lease_owner="w1")])
        )
        (first,) = await storage.work.claim("w1", "default", NOON, 1)
        assert await storage.work.give_back([first]) == 1
        await storage.work.claim("w2", "default", NOON, 1)

        late = commit(expected=1, lease=Lease("search", first.fence), settle=["search"], enqueue=[item("next")])
        good = commit("e2", expected=1, lease=Lease("b", 3), settle=["b"])
        answers = await storage.commit([late, good])

        assert kinds(answers) == [LeaseLost, None]
        assert await sequence_of(storage) == 1
        assert [found.lease_owner for found in await storage.work.pending()] == ["w2"]

    async def test_the_result_of_work_that_is_gone_is_refused(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(fence=7)]))
        await store(storage, commit(expected=1, settle=["search"]))

        answers = await storage.commit([commit(expected=2, lease=Lease("search", 7), settle=["search"])])

        assert kinds(answers) == [LeaseLost]

    async def test_who_gave_work_back_does_not_give_it_back_again(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item()]))
        (first,) = await storage.work.claim("w1", "default", NOON, 1)

        assert await storage.work.give_back([first]) == 1
        assert await storage.work.give_back([first]) == 0
        (again,) = await storage.work.claim("w2", "default", NOON, 1)
        assert again.fence > first.fence

    async def test_a_remote_workers_lease_is_renewed_or_ends(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item()]))
        (held,) = await storage.work.claim("w1", "default", NOON, 1, lease_ms=60_000)
        await storage.workers.bury()
        assert await storage.work.renew(held, 1)
        await asyncio.sleep(0.01)

        await storage.workers.bury()

        assert not await storage.work.renew(held, 1000)
        (again,) = await storage.work.claim("w2", "default", NOON, 1, lease_ms=60_000)
        assert (again.fence > held.fence, again.losses) == (True, 1)

    async def test_it_is_known_when_the_next_lease_ends(self, storage: Storage) -> None:
        next_end = storage.workers.next_end
        ends = [await next_end()]
        await storage.workers.see(worker("r1", kind="remote", tenant_id=TENANT), 10)  # nothing hangs on that
        await storage.workers.join(worker("w1"), 60_000)
        ends.append(await next_end())
        await store(storage, commit(enqueue=[item()]))
        (held,) = await storage.work.claim("r1", "default", NOON, 1, lease_ms=20_000)
        ends.append(await next_end())
        await storage.work.renew(held, 1)
        await asyncio.sleep(0.01)
        ends.append(await next_end())
        await storage.workers.bury()
        ends.append(await next_end())

        assert [end and round(end / 10_000) for end in ends] == [None, 6, 2, 0, 6]

    async def test_what_remote_workers_hold_is_known_by_tenant(self, storage: Storage) -> None:
        await store(storage, commit(enqueue=[item(), item("b"), item("c", lease_owner="w1")]))
        (held,) = await storage.work.claim("r1", "default", NOON, 1, lease_ms=60_000)

        assert await storage.work.held(TENANT) == [held]
        assert await storage.work.held("rival") == []

    async def test_what_a_dead_process_held_is_free(self, storage: Storage) -> None:
        await storage.workers.join(worker("w2"), 60_000)
        await storage.workers.join(worker("w1"), 1)
        held = commit(
            enqueue=[item(lease_owner="w1"), item("b", lease_owner="w2")],
            set_timers=[replace(timer(), lease_owner="w1")],
            send=[replace(delivery(), lease_owner="w1")],
        )
        await store(storage, held)
        assert await storage.timers.claim("w2", NOON) == []
        assert await storage.work.claim_deliveries("w2") == []
        await asyncio.sleep(0.01)

        assert await storage.workers.bury() == ["w1"]

        assert await storage.workers.bury() == []
        (found,) = await storage.work.claim("w2", "default", NOON, 10)
        assert (found.run_id, found.losses) == ("search", 1)
        assert await storage.timers.claim("w2", NOON) == [replace(timer(), lease_owner="w2")]
        assert await storage.work.claim_deliveries("w2") == [replace(delivery(), lease_owner="w2")]

    async def test_a_process_lives_as_long_as_its_heart_beats(self, storage: Storage) -> None:
        await storage.workers.join(worker("w1"), 60_000)
        beaten = worker("w1", details={"running": 3})

        assert await storage.workers.heartbeat(beaten, 60_000)
        assert await storage.workers.bury() == []
        (shown,) = await storage.workers.page(TENANT)
        assert (shown.worker_id, shown.details, shown.kind) == ("w1", {"running": 3}, "runtime")
        assert shown.last_seen is not None
        await storage.workers.leave(beaten)
        assert not await storage.workers.heartbeat(beaten, 60_000)
        assert await storage.workers.page(TENANT) == []

    async def test_what_a_process_holds_can_be_looked_up(self, storage: Storage) -> None:
        work = item(lease_owner="w1", fence=4)
        sent, set_timer = replace(delivery(), lease_owner="w1"), replace(timer(), lease_owner="w1")
        await store(
            storage,
            commit(enqueue=[work, item("other")], send=[sent, delivery("d2")], set_timers=[set_timer, timer("other")]),
        )

        assert await storage.work.leased_to("w1") == [work]
        assert await storage.work.deliveries_leased_to("w1") == [sent]
        assert await storage.timers.leased_to("w1") == [set_timer]
        assert await storage.work.leased_to("w2") == []

    async def test_who_leaves_frees_what_it_held_and_lost_nothing(self, storage: Storage) -> None:
        await storage.workers.join(worker("w1"), 60_000)
        await store(storage, commit(enqueue=[item(lease_owner="w1", fence=4)]))

        await storage.workers.leave(worker("w1"))

        (found,) = await storage.work.claim("w2", "default", NOON, 10)
        assert (found.fence > 4, found.losses) == (True, 0)

    async def test_the_only_process_buries_all_others_at_once(self, storage: Storage) -> None:
        await storage.workers.join(worker("w1"), 60_000)
        await storage.workers.see(worker("r1", kind="remote", tenant_id=TENANT), 60_000)
        await storage.workers.join(worker("w2"), 60_000)

        assert await storage.workers.bury(all_but="w2") == ["w1"]

        assert [found.worker_id for found in await storage.workers.page(TENANT)] == ["r1", "w2"]
        assert [found.worker_id for found in await storage.workers.page("rival")] == ["w2"]

    async def test_the_sequences_of_many_executions_are_read_at_once(self, storage: Storage) -> None:
        await store(storage, commit("a", count=3), commit("b"))

        found = await storage.executions.sequences([(TENANT, "a"), (TENANT, "b"), (TENANT, "c"), ("rival", "a")])

        assert found == {(TENANT, "a"): 3, (TENANT, "b"): 1}


class DeadLettersContract:
    async def test_a_dead_letter_waits_until_it_is_raised(self, storage: Storage) -> None:
        letters = [dead_letter(run_id) for run_id in ("a", "b")]
        await store(storage, commit(buried=letters), commit("e2", buried=[dead_letter("a", "e2", queue="gpu")]))

        assert await storage.dead_letters.page(TENANT, queue="default") == letters
        assert len(await storage.dead_letters.page(TENANT, limit=1, after=("e1", "a"))) == 1
        assert await storage.dead_letters.get(TENANT, "e1", "b") == letters[1]
        assert await storage.dead_letters.page("rival") == []

        await store(storage, commit(expected=1, raised=["a"]))
        assert await storage.dead_letters.get(TENANT, "e1", "a") is None
        assert len(await storage.dead_letters.page(TENANT)) == 2


class TimersContract:
    async def test_timers_are_claimed_once_and_the_earliest_first(self, storage: Storage) -> None:
        times = {"late": NOON + 1, "now": NOON, "early": NOON - 5}
        await store(storage, commit(set_timers=[timer(name, at) for name, at in times.items()]))

        first = await storage.timers.claim("w1", NOON, limit=1)
        rest = await storage.timers.claim("w2", NOON)

        assert first == [replace(timer("early", NOON - 5), lease_owner="w1")]
        assert rest == [replace(timer("now", NOON), lease_owner="w2")]
        assert await storage.timers.claim("w1", NOON) == []

    async def test_a_cancelled_timer_is_never_due(self, storage: Storage) -> None:
        await store(storage, commit(set_timers=[timer("a"), timer("b")]))
        await store(storage, commit(expected=1, cancel_timers=["a", "never set"]))

        assert [due.timer_id for due in await storage.timers.claim("w1", NOON)] == ["b"]

    async def test_a_timer_set_again_has_its_new_time(self, storage: Storage) -> None:
        await store(storage, commit(set_timers=[timer("a", NOON)]))
        await store(storage, commit(expected=1, cancel_timers=["a"], set_timers=[timer("a", NOON + 60)]))

        assert await storage.timers.claim("w1", NOON) == []
        assert [due.fire_at for due in await storage.timers.claim("w1", NOON + 60)] == [NOON + 60]


class ApprovalsContract:
    async def test_an_approval_waits_until_it_is_answered(self, storage: Storage) -> None:
        await store(storage, commit(ask=[approval("review"), approval("sign")]))
        assert await storage.approvals.page(TENANT) == [approval("review"), approval("sign")]

        await store(storage, commit(expected=1, answered=["review", "never asked"]))

        assert await storage.approvals.page(TENANT) == [approval("sign")]

    async def test_an_approval_may_be_asked_again(self, storage: Storage) -> None:
        await store(storage, commit(ask=[approval()]), commit(expected=1, answered=["review"]))
        await store(storage, commit(expected=2, ask=[replace(approval(), description="And now?")]))

        [waiting] = await storage.approvals.page(TENANT)

        assert waiting.description == "And now?"

    async def test_approvals_come_page_by_page(self, storage: Storage) -> None:
        names = [f"e{n}" for n in range(3)]
        await store(storage, *(commit(name, ask=[approval("b", name), approval("a", name)]) for name in names))

        found = await pages(
            lambda after: storage.approvals.page(TENANT, limit=4, after=after),
            lambda last: (last.execution_id, last.node_id),
        )
        of_one = await storage.approvals.page(TENANT, execution_id="e1")

        assert found == [approval(node, name) for name in names for node in ("a", "b")]
        assert of_one == [approval("a", "e1"), approval("b", "e1")]


class ReceiptsContract:
    async def test_a_receipt_tells_what_the_key_led_to(self, storage: Storage) -> None:
        await store(storage, commit(receipt=receipt()))

        assert await storage.receipts.get(TENANT, "key-1") == receipt()
        assert await storage.receipts.get(TENANT, "key-2") is None

    async def test_a_taken_key_leaves_no_trace(self, storage: Storage) -> None:
        await store(storage, commit(receipt=receipt(result="e1")))

        again = commit("e2", receipt=receipt(result="e2"), enqueue=[item(execution_id="e2")])
        answers = await storage.commit([again, commit("e3")])

        assert kinds(answers) == [KeyTaken, None]
        assert await sequence_of(storage, "e2") is None
        assert await storage.work.pending() == []
        assert await storage.receipts.get(TENANT, "key-1") == receipt(result="e1")

    async def test_of_two_requests_with_one_key_in_a_batch_the_first_wins(self, storage: Storage) -> None:
        answers = await storage.commit([commit("a", receipt=receipt()), commit("b", receipt=receipt())])

        assert kinds(answers) == [None, KeyTaken]

    async def test_a_lost_race_takes_no_key(self, storage: Storage) -> None:
        await store(storage, commit())

        assert kinds(await storage.commit([commit(expected=4, receipt=receipt())])) == [SequenceConflict]
        assert await storage.receipts.get(TENANT, "key-1") is None

    async def test_old_receipts_are_forgotten(self, storage: Storage) -> None:
        await store(
            storage,
            commit("a", receipt=receipt("old", created_at=NOON - 1)),
            commit("b", receipt=receipt("new", created_at=NOON)),
        )

        assert await storage.receipts.forget(NOON) == 1
        assert await storage.receipts.get(TENANT, "old") is None
        assert await storage.receipts.get(TENANT, "new") is not None


class WorkflowsContract:
    async def test_a_definition_is_read_back_as_it_was_added(self, storage: Storage) -> None:
        added = workflow(ir='{"name": "Recherche 🧡"}'.encode())

        assert await storage.workflows.add(TENANT, added) is True
        assert await storage.workflows.get(TENANT, "research", "1.0.0") == added
        assert await storage.workflows.get(TENANT, "research", "2.0.0") is None

    async def test_the_same_content_again_is_accepted(self, storage: Storage) -> None:
        await storage.workflows.add(TENANT, workflow())

        again = replace(workflow(), created_at=NOON + 9)

        assert await storage.workflows.add(TENANT, again) is False
        assert await storage.workflows.get(TENANT, "research", "1.0.0") == workflow()

    async def test_other_content_under_the_same_version_is_a_conflict(self, storage: Storage) -> None:
        await storage.workflows.add(TENANT, workflow())

        with pytest.raises(Conflict, match=r"research 1\.0\.0"):
            await storage.workflows.add(TENANT, workflow(ir=b'{"other": 1}'), receipt())

        assert await storage.workflows.get(TENANT, "research", "1.0.0") == workflow()
        assert await storage.receipts.get(TENANT, "key-1") is None

    async def test_a_definition_under_a_taken_key_is_not_added(self, storage: Storage) -> None:
        await storage.workflows.add(TENANT, workflow(), receipt())

        with pytest.raises(KeyTaken):
            await storage.workflows.add(TENANT, workflow(version="2.0.0"), receipt())

        assert await storage.receipts.get(TENANT, "key-1") == receipt()
        assert await storage.workflows.versions(TENANT, "research") == [("1.0.0", NOON)]

    async def test_every_version_is_listed(self, storage: Storage) -> None:
        for version in ("1.0.0", "1.1.0", "0.9.0+build"):
            await storage.workflows.add(TENANT, workflow(version=version))
        await storage.workflows.add(TENANT, workflow("other"))

        listed = await storage.workflows.versions(TENANT, "research")

        assert sorted(listed) == [("0.9.0+build", NOON), ("1.0.0", NOON), ("1.1.0", NOON)]
        assert await storage.workflows.versions(TENANT, "nothing") == []

    async def test_a_page_of_workflows_has_all_their_versions(self, storage: Storage) -> None:
        for workflow_id in ("c", "a", "b"):
            for version in ("1.0.0", "2.0.0"):
                await storage.workflows.add(TENANT, workflow(workflow_id, version))

        first = await storage.workflows.page(TENANT, limit=2)
        rest = await storage.workflows.page(TENANT, limit=2, after="b")

        assert first == [(name, version, NOON) for name in "ab" for version in ("1.0.0", "2.0.0")]
        assert rest == [("c", "1.0.0", NOON), ("c", "2.0.0", NOON)]


def tenant(tenant_id: str = TENANT, **changes: Any) -> Tenant:
    return replace(Tenant(tenant_id, "Acme Corp", NOON), **changes)


class TenantsContract:
    async def test_a_tenant_is_read_back_as_it_was_added(self, storage: Storage) -> None:
        added = tenant(policy={"blocked_tools": ["shell*"]}, limits={"workflows": 3, "cost_usd_per_month": 0.1})

        await storage.tenants.add(added)

        assert await storage.tenants.get(TENANT) == added
        assert await storage.tenants.get("rival") is None

    async def test_a_tenant_is_added_once(self, storage: Storage) -> None:
        await storage.tenants.add(tenant())

        with pytest.raises(Conflict):
            await storage.tenants.add(tenant(name="Another"), receipt())

        assert await storage.tenants.get(TENANT) == tenant()
        assert await storage.receipts.get(DEFAULT_TENANT, "key-1") is None

    async def test_a_tenant_under_a_taken_key_is_not_added(self, storage: Storage) -> None:
        await storage.tenants.add(tenant(), receipt(result=TENANT))

        with pytest.raises(KeyTaken):
            await storage.tenants.add(tenant("rival"), receipt(result="rival"))

        assert await storage.tenants.get("rival") is None
        assert await storage.receipts.get(DEFAULT_TENANT, "key-1") == receipt(result=TENANT)

    async def test_tenants_come_page_by_page(self, storage: Storage) -> None:
        for n in range(5):
            await storage.tenants.add(tenant(f"t{n}"))

        found = await pages(
            lambda after: storage.tenants.page(limit=2, after=after), lambda tenant: str(tenant.tenant_id)
        )

        assert [each.tenant_id for each in found] == [f"t{n}" for n in range(5)]

    async def test_a_tenant_is_changed_from_what_it_is(self, storage: Storage) -> None:
        before, after = tenant(limits={"a": 1, "b": 2}), tenant(status=TenantStatus.SUSPENDED, updated_at=NOON + 1)
        await storage.tenants.add(before)

        changed = await storage.tenants.change(after, tenant(limits={"b": 2, "a": 1}))

        assert changed
        assert await storage.tenants.get(TENANT) == after

    async def test_of_two_changes_of_a_tenant_one_wins(self, storage: Storage) -> None:
        before = tenant()
        await storage.tenants.add(before)
        offered = [tenant(name=f"n{n}", updated_at=NOON + n) for n in range(1, 9)]

        won = await asyncio.gather(*(storage.tenants.change(each, before) for each in offered))

        assert won.count(True) == 1
        assert await storage.tenants.get(TENANT) == offered[won.index(True)]
        assert not await storage.tenants.change(tenant("nobody", name="other"), tenant("nobody"))

    async def test_what_nodes_consume_adds_up_per_tenant_and_month(self, storage: Storage) -> None:
        november = Spent("2026-11", 5, 0.1)
        steps = [commit(f"e{n}", spent=november) for n in range(10)]
        theirs = commit(tenant_id="rival", spent=november)

        await store(storage, *steps, theirs, commit("later", spent=Spent("2026-12", 1)))
        await store(storage, commit("e0", 1, spent=november))

        assert await storage.tenants.spent(TENANT, "2026-11") == Spent("2026-11", 55, 1.1)
        assert await storage.tenants.spent(TENANT, "2026-12") == Spent("2026-12", 1)
        assert await storage.tenants.spent("rival", "2026-11") == november
        assert await storage.tenants.spent("rival", "2026-12") == Spent("2026-12")

    async def test_a_refused_commit_consumes_nothing(self, storage: Storage) -> None:
        answers = await storage.commit([commit("e1", 7, spent=Spent("2026-11", 5)), commit("e2")])

        assert kinds(answers) == [SequenceConflict, None]
        assert await storage.tenants.spent(TENANT, "2026-11") == Spent("2026-11")

    async def test_no_more_executions_are_open_than_a_commit_allows(self, storage: Storage) -> None:
        burst = [commit(f"e{n}", max_open=3) for n in range(6)]

        answers = await storage.commit([*burst, commit(tenant_id="rival", max_open=1)])

        assert kinds(answers) == [None] * 3 + [LimitReached] * 3 + [None]
        assert await storage.executions.count_open(TENANT) == 3
        assert await storage.executions.head(TENANT, "e3") is None

    async def test_an_execution_that_ends_makes_room(self, storage: Storage) -> None:
        await store(storage, commit("e1", max_open=1))
        ended = commit("e1", 1, status=Status.COMPLETED, completed_at=NOON)

        await store(storage, ended, commit("e2", max_open=1))
        again = await storage.commit([commit("e1", 2, max_open=1)])

        assert kinds(again) == [LimitReached]

    async def test_a_paused_execution_is_open_and_what_sets_no_limit_is_not_refused(self, storage: Storage) -> None:
        await store(storage, commit("e1", status=Status.PAUSED), commit("child"))

        assert await storage.executions.count_open(TENANT) == 2
        assert kinds(await storage.commit([commit("e2", max_open=2)])) == [LimitReached]
        assert kinds(await storage.commit([commit("e1", 1)])) == [None]

    async def test_no_more_workflows_are_added_than_allowed(self, storage: Storage) -> None:
        await storage.workflows.add(TENANT, workflow("one"), max_workflows=1)

        with pytest.raises(LimitReached):
            await storage.workflows.add(TENANT, workflow("two"), receipt(), max_workflows=1)
        more = await storage.workflows.add(TENANT, workflow("one", "1.0.1"), max_workflows=0)

        assert more
        assert await storage.workflows.versions(TENANT, "two") == []
        assert await storage.receipts.get(TENANT, "key-1") is None
        assert await storage.workflows.add("rival", workflow("two"), max_workflows=1)


def token(token_id: str = "tok_1", digest: bytes = b"\x00\xff", **changes: Any) -> Token:
    return replace(Token(TENANT, token_id, "ci", Role.DEVELOPER, digest, NOON, "token:tok_0"), **changes)


def agent(agent_id: str = "researcher", **changes: Any) -> Agent:
    return replace(
        Agent(
            agent_id,
            "http://localhost:7701",
            "Researcher",
            NOON,
            b'{"id": "researcher"}',
            skills=("research",),
            protocols=("a2a",),
            words=("deep", "research"),
        ),
        **changes,
    )


class AgentsContract:
    @pytest.fixture(autouse=True)
    def _signed(self, storage: Storage) -> None:
        storage.audit.sign_with(sign)

    async def _put(self, storage: Storage, *agents: Agent) -> None:
        for each in agents:
            assert await storage.agents.put(TENANT, each, None)

    @pytest.mark.parametrize(
        "added",
        [
            agent(),
            agent(skills=(), protocols=(), words=()),
            agent(skills=("b", "a", "b"), description="Finds out.", version="1.0", status=AgentStatus.ACTIVE),
            agent(discovered_from="https://example.com/card.json", updated_at=NOON + 1, last_seen_at=NOON + 2),
        ],
    )
    async def test_an_agent_is_read_back_as_it_was_put(self, storage: Storage, added: Agent) -> None:
        await self._put(storage, added)

        assert await storage.agents.get(TENANT, "researcher") == added
        assert await storage.agents.page(TENANT) == [added]
        assert await storage.agents.get(TENANT, "nobody") is None

    async def test_an_agent_is_added_once(self, storage: Storage) -> None:
        await self._put(storage, agent())

        again = await storage.agents.put(TENANT, agent(name="Other"), None, receipt(), [audited("agent_registered")])

        assert not again
        assert await storage.agents.page(TENANT) == [agent()]
        assert await storage.receipts.get(TENANT, "key-1") is None
        assert await event_types(storage) == []

    async def test_an_agent_under_a_taken_key_is_not_added(self, storage: Storage) -> None:
        await storage.agents.put(TENANT, agent(), None, receipt())

        with pytest.raises(KeyTaken):
            await storage.agents.put(TENANT, agent("other"), None, receipt())

        assert await storage.agents.page(TENANT) == [agent()]
        assert await storage.agents.page(TENANT, words=["deep"]) == [agent()]

    async def test_a_replaced_agent_is_found_by_what_it_is_now(self, storage: Storage) -> None:
        now = agent(name="Writer", skills=("write",), protocols=("mcp",), words=("write",), updated_at=NOON + 1)
        await self._put(storage, agent())

        assert await storage.agents.put(TENANT, now, agent())

        assert await storage.agents.get(TENANT, "researcher") == now
        assert await storage.agents.page(TENANT, skill="write", protocol="mcp", words=["wr"]) == [now]
        for old in ({"skill": "research"}, {"protocol": "a2a"}, {"words": ["deep"]}):
            assert await storage.agents.page(TENANT, **old) == []

    @pytest.mark.parametrize(
        "other",
        [
            {"status": AgentStatus.PAUSED},
            {"name": "Other"},
            {"description": "Other"},
            {"card": b"{}"},
            {"skills": ("write",)},
            {"updated_at": NOON},
            {"created_at": NOON + 1},
        ],
    )
    async def test_an_agent_that_is_not_as_expected_is_left_alone(self, storage: Storage, other: Any) -> None:
        await self._put(storage, agent())
        now = agent(status=AgentStatus.ACTIVE)

        assert not await storage.agents.put(TENANT, now, agent(**other), None, [audited("agent_activated")])

        assert await storage.agents.get(TENANT, "researcher") == agent()
        assert await event_types(storage) == []

    async def test_of_concurrent_changes_of_an_agent_one_wins(self, storage: Storage) -> None:
        await self._put(storage, agent())
        changed = [agent(name=f"Name {n}") for n in range(5)]

        won = await asyncio.gather(*(storage.agents.put(TENANT, each, agent()) for each in changed))

        assert sum(won) == 1
        assert await storage.agents.get(TENANT, "researcher") == changed[won.index(True)]

    async def test_a_heartbeat_is_no_change(self, storage: Storage) -> None:
        await self._put(storage, agent())

        assert await storage.agents.seen(TENANT, "researcher", NOON + 5)
        assert not await storage.agents.seen(TENANT, "nobody", NOON + 5)

        assert await storage.agents.get(TENANT, "researcher") == agent(last_seen_at=NOON + 5)
        assert await storage.agents.put(TENANT, agent(name="Other"), agent())
        assert await storage.agents.get(TENANT, "researcher") == agent(name="Other", last_seen_at=NOON + 5)

    async def test_a_removed_agent_is_gone_and_may_come_again(self, storage: Storage) -> None:
        await self._put(storage, agent(), agent("other"))

        assert await storage.agents.remove(TENANT, "researcher", [audited("agent_removed")])
        assert not await storage.agents.remove(TENANT, "researcher", [audited("agent_removed")])

        assert await storage.agents.page(TENANT, skill="research") == [agent("other")]
        assert await event_types(storage) == ["agent_removed"]
        assert await storage.agents.put(TENANT, agent(skills=()), None)
        assert await storage.agents.page(TENANT, skill="research") == [agent("other")]

    async def test_agents_are_narrowed_by_all_that_is_asked(self, storage: Storage) -> None:
        one = agent("one", words=("deep", "research", "100%"))
        two = agent("two", status=AgentStatus.ACTIVE, skills=("research", "write"), words=("research", "writing"))
        three = agent("three", protocols=("mcp", "a2a"), skills=("Research",), words=())
        await self._put(storage, one, two, three)

        async def ids(**asked: Any) -> list[str]:
            return [each.agent_id for each in await storage.agents.page(TENANT, **asked)]

        assert await ids() == ["one", "three", "two"]
        assert await ids(status=AgentStatus.ACTIVE) == ["two"]
        assert await ids(skill="research") == ["one", "two"]
        assert await ids(protocol="mcp") == ["three"]
        assert await ids(skill="research", protocol="a2a", status=AgentStatus.REGISTERED) == ["one"]
        assert await ids(words=["res"]) == ["one", "two"]
        assert await ids(words=["res", "wri"]) == ["two"]
        assert await ids(words=["search"]) == []
        assert await ids(words=["100%"]) == ["one"]
        assert await ids(words=["%"]) == await ids(words=["_"]) == await ids(skill="%") == []

    async def test_agents_come_page_by_page(self, storage: Storage) -> None:
        added = [agent(f"agent-{n}") for n in range(5)]
        await self._put(storage, *reversed(added))

        found = await pages(
            lambda after: storage.agents.page(TENANT, skill="research", limit=2, after=after),
            lambda last: last.agent_id,
        )

        assert found == added

    async def test_an_agent_of_another_tenant_is_not_there(self, storage: Storage) -> None:
        await self._put(storage, agent())
        theirs = agent(name="Theirs", skills=("write",))

        assert await storage.agents.get("rival", "researcher") is None
        assert await storage.agents.page("rival") == await storage.agents.page("rival", skill="research") == []
        assert not await storage.agents.put("rival", theirs, agent())
        assert not await storage.agents.seen("rival", "researcher", NOON)
        assert await storage.agents.put("rival", theirs, None)
        assert await storage.agents.remove("rival", "researcher")

        assert await storage.agents.page(TENANT, skill="research") == [agent()]

    @pytest.mark.parametrize("name", ["'; DROP TABLE agents; --", '"', "%_*", "naïve 🧡", "a\\b"])
    async def test_what_an_agent_says_is_only_text(self, storage: Storage, name: str) -> None:
        added = agent(name, name=name, uri=name, skills=(name,), protocols=(name,), words=(name,), version=name)
        await self._put(storage, added, agent())

        assert await storage.agents.page(TENANT, skill=name, protocol=name, words=[name]) == [added]
        assert await storage.agents.page(TENANT, after=name, skill=name) == []


class TokensContract:
    async def test_a_token_is_found_by_its_digest(self, storage: Storage) -> None:
        added = token(expires_at=NOON + 9)

        await storage.tokens.add(TENANT, added)

        assert await storage.tokens.by_digest(b"\x00\xff") == added
        assert await storage.tokens.by_digest(b"\x00") is None

    @pytest.mark.parametrize("taken", [token(digest=b"other"), token("tok_2"), token("tok_2", tenant_id="rival")])
    async def test_neither_an_id_nor_a_digest_is_given_twice(self, storage: Storage, taken: Token) -> None:
        await storage.tokens.add(TENANT, token())

        with pytest.raises(Conflict):
            await storage.tokens.add(taken.tenant_id, taken, receipt())

        assert await storage.tokens.page(TENANT) == [token()]
        assert await storage.tokens.page("rival") == []
        assert await storage.receipts.get(taken.tenant_id, "key-1") is None

    async def test_a_token_under_a_taken_key_is_not_added(self, storage: Storage) -> None:
        await storage.tokens.add(TENANT, token(), receipt())

        with pytest.raises(KeyTaken):
            await storage.tokens.add(TENANT, token("tok_2", b"2"), receipt())

        assert await storage.tokens.page(TENANT) == [token()]

    async def test_tokens_come_page_by_page(self, storage: Storage) -> None:
        added = [token(f"tok_{n}", bytes([n])) for n in range(5)]
        for each in reversed(added):
            await storage.tokens.add(TENANT, each)

        found = await pages(lambda after: storage.tokens.page(TENANT, limit=2, after=after), lambda last: last.token_id)

        assert found == added
        assert await storage.tokens.page("rival") == []

    async def test_a_token_is_revoked_once(self, storage: Storage) -> None:
        storage.audit.sign_with(sign)
        await storage.tokens.add(TENANT, token())

        first = await storage.tokens.revoke(TENANT, "tok_1", NOON + 1, [audited("token_revoked")])
        again = await storage.tokens.revoke(TENANT, "tok_1", NOON + 2, [audited("token_revoked")])

        assert first == token()
        assert again == token(revoked_at=NOON + 1)
        assert await storage.tokens.by_digest(token().digest) == again
        assert await event_types(storage) == ["token_revoked"]

    async def test_a_token_of_another_tenant_is_not_revoked(self, storage: Storage) -> None:
        await storage.tokens.add(TENANT, token())

        assert await storage.tokens.revoke("rival", "tok_1", NOON) is None
        assert await storage.tokens.page(TENANT) == [token()]

    async def test_the_last_use_never_goes_back(self, storage: Storage) -> None:
        for n in (1, 2):
            await storage.tokens.add(TENANT, token(f"tok_{n}", bytes([n])))

        await storage.tokens.used([(TENANT, "tok_1", NOON + 5), ("rival", "tok_2", NOON + 5)])
        await storage.tokens.used([(TENANT, "tok_1", NOON + 3)])
        await storage.tokens.used([])

        assert [each.last_used_at for each in await storage.tokens.page(TENANT)] == [NOON + 5, None]

    @pytest.mark.parametrize("name", ["'; DROP TABLE tokens; --", '"', "%_*", "naïve 🧡", "a\\b\nc"])
    async def test_a_tokens_name_is_only_a_name(self, storage: Storage, name: str) -> None:
        await storage.tokens.add(TENANT, token(name, name=name, created_by=name))

        await storage.tokens.revoke(TENANT, name, NOON + 1)

        assert await storage.tokens.page(TENANT) == [token(name, name=name, created_by=name, revoked_at=NOON + 1)]


class IsolationContract:
    async def test_a_tenant_reads_nothing_of_another_one(self, storage: Storage) -> None:
        await store(
            storage,
            commit(ask=[approval()], receipt=receipt(), snapshot=Snapshot(1, b"{}")),
        )
        await storage.workflows.add(TENANT, workflow())

        assert await storage.executions.load("rival", "e1") is None
        assert await storage.executions.head("rival", "e1") is None
        assert await storage.executions.events("rival", "e1") == []
        assert await storage.executions.page("rival") == []
        assert await storage.approvals.page("rival") == []
        assert await storage.approvals.page("rival", execution_id="e1") == []
        assert await storage.receipts.get("rival", "key-1") is None
        assert await storage.workflows.get("rival", "research", "1.0.0") is None
        assert await storage.workflows.versions("rival", "research") == []
        assert await storage.workflows.page("rival") == []

    async def test_tenants_may_use_the_same_names(self, storage: Storage) -> None:
        def full(tenant: str, count: int) -> Commit:
            return commit(
                tenant_id=tenant,
                count=count,
                enqueue=[item(tenant_id=tenant)],
                set_timers=[replace(timer(), tenant_id=tenant)],
                ask=[approval()],
                send=[replace(delivery(), tenant_id=tenant)],
                receipt=receipt(result=tenant),
                snapshot=Snapshot(count, tenant.encode()),
            )

        await store(storage, full(TENANT, 1), full("rival", 2))
        added = [await storage.workflows.add(name, workflow(ir=name.encode())) for name in (TENANT, "rival")]

        assert added == [True, True]
        for tenant, count in ((TENANT, 1), ("rival", 2)):
            found = await storage.executions.load(tenant, "e1")
            kept = await storage.receipts.get(tenant, "key-1")
            assert found is not None
            assert kept is not None
            assert (found.head.sequence, found.snapshot) == (count, Snapshot(count, tenant.encode()))
            assert kept.result == tenant
            assert len(await storage.executions.page(tenant)) == len(await storage.approvals.page(tenant)) == 1

    async def test_a_commit_changes_nothing_of_another_tenant(self, storage: Storage) -> None:
        theirs = commit(
            tenant_id="rival",
            enqueue=[item(tenant_id="rival")],
            set_timers=[replace(timer(), tenant_id="rival")],
            ask=[approval()],
            send=[replace(delivery(), tenant_id="rival")],
        )
        await store(storage, theirs, commit())

        ours = commit(expected=1, settle=["search"], cancel_timers=["t1"], answered=["review"], delivered="d1")
        await store(storage, ours)

        assert await storage.work.pending() == list(theirs.enqueue)
        assert await storage.timers.claim("w1", NOON) == [replace(timer(), tenant_id="rival", lease_owner="w1")]
        assert await storage.approvals.page("rival") == list(theirs.ask)
        assert await storage.work.deliveries() == list(theirs.send)
        assert await storage.executions.head("rival", "e1") == theirs.head


class AuditContract:
    @pytest.fixture(autouse=True)
    def signed(self, storage: Storage) -> None:
        storage.audit.sign_with(sign)

    async def test_what_a_commit_tells_is_in_the_chain_with_it(self, storage: Storage) -> None:
        told = audited("node_completed", execution_id="e1", data=b'{"node":"search"}')

        await store(storage, commit(audit=[audited("execution_started"), told]))

        first, second = await storage.audit.chain(TENANT)
        assert second == SealedRecord(2, told, first.digest, second.digest, second.signature)
        assert first.signature is None
        assert await faults(storage) == []

    async def test_nothing_is_told_of_what_was_refused(self, storage: Storage) -> None:
        batch = [
            commit("a", audit=[audited("one")]),
            commit("b", expected=7, audit=[audited("never")]),
            commit("c", audit=[audited("two")]),
        ]

        assert kinds(await storage.commit(batch)) == [None, SequenceConflict, None]

        assert await event_types(storage) == ["one", "two"]
        assert await faults(storage) == []

    async def test_of_each_transaction_the_last_record_is_signed(self, storage: Storage) -> None:
        await store(storage, *(commit(f"e{n}", audit=[audited("a"), audited("b")]) for n in range(3)))
        await storage.audit.append(TENANT, [audited("c"), audited("d")])

        signed = [sealed.sequence for sealed in await storage.audit.chain(TENANT) if sealed.signature]

        assert signed == [6, 8]

    async def test_concurrent_writers_make_one_chain(self, storage: Storage) -> None:
        commits = (storage.commit([commit(f"e{n}", audit=[audited("committed")] * 3)]) for n in range(20))
        appends = (storage.audit.append(TENANT, [audited("appended")] * 2) for _ in range(20))

        await asyncio.gather(*commits, *appends)

        assert [sealed.sequence for sealed in await storage.audit.chain(TENANT)] == list(range(1, 101))
        assert await faults(storage) == []

    async def test_each_tenant_has_a_chain_of_its_own(self, storage: Storage) -> None:
        other = replace(commit(audit=[audited("theirs")]), tenant_id="other")

        await store(storage, commit(audit=[audited("ours")]), other)

        assert await event_types(storage) == ["ours"]
        assert [sealed.record for sealed in await storage.audit.chain("other")] == [audited("theirs")]
        assert await faults(storage) == await faults(storage, "other") == []
        assert await storage.audit.page("nobody") == ([], 0)
        assert await storage.audit.end("nobody") is None

    async def test_a_thousand_records_are_read_in_portions(self, storage: Storage) -> None:
        await storage.audit.append(TENANT, [audited(f"event_{n}") for n in range(1203)])

        portion = await storage.audit.chain(TENANT, after=1000, limit=100)

        assert [sealed.sequence for sealed in portion] == list(range(1001, 1101))
        assert len(await faults(storage)) == 0

    async def test_records_are_found_newest_first(self, storage: Storage) -> None:
        await storage.audit.append(TENANT, [audited("made", at=NOON + n, actor_id=f"a{n % 2}") for n in range(10)])

        found, total = await storage.audit.page(TENANT, actor_id="a1", limit=2, offset=1)
        ranged, in_range = await storage.audit.page(TENANT, since=NOON + 3, until=NOON + 6)
        after, _ = await storage.audit.page(TENANT, before=3)

        assert ([sealed.sequence for sealed in found], total) == ([8, 6], 5)
        assert ([sealed.sequence for sealed in ranged], in_range) == ([6, 5, 4], 3)
        assert [sealed.sequence for sealed in after] == [2, 1]

    async def test_records_are_found_by_execution_and_type(self, storage: Storage) -> None:
        await storage.audit.append(
            TENANT, [audited("a", execution_id="e1"), audited("b", execution_id="e1"), audited("a", execution_id="e2")]
        )

        found, total = await storage.audit.page(TENANT, execution_id="e1", event_type="a")

        assert ([sealed.sequence for sealed in found], total) == ([1], 1)
        assert await storage.audit.page(TENANT, execution_id="' OR 1=1 --") == ([], 0)

    async def test_a_registered_workflow_is_told_of_once(self, storage: Storage) -> None:
        for _ in range(2):
            await storage.workflows.add(TENANT, workflow(), audit=[audited("workflow_registered")])
        with pytest.raises(Conflict):
            await storage.workflows.add(TENANT, workflow(ir=b"[]"), audit=[audited("workflow_registered")])

        assert await event_types(storage) == ["workflow_registered"]

    async def test_the_beginning_can_be_forgotten(self, storage: Storage) -> None:
        for day in range(5):
            await storage.audit.append(TENANT, [audited(f"day_{day}", at=NOON + day)])

        gone = await storage.audit.forget(TENANT, NOON + 3, audited(FORGOTTEN, at=NOON + 9))
        again = await storage.audit.forget(TENANT, NOON + 3, audited(FORGOTTEN, at=NOON + 9))

        assert (gone, again) == (3, 0)
        assert await event_types(storage) == ["day_3", "day_4", FORGOTTEN]
        assert await faults(storage) == []

    async def test_everything_can_be_forgotten_but_that_it_was(self, storage: Storage) -> None:
        await storage.audit.append(TENANT, [audited("old"), audited("older")])

        assert await storage.audit.forget(TENANT, NOON + 1, audited(FORGOTTEN, at=NOON + 9)) == 2
        await storage.audit.append(TENANT, [audited("new")])

        assert await event_types(storage) == [FORGOTTEN, "new"]
        assert await faults(storage) == []

    async def test_a_workflows_records_can_be_forgotten_from_among_others(self, storage: Storage) -> None:
        await store(storage, commit("a", workflow_id="short", audit=[audited("old", execution_id="a")] * 2))
        await store(storage, commit("b", workflow_id="long", audit=[audited("old", execution_id="b")]))
        await store(storage, commit("a", 1, workflow_id="short", audit=[audited("new", at=NOON + 5, execution_id="a")]))
        told = audited(FORGOTTEN, at=NOON + 9)

        gone = await storage.audit.forget(TENANT, NOON + 1, told, workflow=("short", "1.0.0"))
        again = await storage.audit.forget(TENANT, NOON + 1, told, workflow=("short", "1.0.0"))
        await storage.audit.append(TENANT, [audited("next")])

        assert (gone, again) == (2, 0)
        assert await event_types(storage) == ["", "", "old", "new", FORGOTTEN, "next"]
        assert (await storage.audit.page(TENANT))[1] == 4
        assert await faults(storage) == []

    async def test_there_is_nothing_to_forget_of_nobody(self, storage: Storage) -> None:
        assert await storage.audit.forget("nobody", NOON, audited(FORGOTTEN)) == 0
        assert await storage.audit.chain("nobody") == []


class StorageContract(
    CommitContract,
    ExecutionsContract,
    WorkContract,
    LeasesContract,
    DeadLettersContract,
    TimersContract,
    ApprovalsContract,
    ReceiptsContract,
    WorkflowsContract,
    TenantsContract,
    TokensContract,
    AgentsContract,
    IsolationContract,
    AuditContract,
):
    """All of it, by noun. Every test gets the subclass's `storage` fixture, empty."""

    pytestmark = pytest.mark.asyncio

    async def test_a_closed_storage_refuses(self, storage: Storage) -> None:
        await storage.close()
        await storage.close()

        assert kinds(await storage.commit([commit()])) == [StorageError]
        with pytest.raises(StorageError):
            await storage.executions.head(TENANT, "e1")
