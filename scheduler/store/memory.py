"""The store in memory: the reference for what the others answer, and the simulation's store.

Everything happens at once between two awaits, so its answers are the contract in its
plainest form. It keeps nothing: for tests and simulations only. Several schedulers may
share one object, as they would share one etcd.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Sequence

from homeport.seams import Clock
from scheduler.store.base import (
    EMPTY_REVISION,
    OPERATIONS_MAX,
    Batch,
    Fence,
    LeaseGone,
    Listing,
    Record,
    StoreChange,
    Unavailable,
    Write,
)
from scheduler.store.compare import check, refusal
from scheduler.store.feed import Feed
from scheduler.store.leases import Leases

TIMER_SECONDS_MIN = 0.001
"""The shortest timer for the end of a lease: a clock may lag behind the loop's by rounding."""


class MemoryStore:
    """A dictionary with revisions. Make it inside a running event loop."""

    def __init__(self, clock: Clock, *, history_revisions: int = 10_000) -> None:
        """An empty store that remembers its last `history_revisions` commits."""
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._revision = EMPTY_REVISION
        self._feed = Feed(EMPTY_REVISION, revisions_max=history_revisions)
        self._leases = Leases()
        self._timer: asyncio.TimerHandle | None = None
        # A lease must end also when the process that asked for it is gone: in a simulation
        # a process is a context, and what was started in it dies with it.
        self._context = contextvars.copy_context()
        self._closed = False

    @property
    def name(self) -> str:
        """For people."""
        return "memory"

    @property
    def operations_max(self) -> int:
        """How many writes one commit may carry."""
        return OPERATIONS_MAX

    async def get(self, key: str) -> Record | None:
        """The record as it is now, or None."""
        await self._turn()
        return self._records.get(key)

    async def list(self, prefix: str) -> Listing:
        """All records whose key starts with `prefix`."""
        await self._turn()
        keys = sorted(key for key in self._records if key.startswith(prefix))
        return Listing(tuple(self._records[key] for key in keys), self._revision)

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """Make all writes, or none; see `Store.commit`."""
        writes = tuple(writes)
        check(writes, self.operations_max)
        await self._turn()
        if error := refusal(writes, fence, self._seen):
            raise error
        now = self._clock.boottime()
        for lease in (write.lease for write in writes if write.value is not None and write.lease):
            if not self._leases.is_alive(lease, now):
                raise LeaseGone(lease)
        return self._apply(writes)

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` behind revision `after`."""
        return self._feed.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`."""
        await self._turn()
        self._feed.forget(min(revision, self._revision))

    async def grant(self, ttl_seconds: float) -> int:
        """A new lease."""
        await self._turn()
        lease = self._leases.grant(ttl_seconds, self._clock.boottime())
        self._set_timer()
        return lease

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease; 0 when it is gone."""
        await self._turn()
        return self._leases.keep_alive(lease, self._clock.boottime())

    async def revoke(self, lease: int) -> None:
        """End a lease now, deleting its keys."""
        await self._turn()
        self._end(lease)

    async def close(self) -> None:
        """End all watches; every later call raises Unavailable."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._feed.close("the store is closed")

    async def _turn(self) -> None:
        """Let others run, as any real store would, then be up to date."""
        await asyncio.sleep(0)
        if self._closed:
            raise Unavailable("the store is closed")
        self._end_leases()

    def _seen(self, key: str) -> tuple[int, int]:
        record = self._records.get(key)
        return (record.version, record.created) if record else (0, 0)

    def _apply(self, writes: Sequence[Write]) -> int:
        revision = self._revision + 1
        changes: list[StoreChange] = []
        for write in writes:
            if write.value is not None:
                created = self._seen(write.key)[1] or revision
                self._records[write.key] = Record(write.key, write.value, revision, created)
                self._leases.written(write.key, revision, write.lease)
                changes.append(StoreChange(write.key, write.value, revision, created))
            elif self._records.pop(write.key, None):
                self._leases.written(write.key, 0, 0)
                changes.append(StoreChange(write.key, None, revision, 0))
        if changes:
            self._revision = revision
            self._feed.tell(revision, tuple(changes))
        return self._revision

    def _end(self, lease: int) -> None:
        self._apply([Write(key, None) for key in self._leases.end(lease)])

    def _end_leases(self) -> None:
        for lease in self._leases.ended(self._clock.boottime()):
            self._end(lease)

    def _set_timer(self) -> None:
        """Wake when the next lease ends; a timer that comes too early sets the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self._leases.next_deadline()) is not None:
            delay = max(deadline - self._clock.boottime(), TIMER_SECONDS_MIN)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._on_timer, context=self._context)

    def _on_timer(self) -> None:
        self._end_leases()
        self._set_timer()
