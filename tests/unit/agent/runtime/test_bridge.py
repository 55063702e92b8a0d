"""From a thread that reads to a coroutine that wants what it read."""

import asyncio
import threading

import pytest

from agent.runtime.base import Unavailable
from agent.runtime.bridge import CAPACITY, Bridge, Closed, Threads


async def test_all_that_was_put_comes_in_order_and_then_the_end() -> None:
    bridge: Bridge[int] = Bridge()

    def produce() -> None:
        for number in range(5 * CAPACITY):
            bridge.put(number)
        bridge.finish()

    threading.Thread(target=produce).start()
    found = []
    while (number := await bridge.get()) is not None:
        found.append(number)
    assert found == list(range(5 * CAPACITY))
    assert await bridge.get() is None


async def test_a_failure_comes_after_what_was_put_before_it() -> None:
    bridge: Bridge[int] = Bridge()
    bridge.put(1)
    bridge.finish(Unavailable("gone"))
    assert await bridge.get() == 1
    with pytest.raises(Unavailable, match="gone"):
        await bridge.get()


async def test_a_thread_waits_for_a_slow_reader_and_is_freed_when_he_leaves() -> None:
    bridge: Bridge[int] = Bridge()
    is_full, ended = threading.Event(), threading.Event()
    put = 0

    def produce() -> None:
        nonlocal put
        try:
            while True:
                bridge.put(put)
                put += 1
                if put == CAPACITY:
                    is_full.set()
        except Closed:
            ended.set()

    threading.Thread(target=produce, daemon=True).start()
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, is_full.wait, 10)
    assert not ended.is_set()
    bridge.close()
    assert await loop.run_in_executor(None, ended.wait, 10)
    assert put == CAPACITY


def test_there_are_no_more_threads_than_allowed() -> None:
    threads = Threads("streams", 2)
    leave = threading.Event()
    ended = threading.Semaphore(0)

    def work() -> None:
        leave.wait(10)
        ended.release()

    threads.start(work)
    threads.start(work)
    with pytest.raises(Unavailable, match="2 streams are open"):
        threads.start(work)
    leave.set()
    assert ended.acquire(timeout=10)
    assert ended.acquire(timeout=10)
