"""Which schedulers there are: each leaves its address in the store for as long as it lives.

Agents and clients are told the list, so that they find the next leader when one is gone. A
record hangs on a lease, so nobody has to clear away after a machine that is never switched
on again, and a lease is kept alive without a write. It is long, and not given back at the
end: a scheduler that restarts does not drop out of the lists of all agents for that moment,
which would cost each of them a write on its disk.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from homeport import codec
from homeport.model import Scheduler
from homeport.seams import Clock, Randomness, jittered
from scheduler.store.base import SCHEDULERS, Store, StoreError, Write

LEASE_SECONDS = 60.0
RENEW_SECONDS = LEASE_SECONDS / 3
RETRY_SECONDS = 2.0
CALL_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Roster:
    """This scheduler's entry, and what the others' say."""

    def __init__(
        self, store: Store, *, me: Scheduler, clock: Clock, randomness: Randomness
    ) -> None:
        """Knows nobody but `me` before `run`."""
        self._store = store
        self._me = me
        self._clock = clock
        self._randomness = randomness
        self._lease = 0
        self._known: tuple[str, ...] = (me.address,)

    def addresses(self, leader: str = "") -> tuple[str, ...]:
        """Where schedulers are reached; the leader first, where one is known."""
        first = (leader,) if leader else ()
        return tuple(dict.fromkeys((*first, *self._known)))

    async def run(self) -> None:
        """Keep our entry and follow the others', for ever."""
        async with asyncio.TaskGroup() as background:
            background.create_task(self._stay(), name="our own entry")
            background.create_task(self._follow(), name="the others' entries")

    async def _stay(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._enter()
            except (StoreError, TimeoutError) as error:
                log.debug("our entry waits for the store", why=str(error))
                pause = RETRY_SECONDS
            else:
                pause = RENEW_SECONDS
            await asyncio.sleep(jittered(pause, self._randomness))

    async def _enter(self) -> None:
        if self._lease and await self._store.keep_alive(self._lease):
            return
        self._lease = await self._store.grant(LEASE_SECONDS)
        record = codec.encode_record(self._me)
        key = SCHEDULERS + self._me.address
        # Without a fence: it is about nobody else, and says nothing that the leader decides.
        await self._store.commit([Write(key, record, lease=self._lease)])

    async def _follow(self) -> None:
        # At once, and not at the next look: an agent whose scheduler dies a moment after it
        # joined must know the others by then.
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    listing = await self._store.list(SCHEDULERS)
                self._learn({record.key for record in listing.records})
                # A watch may fail without a word: look again once in a while in any case.
                async with (
                    asyncio.timeout(LEASE_SECONDS),
                    aclosing(self._store.watch(SCHEDULERS, listing.revision)) as watch,
                ):
                    there = {record.key for record in listing.records}
                    async for batch in watch:
                        for change in batch.changes:
                            if change.value is None:
                                there.discard(change.key)
                            else:
                                there.add(change.key)
                        self._learn(there)
            except TimeoutError:
                continue
            except StoreError as error:
                log.debug("the others' entries wait for the store", why=str(error))
                await asyncio.sleep(jittered(RETRY_SECONDS, self._randomness))

    def _learn(self, keys: set[str]) -> None:
        found = {key.removeprefix(SCHEDULERS) for key in keys}
        self._known = tuple(sorted(found | {self._me.address}))
