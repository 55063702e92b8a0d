"""Verify that all stores answer alike: what `scheduler.store.base` promises, one by one.

A backend joins by an entry in `stores.BACKENDS`. What only one of them can do (files, crashes,
full disks, lost members) is tested beside its own code. Nothing here may assume that a store was
never written: an etcd serves all tests of a run, each under a prefix of its own. Random sequences
of operations are in test_store_differential.py.
"""

import asyncio
import contextlib
import gc

import pytest

from scheduler.store.base import (
    ABSENT,
    ANY,
    LEADER_KEY,
    Batch,
    Compacted,
    Conflict,
    Fence,
    Fenced,
    LeaseGone,
    StoreChange,
    StoreError,
    Unavailable,
    Write,
)
from tests.contract.stores import BACKENDS, Opener

WAIT_SECONDS = 10
LONG_LEASE_SECONDS = 60


@pytest.fixture(params=BACKENDS)
def opener(request, tmp_path) -> Opener:
    """Makes stores of one backend; each is another, and empty."""
    return BACKENDS[request.param](request, tmp_path)


@pytest.fixture
async def store(opener):
    store = await opener.open()
    yield store
    await store.close()


async def now(store) -> int:
    """The revision of the store at the moment."""
    return (await store.list("")).revision


def put(key, value=b"v", expect=ANY, lease=0):
    return Write(key, value, expect, lease)


def delete(key, expect=ANY):
    return Write(key, None, expect)


async def keys_of(store, prefix=""):
    return [record.key for record in (await store.list(prefix)).records]


async def changes_of(store, prefix, after, count) -> list[StoreChange]:
    """The next `count` changes that a new watch tells."""
    found = []
    async with asyncio.timeout(WAIT_SECONDS), contextlib.aclosing(store.watch(prefix, after)) as w:
        async for batch in w:
            found.extend(batch.changes)
            if len(found) >= count:
                return found
    raise AssertionError("the watch ended")


async def next_batch(watch) -> Batch:
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(watch)


async def lead(store, lease=0) -> Fence:
    return Fence(await store.commit([put(LEADER_KEY, b"me", ABSENT, lease)]))


class TestReadsAndCommits:
    async def test_a_key_that_was_never_written_is_not_there(self, store):
        assert await store.get("a") is None
        assert (await store.list("a")).records == ()

    async def test_a_record_carries_its_value_and_the_revision_that_wrote_it(self, store):
        revision = await store.commit([put("a", b"\0\xff")])

        record = await store.get("a")

        assert (record.key, record.value) == ("a", b"\0\xff")
        assert record.version == record.created == revision > ABSENT

    async def test_an_empty_value_is_a_value(self, store):
        await store.commit([put("a", b"")])

        assert (await store.get("a")).value == b""

    async def test_every_commit_raises_the_revision_by_one(self, store):
        first = await store.commit([put("a"), put("b"), put("c")])

        assert await store.commit([put("a")]) == first + 1
        assert await store.commit([delete("b")]) == first + 2

    async def test_all_writes_of_one_commit_have_one_revision(self, store):
        revision = await store.commit([put("a"), put("b")])

        assert {record.version for record in (await store.list("")).records} == {revision}

    async def test_the_version_moves_and_created_stays_when_a_record_is_written_again(self, store):
        created = await store.commit([put("a")])
        version = await store.commit([put("a", b"2")])

        record = await store.get("a")

        assert (record.created, record.version, record.value) == (created, version, b"2")

    async def test_created_starts_anew_after_a_delete(self, store):
        await store.commit([put("a")])
        await store.commit([delete("a")])
        created = await store.commit([put("a")])

        assert (await store.get("a")).created == created

    async def test_deleting_what_is_not_there_changes_nothing(self, store):
        revision = await store.commit([put("a")])

        assert await store.commit([delete("b")]) == revision
        assert (await store.list("")).revision == revision

    async def test_a_commit_without_writes_tells_the_present_revision(self, store):
        revision = await store.commit([put("a")])

        assert await store.commit([]) == revision
        assert await store.commit([put("a")]) == revision + 1

    async def test_a_delete_takes_the_record_away(self, store):
        await store.commit([put("a"), put("b")])
        await store.commit([delete("a")])

        assert await store.get("a") is None
        assert await keys_of(store) == ["b"]

    async def test_one_commit_may_put_and_delete(self, store):
        await store.commit([put("a")])
        await store.commit([delete("a"), put("b")])

        assert await keys_of(store) == ["b"]

    async def test_as_many_writes_as_promised_fit_into_one_commit(self, store):
        writes = [put(f"k{n:04}") for n in range(store.operations_max)]

        await store.commit(writes)

        assert len(await keys_of(store)) == store.operations_max

    async def test_one_write_more_than_promised_is_refused(self, store):
        writes = [put(f"k{n:04}") for n in range(store.operations_max + 1)]

        with pytest.raises(ValueError, match="at most"):
            await store.commit(writes)
        assert await keys_of(store) == []

    async def test_a_key_written_twice_in_one_commit_is_refused(self, store):
        with pytest.raises(ValueError, match="twice"):
            await store.commit([put("a"), delete("a")])

    @pytest.mark.parametrize("key", ["", "\ud800"], ids=["empty", "not UTF-8"])
    async def test_a_key_that_no_store_could_hold_is_refused(self, store, key):
        with pytest.raises(ValueError):  # noqa: PT011
            await store.commit([put(key)])

    async def test_a_large_value_comes_back_as_it_was(self, store):
        value = bytes(range(256)) * 4_000

        await store.commit([put("a", value)])

        assert (await store.get("a")).value == value


class TestLists:
    async def test_a_list_is_ordered_by_key_and_told_at_one_revision(self, store):
        await store.commit([put("b"), put("a/2"), put("a/10")])
        revision = await store.commit([put("a")])

        listing = await store.list("")

        assert [record.key for record in listing.records] == ["a", "a/10", "a/2", "b"]
        assert listing.revision == revision

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("a", ["a", "a/1", "a0", "aä", "a\U0010ffff", "a\U0010ffffx"]),
            ("a/", ["a/1"]),
            ("a\U0010ffff", ["a\U0010ffff", "a\U0010ffffx"]),
            ("aä", ["aä"]),
            ("b", ["b"]),
            ("z", []),
            ("a/1/", []),
        ],
    )
    async def test_a_prefix_takes_exactly_the_keys_that_start_with_it(
        self, store, prefix, expected
    ):
        await store.commit(
            [put(key) for key in ("a", "a/1", "a0", "aä", "a\U0010ffff", "a\U0010ffffx", "b", "A")]
        )

        assert await keys_of(store, prefix) == sorted(expected)

    async def test_signs_with_a_meaning_in_patterns_are_ordinary_in_a_prefix(self, store):
        await store.commit([put("a%b"), put("a_b"), put("axb"), put("a*b"), put("a\0b")])

        assert await keys_of(store, "a%") == ["a%b"]
        assert await keys_of(store, "a_") == ["a_b"]
        assert await keys_of(store, "a*") == ["a*b"]
        assert await keys_of(store, "a\0") == ["a\0b"]


class TestCompares:
    async def test_absent_lets_a_new_key_through(self, store):
        await store.commit([put("a", expect=ABSENT)])

        assert await keys_of(store) == ["a"]

    async def test_absent_refuses_a_key_that_exists(self, store):
        await store.commit([put("a", b"1")])

        with pytest.raises(Conflict) as raised:
            await store.commit([put("a", b"2", ABSENT)])
        assert raised.value.keys == ("a",)
        assert (await store.get("a")).value == b"1"

    async def test_absent_lets_a_key_through_that_was_deleted(self, store):
        await store.commit([put("a")])
        await store.commit([delete("a")])

        await store.commit([put("a", expect=ABSENT)])

    async def test_the_version_that_was_seen_lets_the_next_write_through(self, store):
        version = await store.commit([put("a")])

        await store.commit([put("a", expect=version)])

    async def test_a_version_that_has_passed_is_refused(self, store):
        version = await store.commit([put("a")])
        await store.commit([put("a", b"2")])

        with pytest.raises(Conflict):
            await store.commit([put("a", b"3", version)])
        assert (await store.get("a")).value == b"2"

    async def test_a_delete_compares_like_a_put(self, store):
        version = await store.commit([put("a")])

        with pytest.raises(Conflict):
            await store.commit([delete("a", version + 5)])
        with pytest.raises(Conflict):
            await store.commit([delete("b", version)])
        await store.commit([delete("a", version)])
        assert await store.get("a") is None

    async def test_a_key_that_was_made_again_is_not_the_one_that_was_seen(self, store):
        version = await store.commit([put("a")])
        await store.commit([delete("a")])
        await store.commit([put("a")])

        with pytest.raises(Conflict):
            await store.commit([put("a", expect=version)])

    async def test_one_conflict_stops_the_whole_commit(self, store):
        revision = await store.commit([put("a")])

        with pytest.raises(Conflict):
            await store.commit([put("b"), put("a", expect=ABSENT), put("c")])

        assert await keys_of(store) == ["a"]
        assert (await store.list("")).revision == revision

    async def test_a_conflict_names_every_key_that_changed_and_no_other(self, store):
        await store.commit([put("a"), put("b")])

        with pytest.raises(Conflict, match="a, b") as raised:
            await store.commit(
                [put("a", expect=ABSENT), put("new", expect=ABSENT), put("b", expect=ABSENT)]
            )
        assert raised.value.keys == ("a", "b")

    async def test_of_many_that_race_for_a_key_one_wins(self, store):
        results = []

        async def race(n):
            try:
                results.append(await store.commit([put("a", b"%d" % n, ABSENT)]))
            except Conflict:
                results.append(None)

        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(race(n))

        assert len([result for result in results if result]) == 1

    async def test_counting_with_compares_loses_no_increment(self, store):
        await store.commit([put("n", b"0")])

        async def increment():
            while True:
                record = await store.get("n")
                with contextlib.suppress(Conflict):
                    value = b"%d" % (int(record.value) + 1)
                    await store.commit([put("n", value, record.version)])
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(increment())

        assert (await store.get("n")).value == b"20"

    async def test_commits_that_fly_together_conflict_alone(self, store):
        await store.commit([put("a")])

        async with asyncio.TaskGroup() as group:
            good = [group.create_task(store.commit([put(f"good/{n}")])) for n in range(10)]
            bad = group.create_task(refused(store.commit([put("a", expect=ABSENT)])))
            more = [group.create_task(store.commit([put(f"more/{n}")])) for n in range(10)]

        assert isinstance(bad.result(), Conflict)
        revisions = [task.result() for task in good + more]
        assert len(set(revisions)) == 20


async def refused(commit):
    try:
        return await commit
    except StoreError as error:
        return error


class TestFences:
    async def test_the_epoch_that_leads_may_write(self, store):
        fence = await lead(store)

        await store.commit([put("a")], fence)

        assert await keys_of(store, "a") == ["a"]

    async def test_without_a_leader_nobody_passes_a_fence(self, store):
        with pytest.raises(Fenced):
            await store.commit([put("a")], Fence(1))
        with pytest.raises(Fenced):
            await store.commit([put("a")], Fence(0))
        assert await keys_of(store) == []

    async def test_an_earlier_epoch_writes_nothing(self, store):
        old = await lead(store)
        await store.commit([delete(LEADER_KEY)])
        new = await lead(store)

        with pytest.raises(Fenced):
            await store.commit([put("a")], old)
        with pytest.raises(Fenced):
            await store.commit([], old)
        assert new.epoch > old.epoch
        assert await keys_of(store, "a") == []

    async def test_a_leader_that_writes_its_record_again_keeps_its_epoch(self, store):
        fence = await lead(store)

        await store.commit([put(LEADER_KEY, b"elsewhere")], fence)
        await store.commit([put("a")], fence)

    async def test_an_empty_commit_checks_the_fence_and_writes_nothing(self, store):
        fence = await lead(store)

        assert await store.commit([], fence) == fence.epoch
        assert (await store.list("")).revision == fence.epoch

    async def test_losing_the_leadership_is_told_before_a_conflict(self, store):
        await store.commit([put("a")])

        with pytest.raises(Fenced):
            await store.commit([put("a", expect=ABSENT)], Fence(1))


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


class TestLeases:
    async def test_a_record_stays_while_its_lease_is_renewed(self, store, opener):
        lease = await store.grant(opener.least_lease_seconds)
        await store.commit([put("a", lease=lease)])

        for _ in range(6):
            await asyncio.sleep(opener.least_lease_seconds / 4)
            assert await store.keep_alive(lease) == opener.least_lease_seconds

        assert await keys_of(store) == ["a"]
        await store.revoke(lease)  # its end would be a commit in the midst of another test

    async def test_records_go_together_when_their_lease_ends(self, store, opener):
        lease = await store.grant(opener.least_lease_seconds)
        await store.commit([put("b", lease=lease), put("kept")])
        start = await store.commit([put("a", lease=lease)])

        batch = await next_batch(store.watch("", start))

        gone = start + 1
        assert batch == Batch(
            gone, (StoreChange("a", None, gone, 0), StoreChange("b", None, gone, 0))
        )
        assert await keys_of(store) == ["kept"]
        assert await store.keep_alive(lease) == 0

    async def test_revoking_ends_a_lease_at_once(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        start = await store.commit([put("a", lease=lease), put("b", lease=lease)])

        await store.revoke(lease)

        assert await keys_of(store) == []
        assert [change.version for change in await changes_of(store, "", start, 2)] == [
            start + 1,
            start + 1,
        ]
        assert await store.keep_alive(lease) == 0

    async def test_a_lease_without_records_ends_without_a_commit(self, store):
        revision = await store.commit([put("a")])

        await store.revoke(await store.grant(LONG_LEASE_SECONDS))

        assert (await store.list("")).revision == revision

    async def test_revoking_what_is_gone_is_no_error(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.revoke(lease)

        await store.revoke(lease)
        await store.revoke(987_654_321)

    async def test_a_lease_that_never_was_has_no_time(self, store):
        assert await store.keep_alive(987_654_321) == 0

    async def test_renewing_gives_the_whole_time_again(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)

        assert await store.keep_alive(lease) == LONG_LEASE_SECONDS

    async def test_a_write_with_a_lease_that_is_gone_writes_nothing(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.revoke(lease)
        revision = (await store.list("")).revision

        with pytest.raises(LeaseGone) as raised:
            await store.commit([put("b"), put("a", lease=lease)])

        assert raised.value.lease == lease
        listing = await store.list("")
        assert (listing.records, listing.revision) == ((), revision)

    async def test_a_conflict_is_told_before_a_lease_that_is_gone(self, store):
        await store.commit([put("a")])

        with pytest.raises(Conflict):
            await store.commit([put("a", expect=ABSENT, lease=987_654_321)])

    async def test_a_record_written_again_without_a_lease_stays(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=lease), put("b", lease=lease)])
        await store.commit([put("a", b"mine")])

        await store.revoke(lease)

        assert await keys_of(store) == ["a"]

    async def test_a_record_follows_the_lease_that_it_was_written_with_last(self, store):
        first = await store.grant(LONG_LEASE_SECONDS)
        second = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=first)])
        await store.commit([put("a", lease=second)])

        await store.revoke(first)
        assert await keys_of(store) == ["a"]

        await store.revoke(second)
        assert await keys_of(store) == []

    async def test_a_record_made_again_after_a_delete_has_left_its_lease(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=lease)])
        await store.commit([delete("a")])
        await store.commit([put("a")])

        await store.revoke(lease)

        assert await keys_of(store) == ["a"]

    async def test_the_end_of_a_lease_deposes_its_leader(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        fence = await lead(store, lease)
        await store.commit([put("a")], fence)

        await store.revoke(lease)

        with pytest.raises(Fenced):
            await store.commit([put("a")], fence)
        assert (await lead(store)).epoch > fence.epoch

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    async def test_a_lease_without_time_is_refused(self, store, seconds):
        with pytest.raises(ValueError, match="lease"):
            await store.grant(seconds)


class TestClosing:
    async def test_watches_end_with_unavailable(self, store):
        watch = asyncio.create_task(changes_of(store, "", 0, 1))
        await asyncio.sleep(0)

        await store.close()

        with pytest.raises(Unavailable, match="closed"):
            await watch

    async def test_every_later_call_is_unavailable(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.close()

        for call in (
            store.get("a"),
            store.list(""),
            store.commit([put("a")]),
            store.commit([]),
            store.compact(1),
            store.grant(1),
            store.keep_alive(lease),
            store.revoke(lease),
            anext(store.watch("", 0)),
        ):
            with pytest.raises(Unavailable, match="closed"):
                await call

    async def test_closing_twice_is_no_error(self, store):
        await store.close()
        await store.close()

    async def test_a_commit_in_flight_is_answered(self, store):
        commits = [asyncio.create_task(refused(store.commit([put(f"{n}")]))) for n in range(50)]
        await asyncio.sleep(0)

        await store.close()

        async with asyncio.timeout(WAIT_SECONDS):
            for commit in commits:
                answer = await commit
                assert isinstance(answer, int | Unavailable)
