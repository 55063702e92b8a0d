"""Verify that the file keeps a bounded history, serves it, and does not grow for ever."""

import asyncio
import contextlib
import sqlite3
from random import SystemRandom

import pytest

from homeport.model import Leader
from homeport.seams import SystemClock
from scheduler.config import Timers
from scheduler.election import Election
from scheduler.store.base import LEADER_KEY, Compacted, Write
from scheduler.store.sqlite import SqliteStore, shell
from scheduler.store.sqlite.writer import COMPACT_SLACK

KEPT = 300


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def open_store(path, history_revisions=KEPT):
    return await SqliteStore.open(path, clock=SystemClock(), history_revisions=history_revisions)


def rows(path, what):
    with contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute(f"SELECT {what}").fetchone()[0]


async def commit_many(store, count, value=b"v"):
    """Commits in groups, as under load."""
    for start in range(0, count, 50):
        async with asyncio.TaskGroup() as group:
            for n in range(start, min(start + 50, count)):
                group.create_task(store.commit([Write(f"k/{n % 10}", value)]))


class TestCompaction:
    async def test_old_history_goes_by_itself(self, path):
        store = await open_store(path)
        await commit_many(store, KEPT + 3 * COMPACT_SLACK)

        with pytest.raises(Compacted) as raised:
            await anext(store.watch("", 0))

        revision = (await store.list("")).revision
        assert KEPT <= revision - raised.value.oldest <= KEPT + COMPACT_SLACK + 200
        assert rows(path, "count(*) FROM log") <= revision - raised.value.oldest + 10
        await store.close()

    async def test_a_store_that_never_reached_its_length_forgets_nothing(self, path):
        store = await open_store(path)
        await commit_many(store, KEPT)

        assert (await anext(store.watch("", 0))).changes
        assert rows(path, "revision FROM compacted") == 0
        await store.close()

    async def test_the_file_stays_as_large_as_what_it_holds(self, path):
        store = await open_store(path)
        await commit_many(store, 2 * COMPACT_SLACK, bytes(2_000))
        size = path.stat().st_size
        await commit_many(store, 3 * COMPACT_SLACK, bytes(2_000))
        await store.close()

        assert path.stat().st_size <= 1.3 * size

    async def test_pages_that_are_free_go_back_to_the_file_system(self, path):
        store = await open_store(path)
        await commit_many(store, 1_200, bytes(20_000))
        await store.compact((await store.list("")).revision)
        size = path.stat().st_size
        await commit_many(store, 4 * COMPACT_SLACK)
        await store.close()

        assert path.stat().st_size < size / 3

    async def test_compacting_leaves_only_what_is_there_and_the_revision(self, path):
        store = await open_store(path)
        for n in range(20):
            await store.commit([Write("changed", b"%d" % n), Write(f"gone/{n}", b"")])
            await store.commit([Write(f"gone/{n}", None)])
        await store.commit([Write("gone", b"")])
        revision = await store.commit([Write("gone", None)])
        await store.compact(revision)
        await store.close()

        assert rows(path, "count(*) FROM log") == 1
        store = await open_store(path)
        assert (await store.list("")).revision == revision
        assert await store.commit([Write("a", b"")]) == revision + 1
        await store.close()

    async def test_what_was_compacted_stays_so_after_a_restart(self, path):
        store = await open_store(path)
        await commit_many(store, 20)
        revision = (await store.list("")).revision
        await store.compact(revision - 5)
        await store.close()

        store = await open_store(path)
        with pytest.raises(Compacted) as raised:
            await anext(store.watch("", revision - 6))
        assert raised.value.oldest == revision - 5
        assert (await anext(store.watch("", revision - 5))).revision == revision
        await store.close()


class TestWatchesFromTheFile:
    async def test_a_new_process_tells_the_history_of_the_one_before(self, path):
        store = await open_store(path, 10_000)
        for n in range(100):
            await store.commit([Write("a", b"%d" % n), Write(f"b/{n}", b"")])
        await store.close()

        store = await open_store(path, 10_000)
        found = []
        async for batch in store.watch("a", 0):
            found.extend(batch.changes)
            if len(found) == 100:
                break
        assert [change.value for change in found] == [b"%d" % n for n in range(100)]
        await store.close()

    async def test_whoever_is_far_behind_catches_up_through_the_file(self, path, monkeypatch):
        monkeypatch.setattr(shell, "RECENT_REVISIONS", 20)
        store = await open_store(path, 10_000)
        watch = store.watch("", 0)
        for start in range(0, 3_000, 100):
            async with asyncio.TaskGroup() as group:
                for n in range(start, start + 100):
                    group.create_task(store.commit([Write(f"{n % 7}", b"%d" % n), Write("b", b"")]))

        versions = []
        async for batch in watch:
            versions += [change.version for change in batch.changes]
            if len(versions) == 6_000:
                break
        assert versions == [version for version in range(2, 3_002) for _ in range(2)]
        await store.close()

    async def test_one_commit_larger_than_a_page_of_history_stays_whole(self, path):
        store = await open_store(path)
        lease = await store.grant(60)
        for start in range(0, 3_000, 100):
            numbers = range(start, start + 100)
            await store.commit([Write(f"{n:05}", b"", lease=lease) for n in numbers])
        await store.revoke(lease)  # one commit that deletes all
        last = await store.commit([Write("after", b"")])
        await store.close()

        store = await open_store(path)
        batches = []
        async for batch in store.watch("", last - 2):
            batches.append(len(batch.changes))
            if batch.revision == last:
                break
        assert batches == [3_000, 1]
        await store.close()


class TestRestart:
    async def test_what_a_dead_process_leased_is_gone_and_the_epoch_rises(self, path):
        store = await open_store(path)
        lease = await store.grant(60)
        epoch = await store.commit([Write(LEADER_KEY, b"", lease=lease), Write("kept", b"")])
        await store.close()

        store = await open_store(path)
        assert [record.key for record in (await store.list("")).records] == ["kept"]
        changes = (await anext(store.watch("", epoch))).changes
        assert [(change.key, change.value) for change in changes] == [(LEADER_KEY, None)]
        assert await store.keep_alive(lease) == 0
        assert await store.commit([Write(LEADER_KEY, b"")]) > epoch + 1
        await store.close()

    async def test_a_store_without_leases_is_opened_without_a_commit(self, path):
        store = await open_store(path)
        revision = await store.commit([Write("a", b"")])
        await store.close()

        store = await open_store(path)
        assert (await store.list("")).revision == revision
        await store.close()


def files(folder):
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())
    }


class TestIdle:
    async def test_reading_watching_and_leading_write_nothing(self, path):
        store = await open_store(path)
        timers = Timers(leader_lease_seconds=0.6, margin_seconds=0.2)
        election = Election(
            store,
            me=Leader(id="a"),
            timers=timers,
            clock=SystemClock(),
            randomness=SystemRandom(),
        )
        leading, done = asyncio.Event(), asyncio.Event()

        async def lead(leadership):
            await store.commit([Write("a", b"")], leadership.fence)
            await store.get("a")  # the first read behind a commit marks the index in memory
            leading.set()
            await done.wait()
            assert leadership.is_proven

        async with asyncio.TaskGroup() as group:
            task = group.create_task(election.run(lead))
            await leading.wait()
            before = files(path.parent)
            watch = group.create_task(drain(store))
            for _ in range(30):
                await store.get("a")
                await store.list("")
                await store.commit([])
                await asyncio.sleep(0.05)
            assert files(path.parent) == before
            done.set()
            watch.cancel()
            task.cancel()
        await store.close()

    async def test_opening_and_closing_write_no_commit(self, path):
        await (await open_store(path)).close()
        before = path.read_bytes()
        await (await open_store(path)).close()

        assert path.read_bytes() == before


async def drain(store):
    async for _ in store.watch("", 0):
        pass
