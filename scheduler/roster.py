"""Which schedulers there are: each leaves its address in the store for as long as it lives.

Agents and clients are told the list, so that they find the next leader when one is gone. A
record hangs on a lease, so nobody has to clear away after a machine that is never switched
on again, and a lease is kept alive without a write. It is long, and not given back at the
end: a scheduler that restarts does not drop out of the lists of all agents for that moment,
which would cost each of them a write on its disk.
"""

from __future__ import annotations

import asyncio

import structlog

from homeport import codec
from homeport.model import Scheduler
from homeport.seams import Clock, Randomness, jittered
from scheduler.store.base import SCHEDULERS, Store, StoreError, Write

LEASE_SECONDS = 60.0
LOOK_SECONDS = LEASE_SECONDS / 3
"""Between two looks: at our lease, and at who else is there."""
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
        """Keep our entry and look at the others', for ever."""
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._enter()
                    await self._look()
            except (StoreError, TimeoutError) as error:
                log.debug("the list of schedulers waits for the store", why=str(error))
                pause = RETRY_SECONDS
            else:
                pause = LOOK_SECONDS
            await asyncio.sleep(jittered(pause, self._randomness))

    async def _enter(self) -> None:
        if self._lease and await self._store.keep_alive(self._lease):
            return
        self._lease = await self._store.grant(LEASE_SECONDS)
        record = codec.encode_record(self._me)
        key = SCHEDULERS + self._me.address
        # Without a fence: it is about nobody else, and says nothing that the leader decides.
        await self._store.commit([Write(key, record, lease=self._lease)])

    async def _look(self) -> None:
        listing = await self._store.list(SCHEDULERS)
        found = {record.key.removeprefix(SCHEDULERS) for record in listing.records}
        self._known = tuple(sorted(found | {self._me.address}))
