"""The one control loop: look, decide, commit, wait. Only the leader runs it.

Events from the mirror and from dispatch only say whom to look at and ring the bell (`waking`);
each cycle looks at who is due, asks the deciders, has the slots that want a task filled
(`filling`), and commits all that is proposed together. The loop owns the Fleet: placements are
assumed there when decided, and taken back when their commit fails. A newcomer's mistake:
reading a snapshot after an await. Everything between `_look` and the commit is synchronous.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from homeport.model import NodeId, ServiceId, TaskId
from homeport.seams import Clock, Randomness, jittered
from scheduler.cluster.changes import Change
from scheduler.cluster.observed import Dirt, Observed, doubt_of
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.stats import ERROR, PLACED, UNSCHEDULABLE, Stats
from scheduler.cluster.view import View
from scheduler.config import Timers
from scheduler.placement import engine
from scheduler.placement.fleet import Fleet
from scheduler.placement.following import follow
from scheduler.reconcile import exemptions, revoking, services as reconcile, sightings, telling
from scheduler.reconcile.agenda import Agenda
from scheduler.reconcile.automatic import Automatic
from scheduler.reconcile.brake import Braking
from scheduler.reconcile.filling import Filling
from scheduler.reconcile.look import Look
from scheduler.reconcile.pace import Pace
from scheduler.reconcile.reaping import Reaping
from scheduler.reconcile.scheduling import WaitingRoom
from scheduler.reconcile.sightings import Sightings
from scheduler.reconcile.troubles import TROUBLE_SECONDS, Troubles
from scheduler.reconcile.turns import Turns
from scheduler.reconcile.waking import Waking
from scheduler.store.base import Conflict, Fence, StoreError
from scheduler.store.commit import Committer
from scheduler.store.mirror import Mirror, MirrorChange

LOAD_TASKS = 1_000
"""Tasks taken into the fleet at a time, when it is first made."""
LOOK_MAX = 500
LOOK_SECONDS = 0.1
LOOK_VACANCIES = 2_000
"""Services in one look, and when it ends early: the rest stays marked, so that heartbeats are
answered and leases kept in between, also on a slow machine. Most work of a slot that wants a task
comes after the looking."""

log = structlog.get_logger(__name__)


class Controller:
    """Runs every reconciler over what changed."""

    def __init__(
        self,
        mirror: Mirror,
        committer: Committer,
        observed: Observed,
        dirt: Dirt,
        clock: Clock,
        randomness: Randomness,
        fence: Fence | None,
        *,
        timers: Timers | None = None,
        address: str = "",
    ) -> None:
        """For one term of leadership: `fence` is its proof. `mirror` has been started.

        `address`: HOST:PORT of this scheduler, by which the brake knows its own node.
        """
        self._mirror = mirror
        self._committer = committer
        self._observed = observed
        self._dirt = dirt
        self._clock = clock
        self._randomness = randomness
        self._fence = fence
        self._timers = timers or Timers()
        self._bell = asyncio.Event()
        self._fleet = Fleet()
        began = clock.boottime()
        room = WaitingRoom()
        self._agenda = Agenda()
        self._waking = Waking(self._agenda, room)
        self._sightings = Sightings()
        self._braking = Braking(address)
        self._filling = Filling(began, room)
        self._turns = Turns(observed, began)
        self._turns_at = 0.0  # boot time at which moves may begin; 0: when something changes
        self._automatic = Automatic(began)
        self._pace = Pace(began)
        self._reaping = Reaping()
        self._troubles = Troubles()
        self._frozen: dict[ServiceId, None] = {}  # already said that these are left alone
        self.cycles = 0
        self.stats = Stats()
        """What this loop took and came to, to be read by whoever shows it."""

    @property
    def fleet(self) -> Fleet:
        """The working copy of the nodes; to be read, and only between awaits."""
        return self._fleet

    def wake(self) -> None:
        """Something was marked dirty."""
        self._bell.set()

    async def run(self) -> None:
        """Control the cluster until cancelled. Raises Fenced when somebody else leads."""
        unsubscribe = self._mirror.subscribe(self._changed)
        try:
            await self._start()
            while True:
                await self._cycle()
                await self._wait()
        finally:
            unsubscribe()

    # ------------------------------------------------------------ what is dirty

    async def _start(self) -> None:
        """A new leader looks at everything once; events are followed from here on."""
        tables = self._mirror.tables
        snapshot = self._snapshot()
        self._fleet = Fleet.without_tasks(snapshot)
        self._sightings.begin(snapshot)
        self._waking.begin(tables)
        self._reaping.begin(tables)
        # In slices: a second without an await, and another scheduler takes over.
        tasks = [task.id for task in tables.tasks()]
        while tasks:
            await asyncio.sleep(0)
            some = [tables.task(tasks.pop()) for _ in range(min(LOAD_TASKS, len(tasks)))]
            self._fleet.fill(tables, (task for task in some if task is not None))
            for task in some:
                if task is not None and (task.move is not None or task.moved_ms):
                    self._turns.changed(task.id, task)
                    now, now_ms = self._clock.boottime(), self._clock.wall_ms()
                    self._automatic.remember(task, now, now_ms)

    def _changed(self, changes: Sequence[MirrorChange]) -> None:
        """The mirror applied a commit, ours or anybody's."""
        snapshot = self._snapshot()
        stored = snapshot.stored
        for change in changes:
            key, old, new = change.key, change.old, change.new
            if key not in stored.unreadable:
                # What a newer version wrote still takes its room.
                follow(self._fleet, snapshot, key, old, new)
            if key.startswith("tasks/"):
                task = TaskId(key.partition("/")[2])
                self._waking.task_changed(self._fleet, task, old, new)
                self._turns.changed(task, new)
                self._pace.changed(old, new, snapshot.now)
                if new is None and key not in stored.unreadable:
                    self._observed.forget(task)
            else:
                self._waking.changed(stored, key, old, new)
                self._reaping.changed(key, old, new)
                self._automatic.changed(key, old, new, stored.cluster, snapshot.now)
        if changes:
            self._waking.look_for_victims(snapshot.now)
        self._bell.set()

    def _take_dirt(self) -> None:
        """Turn what dispatch has marked, and room that was freed, into services to look at."""
        # What was freed is known from the records themselves, node by node, so `capacity`,
        # which would wake everybody who waits, says nothing new.
        services, nodes, _ = self._dirt.take()
        snapshot = self._snapshot()
        if nodes or 0 < self._braking.due_at <= snapshot.now:
            self._judge_brake(snapshot)
        self._waking.reported(services, self._dirt.take_progress(), snapshot.now)
        for node in nodes:
            self._see(snapshot, node)
        self._waking.wake_who_fits(self._fleet)
        self._turns_at = 0.0
        if self._turns:
            begun = self._turns.begin(snapshot, self._fleet, self._lease_seconds)
            for service in begun.services:
                self._agenda.add(service)
            self._turns_at = begun.wake_at

    def _judge_brake(self, snapshot: Snapshot) -> None:
        """Put the brake on or take it off, and say so."""
        event = self._braking.judge(snapshot, self._scaled_timers)
        if event is not None:
            self._waking.brake_changed()
            self._observed.add_event(event)
            log.warning("the brake", on=self._observed.brake is not None, why=event.message)

    def _see(self, snapshot: Snapshot, node: NodeId) -> None:
        """Dispatch has had word of a node, or none for too long."""
        seen = self._sightings.look(snapshot, node)
        if seen is None:
            return
        before, now = seen
        if sightings.has_come(before, now):
            self._automatic.noticed(snapshot.stored.cluster, snapshot.now)
        if (record := snapshot.stored.node(node)) is not None:
            self._fleet.node_changed(
                record, ready=now.is_ready, unfit=now.unfit, unfenced=now.unfenced
            )
        self._waking.node_changed(snapshot.stored, node)

    # ------------------------------------------------------------ look, decide, commit, wait

    async def _wait(self) -> None:
        if self._agenda:
            await asyncio.sleep(0)  # more is due: let others run first
            return
        times = [self._reaping.due_at]
        if (when := self._agenda.next_time()) is not None:
            times.append(when)
        others = (self._braking.due_at, self._turns_at, self._automatic.due_at)
        times += [when for when in others if when]
        seconds = max(0.001, min(times) - self._clock.boottime())
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            pass

    async def _cycle(self) -> None:
        if self._committer.blocked:
            await self._committer.settle()
        revoking.end(self._observed, self._committer.blocked)
        self._bell.clear()
        if doubt_of(self._mirror.tables, self._observed) is not None:
            # Until an operator's word, which comes as a commit.
            await self._bell.wait()
            return
        self.cycles += 1
        began = self._clock.boottime()
        look = self._look()
        if look.changes:
            # Before the first await: a heartbeat may be answered while the moves are written.
            revoking.begin(self._mirror.tables, self._observed, look.changes.values())
            await self._commit(look)
            revoking.end(self._observed, self._committer.blocked)
        self.stats.reconciling.add(self._clock.boottime() - began)

    def _look(self) -> Look:
        self._take_dirt()
        snapshot = self._snapshot()
        self._agenda.advance(snapshot.now)
        look = Look()
        self._decide(snapshot, look)
        self._fill(snapshot, look)
        self._rebalance(snapshot, look)
        look.add(self._reaping.decide(snapshot))
        services, later = look.slow_down(snapshot, self._pace)
        for service in services:
            self._agenda.at(service, later)
        return look

    def _decide(self, snapshot: Snapshot, look: Look) -> None:
        """Look at the services that are due, as many as there is time for."""
        due = self._agenda.take(LOOK_MAX)
        for place, service in enumerate(due):
            is_late = self._clock.boottime() - snapshot.now > LOOK_SECONDS
            if is_late or len(look.vacancies) >= LOOK_VACANCIES:
                for rest in due[place:]:
                    self._agenda.add(rest)
                break
            if self._is_exempt(snapshot.stored, service):
                self._waking.looked(service, is_calm=False)
                continue
            try:
                decision = reconcile.decide(snapshot, self._fleet, service)
            except Exception:
                # One service's trouble must not stop the others.
                log.exception("a service cannot be decided about", service=service)
                self._waking.looked(service, is_calm=False)
                self._again(service, snapshot.now, self._troubles.trouble(service))
                continue
            self._troubles.are_over(service)
            self._waking.looked(service, is_calm=decision.is_calm)
            look.add_decision(service, decision)
            if decision.wake_at:
                self._agenda.at(service, decision.wake_at)
            self._agenda.awaits(service, decision.awaits)
            self._observed.put_proofs(decision.running, decision.proven, snapshot.now)

    def _fill(self, snapshot: Snapshot, look: Look) -> None:
        """Give the slots that want a task a node, or the reason why they wait."""
        began = self._clock.boottime()
        admitted = self._filling.admit(snapshot, look.vacancies, self._lease_seconds)
        for service, when in admitted.wake_at.items():
            self._agenda.at(service, when)
        self._waking.held_by_brake(admitted.held)
        try:
            scheduled = self._filling.place(snapshot, self._fleet, look.looked, admitted.vacancies)
        except Exception:
            # Nothing of this look is placed; what was assumed is forgotten.
            services = {vacancy.service: None for vacancy in look.vacancies}
            log.exception("waiting slots cannot be placed", services=sorted(services))
            self._fleet = Fleet.from_snapshot(snapshot)
            self.stats.attempts[ERROR] += len(look.vacancies)
            for service in services:
                self._again(service, snapshot.now, self._troubles.trouble(service))
            return
        if scheduled.placed or scheduled.unplaced:
            self.stats.scheduling.add(self._clock.boottime() - began)
            self.stats.attempts[UNSCHEDULABLE] += len(scheduled.unplaced)
        filled = self._filling.settle(snapshot, look.looked, admitted.vacancies, scheduled)
        look.add_filled(filled)
        if filled.roomier:
            self._waking.room_came(filled.roomier)
            self._bell.set()
        for service in filled.again:
            self._agenda.add(service)
        for service, when in filled.wake_at.items():
            self._agenda.at(service, when)

    def _rebalance(self, snapshot: Snapshot, look: Look) -> None:
        try:
            changes = self._automatic.decide(
                snapshot,
                self._fleet.copy,
                is_moving=bool(self._turns),
                lease_seconds=self._lease_seconds,
            )
        except Exception:
            # What would only be better must not stop what has to be done.
            log.exception("moves to better nodes cannot be decided about")
            return
        look.add_moves(changes)

    async def _commit(self, look: Look) -> None:
        changes = list(look.changes.values())
        before = {change.key: self._mirror.tables.value(change.key) for change in changes}
        result = await self._committer.commit_batched(changes, self._fence)
        failed = {change.key for change, _ in result.failed}
        misses = len(failed & look.placed.keys())
        self.stats.attempts[ERROR] += misses
        self.stats.attempts[PLACED] += len(look.placed) - misses
        self.stats.moves.update(cause for key, cause in look.moves.items() if key not in failed)
        done = [change for change in changes if change.key not in failed]
        events = telling.events_of(
            done, before, look.preempted, self._mirror.tables, self._clock.wall_ms()
        )
        self.stats.preempted += sum(event.reason == telling.PREEMPTED for event in events)
        for event in events:
            self._observed.add_event(event)
        for each in telling.lines(events):
            log.info("decided", what=each.what, object=each.object, why=each.why, times=each.times)
        for change, error in result.failed:
            self._failed(look, change, error)

    def _failed(self, look: Look, change: Change, error: StoreError) -> None:
        placed = look.placed.get(change.key)
        if placed is not None and self._mirror.tables.task(placed.ask.task) is None:
            engine.undo(self._fleet, placed)
        service = look.owners.get(change.key)
        log.warning("a decision was not written", key=change.key, why=str(error))
        now = self._clock.boottime()
        if service is None:
            self._reaping.failed(change, now + jittered(TROUBLE_SECONDS, self._randomness))
        elif isinstance(error, Conflict):
            self._again(service, now, self._troubles.conflict(service))
        else:
            self._again(service, now, self._troubles.trouble(service))

    def _again(self, service: ServiceId, now: float, seconds: float) -> None:
        """Look at it again in about so many seconds, if not before."""
        self._agenda.at(service, now + jittered(seconds, self._randomness))

    def _is_exempt(self, stored: View, service: ServiceId) -> bool:
        """Whether it is left alone; said once where that is for a record that cannot be read."""
        if not stored.unreadable:
            self._frozen.clear()
        elif exemptions.is_unreadable(stored, service):
            if service not in self._frozen:
                self._frozen[service] = None
                log.warning(
                    "a service has records that cannot be read; it is left alone", id=service
                )
            return True
        return exemptions.is_drafted(stored, service)

    @property
    def _scaled_timers(self) -> Timers:
        return self._timers.scaled(len(self._observed.liveness))

    @property
    def _lease_seconds(self) -> float:
        return self._scaled_timers.node_lease_seconds

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self._mirror.tables, self._observed, self._clock.boottime(), self._clock.wall_ms()
        )
