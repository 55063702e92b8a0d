"""One session after another, with whichever scheduler answers.

Nothing that runs here depends on one: when a session ends, for whatever reason, the next
scheduler is tried (`agent.dialing`) and everything begins anew. A newcomer's mistake:
believing a scheduler because it answers. One that was restored from a backup, or leads no
more without knowing, shows where it stands, and is left when that is behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from agent import orders as rules
from agent.connection import REFUSED_SECONDS, Connection, Desk, Ended, Goodbye, Holder
from agent.dialing import Dialing
from agent.identity import Identity, IdentityStore
from homeport.model import OrderId
from homeport.seams import Clock, LinkLost, Randomness, Refused, SchedulerLink, Transport, jittered

__all__ = ["Desk", "Goodbye", "Sessions"]

log = structlog.get_logger(__name__)


class Sessions:
    """One session after another, for as long as the agent runs."""

    def __init__(
        self,
        *,
        transport: Transport,
        desk: Desk,
        identities: IdentityStore,
        clock: Clock,
        randomness: Randomness,
        schedulers: tuple[str, ...],
        identity: Identity,
        boot_id: str,
        version: str,
        may_dial: Callable[[str], bool] = lambda _: True,
        pointed: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`identity` is this node's, which has joined (`agent.joining`).

        `may_dial` says whether to believe a scheduler that names another by this address;
        `pointed` are the schedulers that an operator has named since the agent started.
        """
        self.identity = identity
        self._may_dial = may_dial
        self._pointed = pointed
        self.is_connected = False
        self.connected_to = ""
        self.link: SchedulerLink | None = None
        """The link of the session that is open or opening."""
        self.stopped = asyncio.Event()
        """Set when `run` has returned."""
        self.sessions = 0
        """How many were welcomed since the agent started."""
        self.last_answer_ms = 0
        """Wall clock of the last answer to a heartbeat."""
        self._transport = transport
        self._desk = desk
        self._identities = identities
        self._clock = clock
        self._randomness = randomness
        self._configured = schedulers
        self._boot_id = boot_id
        self._version = version
        self._dialing = Dialing()
        self._goodbye: tuple[Goodbye, str] | None = None
        self._stop = asyncio.Event()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The schedulers to try: those that an operator points at, that we were given, and that
        they named."""
        pointed = filter(self._may_dial, self._pointed())
        told = filter(self._may_dial, self.identity.schedulers)
        return tuple(dict.fromkeys([*pointed, *self._configured, *told]))

    def stop(self, goodbye: Goodbye, reason: str) -> None:
        """Say goodbye and return from `run`."""
        self._goodbye = (goodbye, reason)
        self._stop.set()

    async def run(self) -> None:
        """Hold a session with one scheduler after the other, until `stop`."""
        try:
            await self._hold()
        finally:
            self.stopped.set()

    async def _hold(self) -> None:
        dialing = self._dialing
        while not self._stop.is_set():
            address = dialing.next(self.addresses)
            began = self._clock.boottime()
            pause, leader = 0.0, ""
            try:
                await self._one(address)
            except Refused as error:
                log.warning("refused by the scheduler", scheduler=address, why=str(error))
                pause = REFUSED_SECONDS
            except Ended as error:
                log.info("session ended", scheduler=address, why=str(error))
                pause = error.retry_seconds
                if error.leader not in ("", address) and self._may_dial(error.leader):
                    leader = error.leader
            except LinkLost as error:
                level = log.debug if dialing.failures else log.info
                level("no scheduler", scheduler=address, why=str(error))
            except Exception:
                # The connection outlives whatever goes wrong in one session: containers
                # run on meanwhile, and the next session begins from nothing.
                log.exception("a session failed", scheduler=address)
            lasted = self._clock.boottime() - began
            pause, back_off = dialing.ended(lasted, pause_seconds=pause, leader=leader)
            if back_off:
                pause = max(pause, jittered(back_off, self._randomness))
            if pause:
                await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    # ---------------------------------------------------------------- one session

    async def _one(self, address: str) -> None:
        link = self._transport.connect(address)
        try:
            self.link = link
            await Connection(link, self._desk, self._holder(address)).run()
        except BaseExceptionGroup as group:
            raise _telling(group) from None
        finally:
            self.link = None
            if self.is_connected:
                self.is_connected = False
                self._dialing.answered()
            self._desk.reporter.lose()
            self._desk.node.tell_again()
            await link.close()

    def _holder(self, address: str) -> Holder:
        def opened() -> None:
            self.is_connected, self.connected_to = True, address
            self.sessions += 1
            log.info("session open", scheduler=address, node=self.identity.name)

        def answered() -> None:
            self.last_answer_ms = self._clock.wall_ms()

        async def goodbye() -> tuple[Goodbye, str]:
            await self._stop.wait()
            return self._goodbye or (Goodbye.AGENT_RESTARTING, "")

        return Holder(
            boot_id=self._boot_id,
            version=self._version,
            clock=self._clock,
            randomness=self._randomness,
            identity=lambda: self.identity,
            opened=opened,
            answered=answered,
            learn=self._learn,
            floor=self._floor,
            goodbye=goodbye,
        )

    def _learn(self, schedulers: tuple[str, ...], name: str) -> None:
        known = self.identity
        changed = replace(known, schedulers=schedulers or known.schedulers, name=name or known.name)
        if changed != known:
            self.identity = changed
            self._identities.save(changed)

    def _floor(self, order: OrderId) -> None:
        """A scheduler shows where it stands. Raises Ended when that is behind."""
        journal = self._desk.journal
        if order.cluster and order.cluster != self.identity.cluster_id:
            raise Ended(
                f"the scheduler is of cluster {order.cluster}, this node of"
                f" {self.identity.cluster_id}",
                retry_seconds=REFUSED_SECONDS,
            )
        if rules.is_behind(order, seen=journal.seen, floor=journal.floor):
            raise Ended(
                "the scheduler is behind: it leads no longer, or was restored from a backup"
            )
        journal.show(order.order[:2])


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the session; a link that broke on the way down adds nothing."""
    leaves: list[BaseException] = []
    heap: list[BaseException] = [group]
    while heap:
        error = heap.pop()
        if isinstance(error, BaseExceptionGroup):
            heap += error.exceptions
        else:
            leaves.append(error)
    for kind in (Ended, Refused, LinkLost):
        found = [error for error in leaves if isinstance(error, kind)]
        if found and len(found) < len(leaves) and kind is LinkLost:
            break  # something unexpected: all of it belongs into the log
        if found:
            return found[0]
    return group
