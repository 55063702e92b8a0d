"""Verify of the store in memory what a simulation rests on: virtual time, and deaths."""

import asyncio
import contextlib

import pytest

from scheduler.store.base import Write
from scheduler.store.memory import MemoryStore
from tests.simulation.loop import SimulatedClock, SimulatedLoop


@pytest.fixture
def loop():
    loop = SimulatedLoop(seed=1)
    yield loop
    loop.close()


async def next_changes(store, after):
    async with contextlib.aclosing(store.watch("", after)) as watch:
        return (await anext(watch)).changes


def test_a_lease_ends_at_its_time_and_not_with_whoever_asked_for_it(loop):
    async def scenario():
        store = MemoryStore(SimulatedClock(loop))
        written = asyncio.Event()

        async def process():
            lease = await store.grant(5)
            await store.commit([Write("a", b"", lease=lease)])
            written.set()
            await asyncio.sleep(1_000)

        loop.spawn(("scheduler", 1), process())
        await written.wait()
        loop.kill(("scheduler", 1))

        (change,) = await next_changes(store, after=2)
        return change.key, change.value, loop.time()

    assert loop.run_until_complete(scenario()) == ("a", None, pytest.approx(5, abs=0.01))


def test_a_lease_follows_the_clock_of_the_store(loop):
    async def scenario():
        store = MemoryStore(SimulatedClock(loop, rate=0.5, offset=1e6))
        lease = await store.grant(5)
        await store.commit([Write("a", b"", lease=lease)])

        await next_changes(store, after=2)
        return loop.time()

    assert loop.run_until_complete(scenario()) == pytest.approx(10, abs=0.01)


def test_two_schedulers_share_one_store(loop):
    async def scenario():
        store = MemoryStore(SimulatedClock(loop))
        heard = {}

        async def process(name):
            for n in range(10):
                await store.commit([Write(f"{name}/{n}", b"")])
                await asyncio.sleep(0.1)
            heard[name] = []
            async with contextlib.aclosing(store.watch("", 0)) as watch:
                while len(heard[name]) < 20:
                    heard[name] += [change.key for change in (await anext(watch)).changes]

        await asyncio.wait([loop.spawn(("a", 1), process("a")), loop.spawn(("b", 1), process("b"))])
        return heard

    heard = loop.run_until_complete(scenario())
    assert heard["a"] == heard["b"]
    assert len(set(heard["a"])) == 20
