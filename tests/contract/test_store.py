"""Verify that all stores answer alike: what `scheduler.store.base` promises, one by one.

Here what is read and what is written; test_store_watches.py and test_store_leases.py have the
rest. A backend joins by an entry in `stores.BACKENDS`. What only one of them can do (files,
crashes, full disks, lost members) is tested beside its own code. Nothing here may assume that a
store was never written: an etcd serves all tests of a run, each under a prefix of its own. Random
sequences of operations are in test_store_differential.py.
"""

import asyncio
import contextlib

import pytest

from scheduler.store.base import ABSENT, Conflict, Unavailable
from tests.contract.commits import (
    LONG_LEASE_SECONDS,
    WAIT_SECONDS,
    changes_of,
    delete,
    keys_of,
    put,
    refused,
)


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
