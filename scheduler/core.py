"""A scheduler above its transports: it follows the store, stands for leader, and leads.

gRPC and the simulation put their own listeners on the same object. A newcomer's mistake:
keeping something from one leadership to the next. All that a leader holds is made in
`_lead` and gone when it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from homeport.model import Cluster, Leader, Scheduler
from homeport.seams import Clock, Randomness, identifier
from scheduler.api.answering import Lead
from scheduler.api.feed import Feed
from scheduler.api.front import Front, Hop
from scheduler.api.service import ControlService
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Dirt, Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.config import Timers
from scheduler.controller import Controller
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.lanes import Lanes
from scheduler.election import Election, Leadership
from scheduler.roster import Roster
from scheduler.store import standing
from scheduler.store.authority import Authority
from scheduler.store.base import (
    Ambiguous,
    Conflict,
    Damaged,
    Store,
    StoreError,
    Unavailable,
)
from scheduler.store.commit import Committer
from scheduler.store.forward import ForwardStore
from scheduler.store.images import Images
from scheduler.store.known import KnownCluster
from scheduler.store.mirror import Mirror

RETRY_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Core:
    """One scheduler process without its listeners."""

    def __init__(
        self,
        *,
        store: Store,
        me: Leader,
        timers: Timers,
        clock: Clock,
        randomness: Randomness,
        images: Images,
        writer: str,
        hop: Hop | None = None,
        known: KnownCluster | None = None,
    ) -> None:
        """`writer` is this scheduler's name in the store, the same after a restart.

        `hop` is the way to the leader; without one, users are told its address instead. `known`
        is the cluster that this scheduler worked for before.
        """
        self._store = store = ForwardStore(store)
        self.mirror = Mirror(store, on_rewritten=store.condemn)
        self.lanes = Lanes()
        self.control = ControlService(
            images=images, store=store, mirror=self.mirror, clock=clock, address=me.address
        )
        self.control.schedulers = self._schedulers
        self.front = Front(self.control, store, hop)
        self.roster = Roster(
            store,
            me=Scheduler(id=writer, address=me.address, since_ms=clock.wall_ms()),
            clock=clock,
            randomness=randomness,
        )
        self.election = Election(store, me=me, timers=timers, clock=clock, randomness=randomness)
        self.control.store_trouble = lambda: self.election.trouble
        self.controller: Controller | None = None
        """The control loop, while leading."""
        self.on_ready: Callable[[], Awaitable[None]] | None = None
        """Called when users can be answered, whoever leads."""
        self.on_leading: Callable[[bool], Awaitable[None]] | None = None
        self._me = me
        self._timers = timers
        self._clock = clock
        self._randomness = randomness
        self._images = images
        self._writer = writer
        self._known = known or KnownCluster()
        self.mirror.subscribe(lambda _: self._remember())

    @property
    def is_leading(self) -> bool:
        """Whether agents are served here; users are by any scheduler."""
        return self.control.lead is not None

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The agents' side, while leading."""
        return self.lanes.dispatcher

    def snapshot(self) -> Snapshot | None:
        """The cluster as the leader knows it; None while this scheduler does not lead."""
        lead = self.control.lead
        return lead.authority.snapshot() if lead is not None else None

    async def run(self) -> None:
        """Follow the store and stand for leader until cancelled. Raises StoreError."""
        await self._read_all()
        self.control.changes.begin()
        if self.on_ready is not None:
            await self.on_ready()
        async with asyncio.TaskGroup() as background:
            background.create_task(self.mirror.run(), name="mirror")
            background.create_task(self._follow(), name="who leads")
            background.create_task(self.roster.run(), name="who else is there")
            background.create_task(self.election.run(self._lead), name="election")
            background.create_task(self._notice_swap(), name="the store's past")

    async def _notice_swap(self) -> None:
        """End when the store was restored behind our back: all that we hold is void."""
        raise await self._store.swapped()

    async def _read_all(self) -> None:
        """Read the store; one that does not answer yet may still be starting, as we are."""
        while True:
            try:
                await self.mirror.start()
            except Unavailable as error:
                log.warning("cannot read the store; trying again", why=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _follow(self) -> None:
        """Know the leader's address, to send agents and users there."""
        while True:
            leader = self.election.leader
            address = leader.address if leader is not None else ""
            self.lanes.leader = self.control.leader = address
            if not address:
                self.control.sees_observed(False)
            await self.election.leader_changed()

    async def _lead(self, leadership: Leadership) -> None:
        # Everything that earlier leaders wrote is older than our key. Whoever decides does not rest
        # on a watch alone: one that lost an event says nothing of it.
        try:
            await self.mirror.read_anew(leadership.epoch)
            await standing.check(self._store)
        except standing.NotToBeUsed:
            raise
        except StoreError as error:
            log.warning("cannot begin to lead", why=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        committer = Committer(self._store, self.mirror, writer=self._writer)
        try:
            await self._ensure_cluster(committer, leadership)
        except (Unavailable, Ambiguous) as error:
            log.warning("cannot begin to lead", why=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        observed, dirt = Observed(), Dirt()
        controller = Controller(
            self.mirror,
            committer,
            observed,
            dirt,
            self._clock,
            self._randomness,
            leadership.fence,
            timers=self._timers,
            address=self._me.address,
        )
        authority = Authority(
            mirror=self.mirror,
            committer=committer,
            observed=observed,
            dirt=dirt,
            wake=controller.wake,
            clock=self._clock,
            randomness=self._randomness,
            timers=self._timers,
            fence=leadership.fence,
            lead_until=lambda: leadership.lead_until,
        )
        dispatcher = Dispatcher(authority, schedulers=self._schedulers, images=self._images)
        feed = Feed(authority)
        authority.tell(
            "scheduler", self._me.id, "Leading", f"{self._me.id} leads (epoch {leadership.epoch})"
        )
        self.controller = controller
        self.lanes.dispatcher = dispatcher
        self.control.lead = Lead(authority=authority, feed=feed, bulk=dispatcher.bulk)
        self.control.sees_observed(True)
        try:
            await self._tell(True)
            async with asyncio.TaskGroup() as background:
                background.create_task(controller.run(), name="controller")
                background.create_task(dispatcher.run(), name="silence of nodes")
        finally:
            # Its work may end before its lease: what is still open grants nothing from here on.
            leadership.end()
            self.controller = None
            self.lanes.dispatcher = None
            self.control.lead = None
            self.control.sees_observed(False)
            feed.close()
            await dispatcher.close("this scheduler leads no more")
            await self._tell(False)

    async def _tell(self, is_leading: bool) -> None:
        if self.on_leading is not None:
            await self.on_leading(is_leading)

    def _schedulers(self) -> tuple[str, ...]:
        """All there are, the leader first."""
        return self.roster.addresses(self.control.leader)

    async def _ensure_cluster(self, committer: Committer, leadership: Leadership) -> None:
        """The first leader ever makes the cluster's own record. Raises StoreError."""
        tables = self.mirror.tables
        while tables.cluster is None:
            if why := tables.unreadable.get(keys.CLUSTER):
                raise Damaged(f"the cluster's own record cannot be read: {why}")
            if self._known.id:
                await self._wait_for_cluster(self._known)
                continue
            cluster = Cluster(id=identifier(self._randomness), created_ms=self._clock.wall_ms())
            try:
                await committer.commit([Put(cluster, ABSENT, "the first leader")], leadership.fence)
            except Conflict:
                await asyncio.sleep(RETRY_SECONDS)  # the mirror is about to see it
            else:
                log.info("a new cluster was made", cluster=cluster.id)
        self.control.emptied = ""

    def _remember(self) -> None:
        """Who follows remembers too: it may be the one that leads after the store was emptied."""
        cluster = self.mirror.tables.cluster
        if cluster is None or cluster.id == self._known.id:
            return
        try:
            self._known.remember(cluster.id)
        except OSError as error:
            log.warning("cannot note which cluster this scheduler works for", why=str(error))

    async def _wait_for_cluster(self, known: KnownCluster) -> None:
        """Lead nobody while the store has lost the cluster; return when it is back."""
        self.control.emptied = (
            f"the store {self._store.name} is empty, and this scheduler worked for cluster"
            f" {known.id}: what was wanted is gone from it. All containers run on. Stop the"
            " schedulers and restore a backup (`homeport restore FILE`); or, to begin a new"
            f" cluster, {known.way_out}"
        )
        log.error("the store was emptied", why=self.control.emptied)
        while self.mirror.tables.cluster is None:  # noqa: ASYNC110 (once more or never)
            await asyncio.sleep(RETRY_SECONDS)
