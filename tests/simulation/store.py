"""The store as a third machine: one memory store, seen by each scheduler over a network.

The store's work runs in the store's own context, so a commit whose scheduler died on the way
may still take place. A request that is held up is delivered late, also when its caller has
given up: this is what makes fencing matter.
"""

import asyncio
import contextvars
from contextlib import aclosing

from scheduler.store.base import LEADER_KEY, Ambiguous, Unavailable
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

    @property
    def epoch(self):
        """The present leader's; None: nobody leads."""
        record = self._records.get(LEADER_KEY)
        return record.created if record is not None else None

    def heal(self):
        """Behave."""

    async def commit(self, writes, fence=None):
        FENCE.set(fence)
        return await super().commit(writes, fence)

    def _apply(self, writes):
        before = self._revision
        revision = super()._apply(writes)
        if revision != before:
            self.commits += 1
            changed = [
                (write.key, self._records.get(write.key))
                for write in writes
                if write.value is None or self._records[write.key].version == revision
            ]
            self._on_commit(revision, changed, FENCE.get())
        return revision


class StoreView:
    """One scheduler's connection to the store; a `scheduler.store.base.Store`."""

    def __init__(self, network, store, context):
        """`context` is the store machine's."""
        self.is_refusing = False  # the store's machine answers: connection refused
        self.cut_requests = False
        self.cut_answers = False
        self.slow_seconds = 0.0  # a request takes up to this much longer
        self._network = network
        self._store = store
        self._context = context

    def heal(self):
        self.is_refusing = self.cut_requests = self.cut_answers = False
        self.slow_seconds = 0.0

    @property
    def name(self):
        return self._store.name

    @property
    def operations_max(self):
        return self._store.operations_max

    async def get(self, key):
        return await self._ask(Unavailable, self._store.get, key)

    async def list(self, prefix):
        return await self._ask(Unavailable, self._store.list, prefix)

    async def commit(self, writes, fence=None):
        unknown = Ambiguous if writes else Unavailable
        return await self._ask(unknown, self._store.commit, tuple(writes), fence)

    async def compact(self, revision):
        return await self._ask(Unavailable, self._store.compact, revision)

    async def grant(self, ttl_seconds):
        return await self._ask(Unavailable, self._store.grant, ttl_seconds)

    async def keep_alive(self, lease):
        return await self._ask(Unavailable, self._store.keep_alive, lease)

    async def revoke(self, lease):
        return await self._ask(Unavailable, self._store.revoke, lease)

    async def watch(self, prefix, after):
        async with aclosing(self._store.watch(prefix, after)) as feed:
            async for batch in feed:
                await asyncio.sleep(self._network.delay())
                while self.cut_answers or self.is_refusing:  # noqa: ASYNC110 - as TCP resends
                    await asyncio.sleep(0.1)
                yield batch

    async def close(self):
        pass

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
