"""Who leads: one scheduler at a time, known by its epoch, for as long as it can prove it.

The leader holds a lease in the store, and with it the key LEADER_KEY; the revision that
made the key is the *epoch*. What counts is not what the store thinks but what the leader
can prove: it leads until `lead_until`, which is the moment it *sent* its last successful
renewal plus the lease, less a margin, on boot time. That moment comes before the store
lets go of the key, so two leaders never overlap, however long a process or an answer was
held up. A renewal that comes back too late proves nothing and does not bring a leadership
back: whoever lost it stands again and gets a new, higher epoch.

A renewal is a keep-alive *and* a check that the key is still ours, because a lease alone
does not say so. Neither writes anything to disk.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import structlog

from homeport import codec
from homeport.model import Leader
from homeport.seams import Clock, Randomness, jittered
from scheduler.config import Timers
from scheduler.store.base import (
    ABSENT,
    LEADER_KEY,
    Compacted,
    Conflict,
    Fence,
    Fenced,
    Store,
    StoreError,
    Write,
)

RETRY_SECONDS = 0.25
"""Between two tries when the store did not do what was asked."""
RENEWALS = 5
TRIES = 6
"""A lease is renewed so often, and one try takes so small a part of it, that its end is not in
sight when etcd has lost its own leader: two seconds until there is another, then one more try,
by another member if the first one still waits for the leader that is gone."""
GIVE_BACK_SECONDS = 1.0
"""How long a leader that stops tries to hand its lease back before it lets it run out."""

log = structlog.get_logger(__name__)


class Leadership:
    """One epoch of ours: what whoever acts as the leader asks before acting."""

    def __init__(self, epoch: int, clock: Clock, lead_until: float) -> None:
        """Made by the election alone."""
        self.epoch = epoch
        self.fence = Fence(epoch)
        self.lost = asyncio.Event()
        self._clock = clock
        self._lead_until = lead_until

    @property
    def lead_until(self) -> float:
        """The boot time up to which we certainly lead; in the past for ever once it is over."""
        return self._lead_until

    @property
    def is_proven(self) -> bool:
        """Whether we certainly lead now; ask before every grant of a node's lease."""
        return self._clock.boottime() < self._lead_until

    def extend(self, lead_until: float) -> bool:
        """Take a renewal into account; False when it came too late to count."""
        if not self.is_proven:
            return False
        self._lead_until = max(self._lead_until, lead_until)
        return True

    def end(self) -> None:
        """Drop all authority, now and for good."""
        self._lead_until = -math.inf
        self.lost.set()


class Election:
    """Stands for leader, leads, loses, and stands again."""

    def __init__(
        self,
        store: Store,
        *,
        me: Leader,
        timers: Timers,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        """`me` is what others read in the leader's record: our id and where we answer."""
        self._store = store
        self._me = me
        self._clock = clock
        self._randomness = randomness
        self._lease_seconds = timers.leader_lease_seconds
        self._margin_seconds = timers.margin_seconds
        self.trouble = ""
        """Why it cannot be known who leads, or whether we still do, as the store says; empty: it
        is known."""
        self._leader: Leader | None = None
        self._changed = asyncio.Event()

    @property
    def leader(self) -> Leader | None:
        """Who leads, as far as we know; None while nobody does."""
        return self._leader

    async def leader_changed(self) -> None:
        """Return when `leader` is another than now."""
        await self._changed.wait()

    async def run(self, on_lead: Callable[[Leadership], Awaitable[None]]) -> None:
        """Stand, and call `on_lead` with each leadership won; for ever.

        `on_lead` is cancelled when the leadership is lost, and done before we stand again.
        When it returns, or raises Fenced, the lease is given back; what else it raises ends
        the election, in an ExceptionGroup.
        """
        while True:
            lease, leadership = await self._win()
            try:
                await self._lead(lease, leadership, on_lead)
            finally:
                leadership.end()
                self._see(None)
                await self._give_back(lease)
            await self._pause()  # others first; and work that fails at once must not spin

    # ------------------------------------------------------------------ standing

    async def _win(self) -> tuple[int, Leadership]:
        while True:
            try:
                await self._until_vacant()
                if won := await self._stand():
                    return won
            except StoreError as error:
                self.trouble = str(error)
                log.warning("cannot stand for leader", store=self._store.name, error=str(error))
                await self._pause()

    async def _until_vacant(self) -> None:
        """Return when nobody leads, having followed who does until then."""
        while True:
            listing = await self._store.list(LEADER_KEY)
            self.trouble = ""
            value = next((each.value for each in listing.records if each.key == LEADER_KEY), None)
            self._see(value)
            if value is None:
                return
            # A watch may fail without a word: look again once per lease in any case.
            with suppress(TimeoutError, Compacted):
                async with (
                    asyncio.timeout(self._lease_seconds),
                    aclosing(self._store.watch(LEADER_KEY, listing.revision)) as watch,
                ):
                    async for batch in watch:
                        for change in batch.changes:
                            if change.key == LEADER_KEY:
                                value = change.value
                        self._see(value)
                        if value is None:
                            return

    async def _stand(self) -> tuple[int, Leadership] | None:
        """Try to make the leader's key; None when another was faster."""
        sent = self._clock.boottime()
        lease = await self._store.grant(self._lease_seconds)
        me = dataclasses.replace(self._me, since_ms=self._clock.wall_ms())
        value = codec.encode_record(me)
        try:
            epoch = await self._store.commit([Write(LEADER_KEY, value, ABSENT, lease)])
            leadership = Leadership(epoch, self._clock, self._proven_until(sent))
            if leadership.is_proven:
                log.info("leading", epoch=epoch)
                self._see(value)
                return lease, leadership
            log.warning("won too late to lead", epoch=epoch)
        except Conflict:
            pass
        except BaseException:
            # The key may have been made after all; it goes with the lease.
            await self._give_back(lease)
            raise
        await self._give_back(lease)
        return None

    def _proven_until(self, sent: float) -> float:
        return sent + self._lease_seconds - self._margin_seconds

    # ------------------------------------------------------------------ leading

    async def _lead(
        self, lease: int, leadership: Leadership, on_lead: Callable[[Leadership], Awaitable[None]]
    ) -> None:
        # The tasks return why it is over and do not raise it: a TaskGroup of Python 3.11 and
        # 3.12 forgets that it was cancelled from outside when a task fails in that moment.
        async with asyncio.TaskGroup() as group:
            tasks = (
                group.create_task(self._hold(lease, leadership), name="leader lease"),
                group.create_task(_work(leadership, on_lead), name="leader"),
            )
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        reasons = [task.result() for task in tasks if task in done and not task.cancelled()]
        log.warning("leads no more", epoch=leadership.epoch, reason="; ".join(reasons))

    async def _hold(self, lease: int, leadership: Leadership) -> str:
        try:
            return await self._renew(lease, leadership)
        finally:
            leadership.end()  # at once: the work hears of it only when its turn comes

    async def _renew(self, lease: int, leadership: Leadership) -> str:
        """Extend the leadership in time until that fails; returns why it did."""
        pause_seconds = self._lease_seconds / RENEWALS
        while True:
            left_seconds = leadership.lead_until - self._clock.boottime()
            await asyncio.sleep(max(0.0, min(pause_seconds, left_seconds)))
            sent = self._clock.boottime()
            left_seconds = leadership.lead_until - sent
            try:
                async with asyncio.timeout(min(self._lease_seconds / TRIES, left_seconds)):
                    if not await self._store.keep_alive(lease):
                        return "the lease has ended"
                    await self._store.commit([], leadership.fence)
            except Fenced as error:
                return str(error)
            except TimeoutError:
                reason = f"{self._store.name} does not answer"
            except StoreError as error:
                reason = str(error)
            else:
                self.trouble = ""
                if not leadership.extend(self._proven_until(sent)):
                    return "the lease was renewed too late"
                pause_seconds = self._lease_seconds / RENEWALS
                continue
            self.trouble = reason
            if not leadership.is_proven:
                return reason
            log.warning("cannot renew the leadership", epoch=leadership.epoch, reason=reason)
            pause_seconds = RETRY_SECONDS

    # ------------------------------------------------------------------ both

    async def _pause(self) -> None:
        await asyncio.sleep(jittered(RETRY_SECONDS, self._randomness))

    async def _give_back(self, lease: int) -> None:
        """End our lease, so that others need not wait for it; it ends by itself otherwise."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._store.revoke(lease)

    def _see(self, value: bytes | None) -> None:
        leader = None
        if value is not None:
            try:
                leader = codec.decode_record(Leader, value)
            except codec.CodecError as error:
                log.warning("cannot read who leads", error=str(error))
        if leader != self._leader:
            self._leader = leader
            self._changed.set()
            self._changed = asyncio.Event()


async def _work(leadership: Leadership, on_lead: Callable[[Leadership], Awaitable[None]]) -> str:
    reasons = ["the work is done"]
    try:
        await on_lead(leadership)
    except* Fenced as fenced:
        reasons = [str(error) for error in _leaves(fenced)]
    return "; ".join(reasons)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
