"""Verify what watchers hear from the commits in memory, and when they must look elsewhere."""

import asyncio

import pytest

from scheduler.store.base import Batch, Compacted, StoreChange, Unavailable
from scheduler.store.feed import CHANGE_OVERHEAD_BYTES, Feed

START = 10


def change(revision, key="a", value=b"v"):
    return StoreChange(key, value, revision, revision)


def tell(feed, *revisions, **what):
    for revision in revisions:
        feed.tell(revision, (change(revision, **what),))


async def heard(watch):
    async with asyncio.timeout(1):
        return [each.version for each in (await anext(watch)).changes]


async def test_a_watcher_that_is_behind_gets_successive_commits_in_one_batch():
    feed = Feed(START, revisions_max=100)
    tell(feed, 11, 12, 13)

    assert await anext(feed.watch("", 11)) == Batch(13, (change(12), change(13)))


async def test_only_so_many_commits_are_held():
    feed = Feed(START, revisions_max=3)
    tell(feed, 11, 12, 13, 14, 15)

    assert await heard(feed.watch("", 12)) == [13, 14, 15]
    with pytest.raises(Compacted) as raised:
        await anext(feed.watch("", 11))
    assert raised.value.oldest == 12


async def test_only_so_many_bytes_are_held():
    weight = CHANGE_OVERHEAD_BYTES + 1 + 1_000
    feed = Feed(START, revisions_max=100, memory_bytes_max=2 * weight)
    tell(feed, 11, 12, 13, value=bytes(1_000))

    assert await heard(feed.watch("", 11)) == [12, 13]
    with pytest.raises(Compacted):
        await anext(feed.watch("", 10))


async def test_a_commit_larger_than_the_memory_is_told_through_the_history():
    async def older(prefix, after):
        return Batch(11, (change(11),))

    feed = Feed(START, revisions_max=100, memory_bytes_max=10, older=older)
    watch = feed.watch("", START)
    tell(feed, 11)

    assert await heard(watch) == [11]
    assert feed.revision == 11


async def test_whoever_is_too_far_behind_reads_the_history_and_then_memory_again():
    asked = []

    async def older(prefix, after):
        asked.append((prefix, after))
        return Batch(after + 2, (change(after + 1), change(after + 2)))

    feed = Feed(START, revisions_max=2, older=older)
    tell(feed, *range(11, 17))
    watch = feed.watch("a", START)

    assert await heard(watch) == [11, 12]
    assert await heard(watch) == [13, 14]
    assert await heard(watch) == [15, 16]
    assert asked == [("a", 10), ("a", 12)]


async def test_commits_elsewhere_move_a_watcher_on_without_waking_its_consumer():
    feed = Feed(START, revisions_max=2)
    watch = feed.watch("b", START)
    waiting = asyncio.ensure_future(anext(watch))
    for revision in range(11, 31):
        tell(feed, revision)
        await asyncio.sleep(0)
        assert not waiting.done()
    tell(feed, 31, key="b")

    assert (await waiting).revision == 31  # and was not compacted away meanwhile


async def test_a_commit_with_no_change_under_the_prefix_is_no_batch():
    feed = Feed(START, revisions_max=100)
    feed.tell(11, (change(11, "a"), change(11, "b")))
    tell(feed, 12, key="a")

    assert await anext(feed.watch("b", START)) == Batch(12, (change(11, "b"),))


async def test_forgetting_ends_the_watches_that_are_behind_and_no_other():
    feed = Feed(START, revisions_max=100)
    tell(feed, 11, 12, 13)
    behind, ahead = feed.watch("", 11), feed.watch("", 12)
    feed.forget(12)

    with pytest.raises(Compacted) as raised:
        await anext(behind)
    assert raised.value.oldest == 12
    assert await heard(ahead) == [13]


async def test_closing_wakes_those_that_wait():
    feed = Feed(START, revisions_max=100)
    waiting = asyncio.ensure_future(anext(feed.watch("", START)))
    await asyncio.sleep(0)
    feed.close("over")

    with pytest.raises(Unavailable, match="over"):
        await waiting


async def test_a_commit_out_of_order_is_a_mistake_of_ours():
    feed = Feed(START, revisions_max=100)

    with pytest.raises(AssertionError):
        tell(feed, 12)
