"""From a thread that reads a socket to a coroutine that wants what it read, and back.

The thread may be faster than its reader, so the way between is short and blocks the thread
when it is full. A newcomer's mistake: a coroutine that stops reading must set the thread
free, or it sleeps for ever on a full queue; `close` does that, from either side, at any time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from agent.runtime.base import Unavailable

Item = TypeVar("Item")

CAPACITY = 16
"""Items: an engine's are of 16 KiB at most, so that 64 slow readers cost 16 MiB and no more."""


class Closed(Exception):
    """Nobody reads any more."""


class Bridge(Generic[Item]):
    """A short queue from one thread to one coroutine."""

    def __init__(self) -> None:
        """Must be made in the running event loop of its reader."""
        self._loop = asyncio.get_running_loop()
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._arrived = asyncio.Event()
        self._failure: Exception | None = None
        self._is_closed = False
        self._is_finished = False

    def put(self, item: Item) -> None:
        """From the thread: pass on an item; waits for room. Raises Closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._items) < CAPACITY)
            if self._is_closed:
                raise Closed
            self._items.append(item)
        self._wake()

    def finish(self, failure: Exception | None = None) -> None:
        """From the thread: there will be no more, because of `failure` or as it should be."""
        with self._changed:
            self._failure = failure
            self._is_finished = True
        self._wake()

    def close(self) -> None:
        """From the reader: nothing more is wanted."""
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    async def get(self) -> Item | None:
        """From the reader: the next item; None at the end. Raises what the thread failed with."""
        while True:
            self._arrived.clear()
            with self._changed:
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify()
                    return item
                if self._is_finished:
                    if self._failure is not None:
                        raise self._failure
                    return None
            await self._arrived.wait()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            # The loop is closed, and its reader with it.
            self.close()


class Threads:
    """A bounded number of threads, each of which lives as long as one stream."""

    def __init__(self, what: str, most: int) -> None:
        """`what` names the streams in the refusal when there are too many."""
        self._what = what
        self._most = most
        self._running = 0
        self._lock = threading.Lock()

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own. Raises Unavailable when there are too many."""
        with self._lock:
            if self._running >= self._most:
                raise Unavailable(
                    f"{self._most} {self._what} are open on this node already: close one"
                )
            self._running += 1

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._running -= 1

        # A daemon: a thread that hangs in a read must not keep the agent from ending.
        threading.Thread(target=run, name=self._what, daemon=True).start()
