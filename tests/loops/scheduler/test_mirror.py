"""Verify that the mirror equals the store, whatever order commits and echoes come in."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from homeport import codec
from homeport.model import Node
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Check, Delete, Put
from scheduler.store.base import ANY, Ambiguous, Batch, Conflict, StoreChange, TooLarge, Write
from scheduler.store.commit import Committer
from scheduler.store.forward import WentBack
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import LOAD_RECORDS, Mirror
from tests.builders import node
from tests.loops.scheduler.ring import LoopClock, Troubled

pytestmark = pytest.mark.looptime

A, B = node("a", 1), node("b", 2)


def write(value, expect=ANY):
    return Write(keys.key_of(value), codec.encode_record(value), expect)


@contextlib.asynccontextmanager
async def following(mirror):
    await mirror.start()
    async with asyncio.TaskGroup() as background:
        run = background.create_task(mirror.run())
        try:
            yield mirror
        finally:
            run.cancel()


async def test_it_starts_with_what_is_there_and_follows_what_comes():
    store = MemoryStore(LoopClock())
    await store.commit([write(A)])
    mirror = Mirror(store)
    told = []
    mirror.subscribe(told.extend)
    async with following(mirror):
        assert mirror.tables.nodes() == [A]
        revision = await store.commit([write(B)])
        await mirror.wait_for(revision)
        assert mirror.tables.nodes() == [A, B]
        revision = await store.commit([Write(keys.key_of(A), None)])
        await mirror.wait_for(revision)
        assert mirror.tables.nodes() == [B]
    assert [(change.old, change.new) for change in told] == [(None, A), (None, B), (A, None)]


async def turns_during(work):
    """How often another coroutine had its turn meanwhile."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as background:
        running = background.create_task(other())
        await work
        running.cancel()
    return turns


async def test_others_have_their_turn_while_a_large_store_is_read():
    store = MemoryStore(LoopClock())
    many = 10 * LOAD_RECORDS
    for first in range(0, many, 100):
        await store.commit([write(node(f"n{place:05}")) for place in range(first, first + 100)])
    mirror = Mirror(store)
    assert await turns_during(mirror.start()) >= 10
    assert len(mirror.tables.nodes()) == many
    # Read anew after the watch has lost all of it.
    mirror = Mirror(store)
    assert await turns_during(mirror.read_anew(0)) >= 10
    assert len(mirror.tables.nodes()) == many


async def test_an_own_commit_is_in_before_its_echo_which_then_tells_nothing():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    told = []
    mirror.subscribe(lambda changes: told.append(list(changes)))
    async with following(mirror):
        revision = await Committer(store, mirror).commit([Put(A, ABSENT, "joins")])
        assert mirror.tables.nodes() == [A]
        await mirror.wait_for(revision)
        await asyncio.sleep(1)
    assert len(told) == 1


async def test_an_echo_that_overtakes_the_answer_to_its_commit_brings_the_same_object():
    mirror = Mirror(MemoryStore(LoopClock()))
    key, data = keys.key_of(A), codec.encode_record(A)
    echo = Batch(4, (StoreChange(key, data, version=4, created=4),))
    with mirror.flying({(key, data): A}):
        mirror._apply_batch(echo)
    assert mirror.tables.node(A.id) is A
    later = Batch(5, (StoreChange(key, data, version=5, created=4),))
    mirror._apply_batch(later)
    assert mirror.tables.node(A.id) == A
    assert mirror.tables.node(A.id) is not A, "somebody else wrote it"


async def test_an_older_put_that_arrives_behind_an_own_delete_does_not_bring_it_back():
    mirror = Mirror(MemoryStore(LoopClock()))
    key = keys.key_of(A)
    mirror.apply_own(5, [(key, None)])
    put = StoreChange(key, codec.encode_record(A), version=4, created=4)
    mirror._apply_batch(Batch(4, (put,)))
    assert mirror.tables.nodes() == []
    later = StoreChange(key, codec.encode_record(A), version=6, created=6)
    mirror._apply_batch(Batch(6, (later,)))
    assert mirror.tables.nodes() == [A]


async def test_an_echo_that_is_older_than_an_own_commit_changes_nothing():
    mirror = Mirror(MemoryStore(LoopClock()))
    newer = node("a", 7)
    mirror.apply_own(9, [(keys.key_of(A), newer)])
    echo = StoreChange(keys.key_of(A), codec.encode_record(A), version=3, created=3)
    mirror._apply_batch(Batch(3, (echo,)))
    assert mirror.tables.node(A.id) == newer
    assert mirror.revision == 3
    assert mirror.newest == 9


async def test_after_a_compaction_it_lists_anew_and_tells_only_the_difference():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    await store.commit([write(A), write(B)])
    await mirror.start()
    changed = node("b", 5)
    await store.commit([Write(keys.key_of(A), None)])
    revision = await store.commit([write(changed)])
    await store.compact(revision)
    told = []
    mirror.subscribe(told.extend)
    async with asyncio.TaskGroup() as background:
        run = background.create_task(mirror.run())
        await mirror.wait_for(revision)
        run.cancel()
    assert mirror.tables.nodes() == [changed]
    assert sorted((change.key, change.new) for change in told) == [
        (keys.key_of(A), None),
        (keys.key_of(B), changed),
    ]


async def test_a_record_that_cannot_be_read_is_known_to_be_there():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    async with following(mirror):
        revision = await store.commit([Write(keys.key_of(A), b"\xff of the future")])
        await mirror.wait_for(revision)
        assert mirror.tables.node(A.id) is None
        assert mirror.tables.version(keys.key_of(A)) == revision
        assert "newer" in mirror.tables.unreadable[keys.key_of(A)]
        revision = await store.commit([write(A)])
        await mirror.wait_for(revision)
        assert mirror.tables.node(A.id) == A
        assert mirror.tables.unreadable == {}


async def test_a_reader_that_fails_keeps_neither_the_others_nor_the_mirror_behind():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    told = []

    def broken(changes):
        raise ValueError("a bug")

    mirror.subscribe(broken)
    mirror.subscribe(told.append)
    async with following(mirror):
        revision = await store.commit([write(A)])
        await mirror.wait_for(revision)
    assert len(told) == 1


async def started():
    store = Troubled(MemoryStore(LoopClock()))
    mirror = Mirror(store)
    await mirror.start()
    return store, mirror, Committer(store, mirror)


async def test_a_change_of_what_was_not_seen_is_refused():
    store, mirror, committer = await started()
    version = await committer.commit([Put(A, ABSENT, "joins")])
    with pytest.raises(Conflict):
        await committer.commit([Put(A, ABSENT, "joins again")])
    with pytest.raises(Conflict):
        await committer.commit([Delete(keys.key_of(A), version + 1, "leaves")])
    await committer.commit([Delete(keys.key_of(A), version, "leaves")])
    assert await store.get(keys.key_of(A)) is None
    assert mirror.tables.nodes() == []


async def test_a_check_of_what_changed_meanwhile_refuses_the_whole_commit():
    store, _mirror, committer = await started()
    version = await committer.commit([Put(A, ABSENT, "joins")])
    await store.commit([write(node("a", 9))])  # the mirror has not heard of it
    with pytest.raises(Conflict):
        await committer.commit([Put(B, ABSENT, "joins"), Check(keys.key_of(A), version)])
    assert await store.get(keys.key_of(B)) is None


async def test_a_check_of_what_is_as_it_was_seen_changes_nothing_else():
    store, mirror, committer = await started()
    version = await committer.commit([Put(A, ABSENT, "joins")])
    await committer.commit(
        [Put(B, ABSENT, "joins"), Check(keys.key_of(A), version), Check("nodes/none", ABSENT)]
    )
    record = await store.get(keys.key_of(A))
    assert codec.decode_record(Node, record.value) == A
    assert mirror.tables.version(keys.key_of(A)) == record.version
    assert await store.get("nodes/none") is None


async def test_many_changes_go_in_batches_and_only_what_conflicts_fails():
    store, mirror, committer = await started()
    await store.commit([write(node("n300", 1))])
    values = [node(f"n{number}", number) for number in range(400)]
    before = store.commits
    result = await committer.commit_batched([Put(each, ABSENT, "joins") for each in values])
    assert [change.key for change, _ in result.failed] == ["nodes/node-n300"]
    assert len(mirror.tables.nodes()) == 400  # also the one of which the mirror had not heard
    # Four batches, and the third once more change by change.
    assert store.commits - before <= 4 + 118 + 4


class Narrow(Troubled):
    """Takes so many bytes in one commit, as etcd does."""

    async def commit(self, writes, fence=None):
        size = sum(len(each.value or b"") for each in writes)
        if size > 10_000:
            raise TooLarge(size, 10_000)
        return await super().commit(writes, fence)


async def test_a_batch_of_too_many_bytes_goes_change_by_change_and_only_what_is_too_large_fails():
    store = Narrow(MemoryStore(LoopClock()))
    mirror = Mirror(store)
    await mirror.start()
    committer = Committer(store, mirror)
    values = [node(f"n{n}", n, labels={"x": "y" * 2_000}) for n in range(20)]
    values.append(node("large", 99, labels={"x": "y" * 20_000}))

    result = await committer.commit_batched([Put(each, ABSENT, "joins") for each in values])

    assert [change.key for change, _ in result.failed] == ["nodes/node-large"]
    assert len(mirror.tables.nodes()) == 20


class Uncertain(Troubled):
    """Answers of commits of nodes get lost, before or after they took place."""

    def __init__(self, store):
        super().__init__(store)
        self.lost = []  # "before" or "after", or "late": it takes place when let go
        self.held = []

    async def commit(self, writes, fence=None):
        if self.lost and any(each.key.startswith("nodes/") for each in writes):
            when = self.lost.pop(0)
            if when == "after":
                await self._store.commit(writes, fence)
            if when == "late":
                self.held.append((writes, fence))
            raise Ambiguous("no answer")
        return await self._store.commit(writes, fence)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param("before", [], id="it did not take place"),
        pytest.param("after", [A], id="it took place"),
        pytest.param("late", [], id="it is still on its way, and comes too late"),
    ],
)
async def test_a_commit_without_an_answer_blocks_its_objects_until_its_fate_is_known(
    when, expected
):
    store = Uncertain(MemoryStore(LoopClock()))
    mirror = Mirror(store)
    await mirror.start()
    committer = Committer(store, mirror)
    await committer.commit([Put(B, ABSENT, "joins")])
    store.lost = [when]
    with pytest.raises(Ambiguous):
        await committer.commit([Put(A, ABSENT, "joins")])
    assert committer.blocked == {keys.key_of(A)}
    assert await committer.settle()
    assert committer.blocked == frozenset()
    assert mirror.tables.nodes() == [*expected, B]
    for writes, fence in store.held:
        with pytest.raises(Conflict):
            await store._store.commit(writes, fence)
    if not expected:
        await committer.commit([Put(A, ABSENT, "joins")])
    assert mirror.tables.nodes() == [A, B]


async def test_an_event_that_a_watch_has_lost_is_found_by_the_conflict_that_it_leads_to():
    store, mirror, committer = await started()
    version = await committer.commit([Put(A, ABSENT, "joins")])
    await store.commit([write(node("a", 9)), Write(keys.key_of(B), b"")])  # nobody is told
    with pytest.raises(Conflict):
        await committer.commit([Put(node("a", 2), version, "changes")])
    assert mirror.tables.nodes() == [node("a", 9)]
    await store.commit([Write(keys.key_of(A), None)])
    with pytest.raises(Conflict):
        await committer.commit([Put(A, mirror.tables.version(keys.key_of(A)), "changes")])
    assert mirror.tables.nodes() == []


async def test_who_reads_anew_knows_what_a_watch_has_lost_and_waits_for_a_store_of_today():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    await mirror.start()
    stale = await store.list("")
    revision = await store.commit([write(A)])
    answers = [stale, await store.list("")]

    async def answer(prefix):
        return answers.pop(0)

    mirror._store.list = answer
    await mirror.read_anew(revision)
    assert mirror.tables.nodes() == [A]
    assert not answers


async def test_a_listing_of_the_past_does_not_bring_back_what_the_watch_told_to_be_gone():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    revision = await store.commit([write(A)])
    stale = await store.list("")
    async with following(mirror):
        await mirror.wait_for(revision)
        gone = await store.commit([Write(keys.key_of(A), None)])
        await mirror.wait_for(gone)
        answers = [stale, await store.list("")]

        async def answer(prefix):
            return answers.pop(0)

        store.list = answer
        await mirror._list_again()
    assert mirror.tables.nodes() == []
    assert not answers


async def test_what_a_watch_tells_late_does_not_bring_back_what_was_read_to_be_gone():
    store = MemoryStore(LoopClock())
    mirror = Mirror(store)
    await mirror.start()
    put = await store.commit([write(A)])
    gone = await store.commit([Write(keys.key_of(A), None)])
    await mirror.read_anew(gone)
    change = StoreChange(keys.key_of(A), codec.encode_record(A), put, put)
    mirror._apply_batch(Batch(put, (change,)))
    assert mirror.tables.nodes() == []


@pytest.mark.parametrize("was", ["changed", "deleted"])
async def test_what_is_older_than_it_was_in_a_store_that_is_beyond_that_is_a_restored_store(was):
    """As etcd is after `snapshot restore --bump-revision`: its numbers say nothing."""
    store = MemoryStore(LoopClock())
    await store.commit([write(A)])
    snapshot = await store.list("")
    told = []
    mirror = Mirror(store, told.append)
    await mirror.start()
    own = await store.commit([write(A, snapshot.records[0].version)])
    mirror.apply_own(own, [(keys.key_of(A), A if was == "changed" else None)])
    # A member that was paused answers from the past: that is passed over.
    await mirror._take_listing(snapshot)
    assert told == []
    raised = replace(snapshot, revision=1000)
    with pytest.raises(
        WentBack, match="is at revision 1000 and has nodes/node-a as of 2, where 3 "
    ):
        await mirror._take_listing(raised)
    assert len(told) == 1
    assert mirror.revision < 1000, "something was taken in"
