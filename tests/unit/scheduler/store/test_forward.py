"""A store whose revisions fall was restored; one stale read is not enough to say so."""

import asyncio

import pytest

from homeport.seams import SystemClock
from scheduler.store.base import Fence, Write
from scheduler.store.forward import CHECKS, ForwardStore, WentBack
from scheduler.store.memory import MemoryStore


class Swappable:
    """Delegates to a store that can be exchanged for another."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


async def aged(commits):
    store = MemoryStore(SystemClock())
    for _ in range(commits):
        await store.commit([Write("a", b"v")])
    return store


async def test_a_write_that_lands_in_the_past_is_certain():
    below = Swappable(await aged(9))
    store = ForwardStore(below)
    await store.commit([Write("a", b"v")])
    below.store = await aged(3)
    with pytest.raises(WentBack, match="went back from revision 11 to 5"):
        await store.commit([Write("b", b"v")])
    async with asyncio.timeout(5):
        assert "restored from a snapshot" in str(await store.swapped())


async def test_checks_have_to_speak_of_the_past_several_times():
    below = Swappable(await aged(9))
    store = ForwardStore(below)
    await store.list("")
    newer, older = below.store, await aged(3)
    for _ in range(CHECKS - 1):
        below.store = older
        await store.commit([])
    below.store = newer
    await store.commit([])  # it was a stale read after all
    below.store = older
    for _ in range(CHECKS - 1):
        await store.commit([])
    with pytest.raises(WentBack):
        await store.commit([])


async def test_answers_that_overtake_each_other_are_no_step_back():
    below = Swappable(await aged(1))
    store = ForwardStore(below)
    gate = asyncio.Event()

    async def late(writes, fence=None):
        revision = await below.store.commit(writes, fence)
        await gate.wait()
        return revision

    plain, below.commit = below.store.commit, late
    async with asyncio.TaskGroup() as background:
        first = background.create_task(store.commit([Write("a", b"1")]))
        await asyncio.sleep(0.01)
        below.commit = plain
        second = await store.commit([Write("a", b"2")])
        gate.set()
    assert first.result() < second


async def test_everything_else_is_the_stores_own():
    below = await aged(2)
    store = ForwardStore(below)
    lease = await store.grant(30)
    assert await store.keep_alive(lease) > 0
    await store.commit([Write("leader", b"me", lease=lease)])
    epoch = (await store.get("leader")).created
    assert await store.commit([], Fence(epoch)) == (await store.list("")).revision
    await store.revoke(lease)
    assert await store.get("leader") is None
    assert (store.name, store.operations_max) == (below.name, below.operations_max)
    await store.compact(2)
    await store.close()
