"""The store as a third machine: one memory store, seen by each scheduler over a network.

The store's work runs in the store's own context, so a commit whose scheduler died on the way
may still take place. A request that is held up is delivered late, also when its caller has
given up: this is what makes fencing matter.
"""

import asyncio
import contextvars
import math
from contextlib import aclosing
from dataclasses import dataclass, replace

from scheduler.config import Timers
from scheduler.store.base import LEADER_KEY, SCHEDULERS, Ambiguous, Listing, StoreError, Unavailable
from scheduler.store.compare import refusal
from scheduler.store.memory import MemoryStore

DEADLINE_SECONDS = 5.0
LOST_SECONDS = 20.0
"""A request that is held up so long never arrives."""
FENCE = contextvars.ContextVar("fence", default=None)


class ObservedStore(MemoryStore):
    """A memory store that shows each commit to the checks at the moment it is made."""

    def __init__(self, clock, on_commit, **kwargs):
        super().__init__(clock, **kwargs)
        self.clock = clock
        self._on_commit = on_commit
        self.commits = 0
        self.is_full = False
        self.is_renewing_the_dead = False
        self._ttl_seconds = 0.0
        self._revoked_at = -math.inf

    @property
    def revoked_lately(self):
        """Whether a leader may still believe in a key that was taken from it."""
        return self.clock.boottime() < self._revoked_at + Timers().leader_lease_seconds * 1.02

    @property
    def epoch(self):
        """The present leader's; None: nobody leads."""
        record = self._records.get(LEADER_KEY)
        return record.created if record is not None else None

    def heal(self):
        """Behave."""
        self.is_full = self.is_renewing_the_dead = False

    def memory(self):
        """The store as it is now, for who will answer from the past."""
        return Past(dict(self._records), self._revision)

    def revoke_all(self):
        """End all leases, whoever holds them."""
        self._revoked_at = self.clock.boottime()
        for lease in tuple(self._leases._leases):
            self._end(lease)

    async def commit(self, writes, fence=None):
        if self.is_full and any(write.value is not None for write in writes):
            raise Unavailable("etcdserver: mvcc: database space exceeded")
        FENCE.set(fence)
        return await super().commit(writes, fence)

    async def grant(self, ttl_seconds):
        if self.is_full:
            raise Unavailable("etcdserver: mvcc: database space exceeded")
        self._ttl_seconds = ttl_seconds
        return await super().grant(ttl_seconds)

    async def keep_alive(self, lease):
        left = await super().keep_alive(lease)
        return self._ttl_seconds if self.is_renewing_the_dead else left

    def _apply(self, writes):
        before = self._revision
        revision = super()._apply(writes)
        if revision != before:
            # Who enters itself again after its lease was lost says nothing that is news.
            self.commits += any(not write.key.startswith(SCHEDULERS) for write in writes)
            changed = [
                (write.key, self._records.get(write.key))
                for write in writes
                if write.value is None or self._records[write.key].version == revision
            ]
            self._on_commit(revision, changed, FENCE.get())
        return revision


@dataclass(frozen=True)
class Past:
    """A store as it was, for reads."""

    records: dict
    revision: int

    async def get(self, key):
        return self.records.get(key)

    async def list(self, prefix):
        keys = sorted(key for key in self.records if key.startswith(prefix))
        return Listing(tuple(self.records[key] for key in keys), self.revision)

    async def commit(self, writes, fence):
        """A transaction without writes is a read to etcd."""
        if error := refusal(writes, fence, self._seen):
            raise error
        return self.revision

    def _seen(self, key):
        record = self.records.get(key)
        return (record.version, record.created) if record else (0, 0)


class StoreView:
    """One scheduler's connection to the store; a `scheduler.store.base.Store`."""

    def __init__(self, network, store, context):
        """`context` is the store machine's."""
        self.is_refusing = False  # the store's machine answers: connection refused
        self.cut_requests = False
        self.cut_answers = False
        self.slow_seconds = 0.0  # a request takes up to this much longer
        self.past = None  # reads are answered from it
        self.events_to_lose = 0
        self.late_writes = []  # seconds: such a commit takes place that much later, unanswered
        self.refused_at = -math.inf  # true time at which a commit failed last, or seemed to
        self._pauses_of_watches = []  # how long each that is cancelled is away
        self._network = network
        self._store = store
        self._context = context

    def heal(self):
        self.is_refusing = self.cut_requests = self.cut_answers = False
        self.slow_seconds = 0.0
        self.past = None
        self.events_to_lose = 0
        self.late_writes.clear()
        self._pauses_of_watches.clear()

    def cancel_watches(self, seconds):
        """The next watch that has something to tell is cancelled, and resumed after a while."""
        self._pauses_of_watches.append(seconds)

    @property
    def _reads(self):
        return self.past or self._store

    @property
    def name(self):
        return self._store.name

    @property
    def operations_max(self):
        return self._store.operations_max

    async def get(self, key):
        return await self._ask(Unavailable, self._reads.get, key)

    async def list(self, prefix):
        return await self._ask(Unavailable, self._reads.list, prefix)

    async def commit(self, writes, fence=None):
        unknown = Ambiguous if writes else Unavailable
        store = self._store if writes else self._reads
        try:
            if writes and self.late_writes:
                return await self._break_off(store.commit, tuple(writes), fence)
            return await self._ask(unknown, store.commit, tuple(writes), fence)
        except StoreError:
            self.refused_at = self._network.loop.now
            raise

    async def compact(self, revision):
        return await self._ask(Unavailable, self._store.compact, revision)

    async def grant(self, ttl_seconds):
        return await self._ask(Unavailable, self._store.grant, ttl_seconds)

    async def keep_alive(self, lease):
        return await self._ask(Unavailable, self._store.keep_alive, lease)

    async def revoke(self, lease):
        return await self._ask(Unavailable, self._store.revoke, lease)

    async def watch(self, prefix, after):
        while True:
            async with aclosing(self._store.watch(prefix, after)) as feed:
                async for batch in feed:
                    await asyncio.sleep(self._network.delay())
                    while self.cut_answers or self.is_refusing:  # noqa: ASYNC110 - as TCP resends
                        await asyncio.sleep(0.1)
                    if self._pauses_of_watches:
                        await asyncio.sleep(self._pauses_of_watches.pop())
                        break  # resumed behind what was told last
                    after = batch.revision
                    if batch := self._what_is_told(batch):
                        yield batch

    def _what_is_told(self, batch):
        lost = min(self.events_to_lose, len(batch.changes))
        if not lost:
            return batch
        self.events_to_lose -= lost
        return replace(batch, changes=batch.changes[lost:]) if lost < len(batch.changes) else None

    async def close(self):
        pass

    async def _break_off(self, method, *arguments):
        """The connection breaks, and the request takes place all the same, later."""
        loop = self._network.loop
        seconds, nobody = self.late_writes.pop(0), loop.create_future()
        self._network.later(seconds, self._deliver, loop.now, nobody, method, arguments)
        await asyncio.sleep(self._network.delay())
        raise Ambiguous("the connection to the store broke")

    async def _ask(self, unknown, method, *arguments):
        if self.is_refusing:
            await asyncio.sleep(self._network.delay())
            raise Unavailable("connection refused")
        answer = asyncio.get_running_loop().create_future()
        asked = self._network.loop.now
        delay = self._network.delay() + self._network.loop.rng.random() * self.slow_seconds
        self._network.later(delay, self._deliver, asked, answer, method, arguments)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await answer
        except TimeoutError:
            raise unknown(f"no answer for {DEADLINE_SECONDS:g} s") from None

    def _deliver(self, asked, answer, method, arguments):
        loop = self._network.loop
        if self.cut_requests or self.is_refusing:
            if loop.now - asked < LOST_SECONDS:
                self._network.later(0.1, self._deliver, asked, answer, method, arguments)
            return
        loop.create_task(self._carry_out(answer, method, arguments), context=self._context.copy())

    async def _carry_out(self, answer, method, arguments):
        try:
            result = await method(*arguments)
        except Exception as error:  # noqa: BLE001 - the caller's to judge
            result = error
        self._network.later(self._network.delay(), self._answer, answer, result)

    def _answer(self, answer, result):
        if self.cut_answers or self.is_refusing or answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)
