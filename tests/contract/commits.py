"""What the tests of stores write, and how they look at what was written."""

import asyncio
import contextlib

from scheduler.store.base import (
    ABSENT,
    ANY,
    LEADER_KEY,
    Batch,
    Fence,
    StoreChange,
    StoreError,
    Write,
)

WAIT_SECONDS = 10
LONG_LEASE_SECONDS = 60


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
    """Become the leader; the fence of this epoch."""
    return Fence(await store.commit([put(LEADER_KEY, b"me", ABSENT, lease)]))


async def refused(commit):
    """The answer to a commit, or why there is none."""
    try:
        return await commit
    except StoreError as error:
        return error
