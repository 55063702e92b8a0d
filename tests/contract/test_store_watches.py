"""All stores tell of changes alike, and of what their history has no more."""

import asyncio
import gc

import pytest

from scheduler.store.base import ABSENT, Batch, Compacted, StoreChange
from tests.contract.commits import WAIT_SECONDS, changes_of, delete, keys_of, next_batch, now, put


class TestWatches:
    async def test_a_watch_tells_what_happens_after_it_began(self, store):
        revision = await store.commit([put("a")])
        watch = store.watch("", revision)

        created = await store.commit([put("b", b"1")])
        first = await next_batch(watch)
        changed = await store.commit([put("b", b"2")])
        second = await next_batch(watch)
        deleted = await store.commit([delete("b")])
        third = await next_batch(watch)

        assert first == Batch(created, (StoreChange("b", b"1", created, created),))
        assert second == Batch(changed, (StoreChange("b", b"2", changed, created),))
        assert third == Batch(deleted, (StoreChange("b", None, deleted, 0),))

    async def test_a_watch_from_the_past_tells_all_since_in_order(self, store):
        start = await store.commit([put("a")])
        for n in range(50):
            await store.commit([put("a", b"%d" % n), put(f"b/{n}")])

        changes = await changes_of(store, "", start, 100)

        versions = [change.version for change in changes]
        assert [change.value for change in changes if change.key == "a"] == [
            b"%d" % n for n in range(50)
        ]
        assert versions == sorted(versions)
        assert set(versions) == set(range(start + 1, start + 51))

    async def test_a_watch_from_zero_tells_everything(self, opener):
        async with opener.unwritten() as store:
            await store.commit([put("a")])

            assert [change.key for change in await changes_of(store, "", 0, 1)] == ["a"]

    async def test_a_list_and_a_watch_behind_it_leave_no_gap(self, store):
        start = await now(store)
        stop = asyncio.Event()

        async def write():
            n = 0
            while not stop.is_set():
                await store.commit([put(f"k/{n % 7}", b"%d" % n)])
                n += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            await changes_of(store, "k/", start, 20)
            listing = await store.list("k/")
            seen = {record.key: record.value for record in listing.records}
            expected = listing.revision
            for change in await changes_of(store, "k/", listing.revision, 200):
                assert change.version == expected + 1
                expected = change.version
                seen[change.key] = change.value
            stop.set()

        history = await changes_of(store, "k/", start, expected - start)
        replayed = {}
        for change in history:
            if change.version <= expected:
                replayed[change.key] = change.value
        assert seen == replayed

    async def test_a_batch_never_ends_within_a_commit(self, store):
        start = (await store.list("")).revision
        for n in range(40):
            await store.commit([put(f"{m:03}", b"%d" % n) for m in range(100)])

        found = {}
        async with asyncio.timeout(WAIT_SECONDS):
            async for batch in store.watch("", start):
                versions = [change.version for change in batch.changes]
                assert versions[-1] == batch.revision
                for version in versions:
                    found.setdefault(version, []).append(batch.revision)
                if batch.revision == start + 40:
                    break
        assert set(found) == set(range(start + 1, start + 41))
        assert all(len(set(batches)) == 1 and len(batches) == 100 for batches in found.values())

    async def test_a_watch_resumes_behind_the_last_batch_without_gap_or_repeat(self, store):
        position = (await store.list("")).revision
        for n in range(30):
            await store.commit([put("a", b"%d" % n)])

        values = []
        while len(values) < 30:
            watch = store.watch("", position)
            batch = await next_batch(watch)
            await watch.aclose()
            values.extend(change.value for change in batch.changes)
            position = batch.revision

        assert values == [b"%d" % n for n in range(30)]

    async def test_a_watch_tells_only_what_is_under_its_prefix(self, store):
        start = await store.commit([put("a/0")])
        watch = store.watch("b/", start)
        await store.commit([put("a/1"), put("b"), put("b/1"), put("b0")])
        await store.commit([put("a/2")])
        await store.commit([put("b/2")])

        keys = []
        while len(keys) < 2:
            keys.extend(change.key for change in (await next_batch(watch)).changes)

        assert keys == ["b/1", "b/2"]

    async def test_a_watch_from_the_future_waits_for_it(self, store):
        now = await store.commit([put("a")])

        later = asyncio.create_task(changes_of(store, "", now + 2, 1))
        for n in range(1, 4):
            await store.commit([put("a", b"%d" % n)])

        assert [change.version for change in await later] == [now + 3]

    async def test_several_watchers_hear_the_same(self, store):
        start = (await store.list("")).revision

        async with asyncio.TaskGroup() as group:
            heard = [group.create_task(changes_of(store, "", start, 50)) for _ in range(5)]
            for n in range(50):
                await store.commit([put(f"k/{n}")])

        first = heard[0].result()
        assert len(first) == 50
        assert all(task.result() == first for task in heard)

    async def test_a_watcher_that_does_not_read_holds_nobody_up_and_misses_nothing(self, store):
        start = (await store.list("")).revision
        slow = store.watch("", start)
        await store.commit([put("a")])
        assert (await next_batch(slow)).revision == start + 1

        for n in range(3_000):
            await store.commit([put("a", b"%d" % n)])

        values = []
        while len(values) < 3_000:
            values.extend(change.value for change in (await next_batch(slow)).changes)
        assert values == [b"%d" % n for n in range(3_000)]

    async def test_a_cancelled_watch_leaves_nothing_behind(self, store):
        start = (await store.list("")).revision
        before = len(asyncio.all_tasks())

        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await anext(store.watch("", start))
        gc.collect()

        async with asyncio.timeout(WAIT_SECONDS):  # a connection takes a moment to end a stream
            while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await store.commit([put("a")])
        assert len(await changes_of(store, "", start, 1)) == 1


class TestCompaction:
    async def test_present_records_outlive_their_history(self, store):
        for n in range(10):
            revision = await store.commit([put("a", b"%d" % n), put(f"b/{n}")])
        await store.compact(revision)

        assert (await store.get("a")).value == b"9"
        assert len(await keys_of(store, "b/")) == 10

    async def test_a_watch_from_before_it_is_told_so_and_where_to_begin(self, store):
        start = await store.commit([put("a")])
        for n in range(10):
            revision = await store.commit([put("a", b"%d" % n)])
        await store.compact(revision - 3)

        with pytest.raises(Compacted) as raised:
            await next_batch(store.watch("", start))

        assert start < raised.value.oldest <= revision - 3
        changes = await changes_of(store, "", raised.value.oldest, 3)
        assert [change.value for change in changes][-3:] == [b"7", b"8", b"9"]

    async def test_a_watch_from_behind_it_goes_on(self, store):
        await store.commit([put("a")])
        revision = await store.commit([put("a")])
        await store.compact(revision)

        next_revision = await store.commit([put("a", b"new")])

        changes = await changes_of(store, "", revision, 1)
        assert [change.version for change in changes] == [next_revision]

    async def test_a_watcher_that_is_up_to_date_does_not_notice(self, store):
        start = (await store.list("")).revision
        watch = store.watch("", start)
        for n in range(20):
            revision = await store.commit([put("a", b"%d" % n)])
            assert (await next_batch(watch)).revision == revision
            await store.compact(revision)

    async def test_doing_it_again_or_for_earlier_or_to_the_end_is_no_error(self, store):
        await store.commit([put("a")])
        revision = await store.commit([delete("a")])

        await store.compact(revision)
        await store.compact(revision)
        await store.compact(1)

        assert (await store.list("")).revision == revision
        assert await store.commit([put("a", expect=ABSENT)]) == revision + 1
