"""Turns at the engine: a few containers are made and started at a time, the most important first.

A newcomer's mistake: a plain semaphore, which serves whoever came first. After a reboot all
tasks of a node come at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Starts:
    """So many turns at a time."""

    def __init__(self, in_flight: int) -> None:
        self._free = in_flight
        self._count = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def locked(self) -> bool:
        """Whether whoever comes now has to wait."""
        return not self._free or bool(self._waiting)

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Wait for a turn; of those who wait the highest priority comes first, then the first."""
        if self.locked():
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (-priority, next(self._count), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        else:
            self._free -= 1
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
