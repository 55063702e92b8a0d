"""The one control loop: look, decide, commit, wait. Only the leader runs it.

Events from the mirror and from dispatch only mark what is dirty and ring the bell; each
cycle looks at what is marked, asks the deciders, and commits all that they propose
together. The loop owns the Fleet: placements are assumed there when they are decided, and
taken back when their commit fails. A newcomer's mistake: reading a snapshot after an
await. Everything between `_look` and the commit is synchronous.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from homeport.model import (
    Availability,
    Event,
    Node,
    NodeId,
    NodeState,
    Service,
    ServiceId,
    Stack,
    Task,
    TaskId,
)
from homeport.seams import Clock, Randomness, jittered
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import Dirt, Observed, Waiting, doubt_of
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.stats import ERROR, PLACED, UNSCHEDULABLE, Stats
from scheduler.config import Timers
from scheduler.placement import engine
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet, unfit
from scheduler.placement.following import follow
from scheduler.reconcile import (
    brake as brakes,
    drafts,
    reaper,
    revoking,
    scheduling,
    services as reconcile,
    telling,
)
from scheduler.reconcile.agenda import Agenda
from scheduler.reconcile.answers import Answers
from scheduler.reconcile.automatic import Automatic
from scheduler.reconcile.moves import Moves, cause_of
from scheduler.reconcile.nominations import Nominations
from scheduler.reconcile.orphans import Orphans
from scheduler.reconcile.pace import Pace
from scheduler.reconcile.slots import Vacancy
from scheduler.reconcile.turns import Turns
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
REAP_SECONDS = 3600.0
BRAKE_SECONDS = 1.0
"""While the brake is on it is judged anew so often: a node that is heard again changes no state."""
PREEMPT_SECONDS = 5.0
"""How soon after a change anywhere those are looked at that wait and may have others ended: it may
have been what kept these. Looking for whom to end takes long, so not after each change."""
CONFLICT_SECONDS = 0.02
TROUBLE_SECONDS = 1.0
TROUBLE_MAX_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Look:
    """What one look decided."""

    changes: list[Change] = field(default_factory=list)
    placed: dict[str, Placed] = field(default_factory=dict)  # by the key of the task's record
    moves: dict[str, str] = field(default_factory=dict)  # of those: why it is a move
    before: dict[str, keys.Stored | None] = field(default_factory=dict)
    owners: dict[str, ServiceId] = field(default_factory=dict)  # who is looked at again
    preempted: set[str] = field(default_factory=set)  # keys of tasks that end to make room

    def add(self, changes: Iterable[Change], owner: ServiceId | None = None) -> None:
        """Propose these, once for each record: services may share a volume."""
        for change in changes:
            if change.key not in self.before:
                self.before[change.key] = None
                self.changes.append(change)
                if owner is not None:
                    self.owners[change.key] = owner


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
        self._bell = asyncio.Event()
        self._agenda = Agenda()
        self._room = scheduling.WaitingRoom()
        self._fleet = Fleet()
        self._globals: dict[ServiceId, None] = {}
        self._stacks: dict[str, None] = {}
        self._roomier: dict[NodeId, None] = {}
        self._joined: dict[NodeId, None] = {}  # nodes that got tasks: others may wait for those
        self._node_states: dict[NodeId, tuple[NodeState, bool, str, str]] = {}
        self._timers = timers or Timers()
        self._address = address
        self._pace = Pace(clock.boottime())
        self._moves = Moves(clock.boottime())
        self._nominations = Nominations()
        # At their last look they needed nothing, and no progress of their live tasks changes that.
        self._calm: dict[ServiceId, None] = {}
        self._turns = Turns(observed, clock.boottime())
        self._automatic = Automatic(clock.boottime())
        self._braked: dict[ServiceId, None] = {}  # they wait for the brake to change
        self._turns_at = 0.0  # boot time at which moves may begin; 0: when something changes
        self._brake_at = 0.0  # boot time at which it is to be judged anew; 0: when a node changes
        self._troubles: dict[ServiceId, int] = {}  # failed looks in a row
        self._frozen: dict[ServiceId, None] = {}  # already said that these are left alone
        self._answers = Answers()
        self._orphans = Orphans()
        self._hourly_at = 0.0
        self._stacks_at = 0.0
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
        self._fleet = Fleet.without_tasks(self._snapshot())
        for node in tables.nodes():
            self._node_states[node.id] = self._node_state(node.id)
        for service in tables.services():
            if service.mode.is_global:
                self._globals[service.id] = None
            self._agenda.add(service.id)
        for stack in tables.stacks():
            self._stacks[stack.name] = None
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
        for change in changes:
            if change.key not in snapshot.stored.unreadable:
                # What a newer version wrote still takes its room.
                follow(self._fleet, snapshot, change.key, change.old, change.new)
            self._mark(change)
        if changes:
            self._look_for_victims(snapshot.now)
        self._bell.set()

    def _look_for_victims(self, now: float) -> None:
        """Something changed, by which somebody may be ended now for those that may preempt."""
        for service in self._room.preempting:
            self._agenda.at(service, now + PREEMPT_SECONDS)

    def _mark(self, change: MirrorChange) -> None:
        kind, _, rest = change.key.partition("/")
        match kind:
            case "tasks":
                task_id = TaskId(rest)
                self._agenda.add(ServiceId(rest.rsplit("/", 2)[0]))
                self._turns.changed(task_id, change.new)
                if isinstance(change.old, Task) and task_id not in self._fleet.held:
                    self._roomier[change.old.node] = None
                if change.old is None and isinstance(change.new, Task):
                    self._joined[change.new.node] = None
                if isinstance(change.old, Task) and _has_ended(change.new):
                    self._pace.gone(change.old, self._clock.boottime())
                if change.new is None and keys.task(task_id) not in self._mirror.tables.unreadable:
                    self._observed.forget(task_id)
            case "services":
                self._mark_service(ServiceId(rest), change)
            case "rollouts":
                self._agenda.add(ServiceId(rest))
            case "specs":
                self._agenda.add(ServiceId(rest.rpartition("/")[0]))
            case "nodes":
                self._mark_node(NodeId(rest))
                if _takes_tasks(change.new) and not _takes_tasks(change.old):
                    self._noticed()
            case "cluster":
                self._noticed()
            case "volumes" if change.new is None:
                for service in self._room.everybody():
                    self._agenda.add(service)
            case "stacks":
                self._stacks[rest] = None
                if isinstance(change.old, Stack) and change.old.draft:
                    # They were left alone until its draft was written out.
                    for each in self._mirror.tables.services_of(rest):
                        self._agenda.add(each.id)
            case _:
                pass

    def _mark_service(self, service_id: ServiceId, change: MirrorChange) -> None:
        self._agenda.add(service_id)
        new = change.new
        if isinstance(new, Service):
            if new.mode.is_global:
                self._globals[service_id] = None
            else:
                self._globals.pop(service_id, None)
            return
        self._globals.pop(service_id, None)
        if isinstance(change.old, Service):
            self._stacks[change.old.stack] = None

    def _mark_node(self, node: NodeId) -> None:
        """Its record, readiness or liveness changed: who is there, and who may come."""
        for task in self._mirror.tables.tasks_of_node(node):
            self._agenda.add(task.service)
        for service in (*self._globals, *self._room.preempting):
            self._agenda.add(service)
        self._roomier[node] = None

    def _noticed(self) -> None:
        """Tasks may be better placed now than they are."""
        self._automatic.noticed(self._mirror.tables.cluster, self._clock.boottime())

    def _take_dirt(self) -> None:
        """Turn what dispatch has marked, and room that was freed, into services to look at."""
        # What was freed is known from the records themselves, node by node, so `capacity`,
        # which would wake everybody who waits, says nothing new.
        services, nodes, _ = self._dirt.take()
        now = self._clock.boottime()
        if nodes or (self._brake_at and self._brake_at <= now):
            self._judge_brake()
        for service in services:
            self._agenda.add(service)
        progressed = self._dirt.take_progress()
        if services or progressed:
            self._look_for_victims(now)  # of a minimum, only what runs counts
        for service in progressed:
            if service in self._calm:
                self._agenda.stir(service)
            else:
                self._agenda.add(service)
        for node in nodes:
            state = self._node_state(node)
            before = self._node_states.get(node)
            if before == state:
                continue
            self._node_states[node] = state
            if state[0] is NodeState.READY and (before is None or before[0] != state[0]):
                self._noticed()
            if isinstance(record := self._mirror.tables.node(node), Node):
                ready = state[0] is NodeState.READY
                self._fleet.node_changed(record, ready=ready, unfit=state[2], unfenced=state[3])
            self._mark_node(node)
        joined, self._joined = self._joined, {}
        if joined and self._room.waits_for_others:
            self._roomier |= joined
        roomier, self._roomier = self._roomier, {}
        for node in roomier:
            for service in self._room.woken_by(self._fleet, node):
                self._agenda.add(service)
        self._turns_at = 0.0
        if self._turns:
            begun = self._turns.begin(self._snapshot(), self._fleet, self._lease_seconds)
            for service in begun.services:
                self._agenda.add(service)
            self._turns_at = begun.wake_at

    def _judge_brake(self) -> None:
        """Put the brake on or take it off, and say so."""
        snapshot = self._snapshot()
        before = self._observed.brake
        timers = self._timers.scaled(len(self._observed.liveness))
        nodes = brakes.watched(snapshot, timers, self._address)
        brake = brakes.decide(before, nodes, snapshot.now, snapshot.now_ms)
        self._brake_at = snapshot.now + BRAKE_SECONDS if brake is not None else 0.0
        if brake == before:
            return
        self._observed.brake = brake
        for service in (*self._braked, *self._room.preempting):
            self._agenda.add(service)
        self._braked.clear()
        if (event := telling.brake(before, brake, snapshot.now_ms)) is not None:
            self._observed.add_event(event)
            log.warning("the brake", on=brake is not None, why=event.message)

    def _node_state(self, node: NodeId) -> tuple[NodeState, bool, str, str]:
        liveness = self._observed.node(node)
        unfit_now = unfit(self._snapshot(), node)
        return liveness.state, liveness.reported, unfit_now, liveness.unfenced

    # ------------------------------------------------------------ look, decide, commit, wait

    async def _wait(self) -> None:
        if self._agenda:
            await asyncio.sleep(0)  # more is due: let others run first
            return
        times = [self._hourly_at]
        if self._stacks:
            times.append(self._stacks_at)
        if (when := self._agenda.next_time()) is not None:
            times.append(when)
        times += [when for when in (self._brake_at, self._turns_at, self._automatic.due_at) if when]
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
            revoking.begin(self._mirror.tables, self._observed, look.changes)
            await self._commit(look)
            revoking.end(self._observed, self._committer.blocked)
        self.stats.reconciling.add(self._clock.boottime() - began)

    def _look(self) -> _Look:
        self._take_dirt()
        snapshot = self._snapshot()
        self._agenda.advance(snapshot.now)
        look = _Look()
        vacancies: list[Vacancy] = []
        stays: dict[ServiceId, list[Ask]] = {}
        looked: list[ServiceId] = []
        due = self._agenda.take(LOOK_MAX)
        for place, service in enumerate(due):
            if (
                self._clock.boottime() - snapshot.now > LOOK_SECONDS
                or len(vacancies) >= LOOK_VACANCIES
            ):
                for rest in due[place:]:
                    self._agenda.add(rest)
                break
            if self._is_frozen(service) or self._is_drafted(service):
                self._calm.pop(service, None)
                continue
            try:
                decision = reconcile.decide(snapshot, self._fleet, service)
            except Exception:
                # One service's trouble must not stop the others.
                log.exception("a service cannot be decided about", service=service)
                self._calm.pop(service, None)
                self._later(service, snapshot.now)
                continue
            self._troubles.pop(service, None)
            looked.append(service)
            if decision.is_calm:
                self._calm[service] = None
            else:
                self._calm.pop(service, None)
            look.add(decision.changes, service)
            vacancies += decision.vacancies
            stays[service] = decision.stays
            if decision.wake_at:
                self._agenda.at(service, decision.wake_at)
            self._agenda.awaits(service, decision.awaits)
            for task, attempt in decision.running.items():
                self._observed.running[task] = (attempt, snapshot.now)
            for task in decision.proven:
                self._observed.proven[task] = snapshot.now
        self._schedule(snapshot, look, looked, vacancies, stays)
        self._rebalance(snapshot, look)
        self._reap(snapshot, look)
        look.changes, late, later = self._pace.postpone(snapshot, look.changes, look.preempted)
        for change in late:
            if (owner := look.owners.get(change.key)) is not None:
                self._agenda.at(owner, later)
        look.before = {change.key: self._mirror.tables.value(change.key) for change in look.changes}
        return look

    def _schedule(
        self,
        snapshot: Snapshot,
        look: _Look,
        looked: list[ServiceId],
        vacancies: list[Vacancy],
        stays: dict[ServiceId, list[Ask]],
    ) -> None:
        began = self._clock.boottime()
        admitted = self._moves.admit(snapshot, vacancies, self._lease_seconds)
        for service, when in admitted.wake_at.items():
            self._agenda.at(service, when)
        self._braked |= admitted.held
        standing = self._nominations.standing(looked, admitted.vacancies)
        try:
            result = scheduling.decide(snapshot, self._fleet, admitted.vacancies, standing)
        except Exception:
            # Nothing of this look is placed; what was assumed is forgotten.
            log.exception(
                "waiting slots cannot be placed",
                services=sorted({vacancy.service for vacancy in vacancies}),
            )
            self._fleet = Fleet.from_snapshot(snapshot)
            self.stats.attempts[ERROR] += len(vacancies)
            for service in {vacancy.service: None for vacancy in vacancies}:
                self._later(service, snapshot.now)
            return
        if result.placed or result.unplaced:
            self.stats.scheduling.add(self._clock.boottime() - began)
            self.stats.attempts[UNSCHEDULABLE] += len(result.unplaced)
        tasks = {(placed.ask.service, placed.ask.slot): placed.ask.task for placed in result.placed}
        self._moves.placed(snapshot, vacancies, tasks)
        for placed in result.placed:
            look.placed[keys.task(placed.ask.task)] = placed
        for vacancy in vacancies:
            if (cause := cause_of(snapshot, vacancy)) and (
                task := tasks.get((vacancy.service, vacancy.slot))
            ):
                look.moves[keys.task(task)] = cause
        unplaced: dict[ServiceId, list[Ask]] = {}
        for answer in result.unplaced:
            unplaced.setdefault(answer.ask.service, []).append(answer.ask)
        for service, changes in result.changes.items():
            look.add(changes, service)
            # What somebody else has ended in this look is ended for their reason.
            look.preempted |= {
                change.key
                for change in changes
                if change.key in result.preempted and look.owners.get(change.key) == service
            }
        for node in self._nominations.replace(looked, result.nominated):
            self._roomier[node] = None
            self._bell.set()
        for service in looked:
            self._room.replace(service, unplaced.get(service, []) + stays.get(service, []))
            self._waits(service, result.waiting.get(service, {}), snapshot.now_ms)
        for service, when in result.wake_at.items():
            self._agenda.at(service, when)

    def _rebalance(self, snapshot: Snapshot, look: _Look) -> None:
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
        for change in changes:
            if isinstance(change, Put) and isinstance(change.value, Task):
                look.add([change], change.value.service)

    @property
    def _lease_seconds(self) -> float:
        return self._timers.scaled(len(self._observed.liveness)).node_lease_seconds

    def _waits(self, service: ServiceId, slots: dict[int, Waiting], now_ms: int) -> None:
        before = self._observed.waiting.get(service, {})
        said: dict[str, Waiting] = {}
        for slot, waiting in slots.items():
            if slot not in before or before[slot].reason != waiting.reason:
                said.setdefault(waiting.reason, waiting)
            if waiting.refusals and not (slot in before and before[slot].refusals):
                self._agenda.add(service)  # a rollout may stop now that no node is left
        self._observed.put_waiting(service, slots)
        for waiting in said.values():
            self._observed.add_event(telling.waits(waiting, now_ms))

    def _reap(self, snapshot: Snapshot, look: _Look) -> None:
        if snapshot.now < self._stacks_at:
            return
        stacks, self._stacks = self._stacks, {}
        for stack in stacks:
            if changes := drafts.decide(snapshot, stack) or reaper.stack(snapshot, stack):
                look.add(changes)
                self._stacks[stack] = None  # until there is nothing left to do
        if snapshot.now >= self._hourly_at:
            self._hourly_at = snapshot.now + REAP_SECONDS
            look.add(self._answers.decide(snapshot))
            look.add(self._orphans.decide(snapshot))

    async def _commit(self, look: _Look) -> None:
        result = await self._committer.commit_batched(look.changes, self._fence)
        failed = {change.key for change, _ in result.failed}
        misses = len(failed & look.placed.keys())
        self.stats.attempts[ERROR] += misses
        self.stats.attempts[PLACED] += len(look.placed) - misses
        self.stats.moves.update(cause for key, cause in look.moves.items() if key not in failed)
        now_ms = self._clock.wall_ms()
        events: list[Event] = []
        for change in look.changes:
            if change.key in failed:
                continue
            event = telling.event_of(change, look.before[change.key], self._mirror.tables, now_ms)
            if event is not None and change.key in look.preempted:
                event = replace(event, reason=telling.PREEMPTED)
                self.stats.preempted += 1
            if event is not None:
                events.append(event)
        for event in events:
            self._observed.add_event(event)
        for each in telling.lines(events):
            log.info("decided", what=each.what, object=each.object, why=each.why, times=each.times)
        for change, error in result.failed:
            self._failed(look, change, error)

    def _failed(self, look: _Look, change: Change, error: StoreError) -> None:
        placed = look.placed.get(change.key)
        if placed is not None and self._mirror.tables.task(placed.ask.task) is None:
            engine.undo(self._fleet, placed)
        service = look.owners.get(change.key)
        log.warning("a decision was not written", key=change.key, why=str(error))
        now = self._clock.boottime()
        if service is None:
            self._stacks |= _stack_of(change)
            self._stacks_at = now + jittered(TROUBLE_SECONDS, self._randomness)
        elif isinstance(error, Conflict) and service not in self._troubles:
            # Somebody was faster; the mirror is about to show what they wrote.
            self._troubles[service] = 0
            self._agenda.at(service, now + jittered(CONFLICT_SECONDS, self._randomness))
        else:
            self._later(service, now)

    def _later(self, service: ServiceId, now: float) -> None:
        """Look again after a back-off that doubles from one trouble to the next."""
        count = self._troubles.get(service, 0)
        self._troubles[service] = count + 1
        seconds = min(TROUBLE_MAX_SECONDS, TROUBLE_SECONDS * 2.0 ** min(count, 10))
        self._agenda.at(service, now + jittered(seconds, self._randomness))

    def _is_frozen(self, service: ServiceId) -> bool:
        """Whether one of its records was written by a newer version: then it is left alone."""
        unreadable = self._mirror.tables.unreadable
        if not unreadable:
            self._frozen.clear()
            return False
        parts = (f"services/{service}", f"rollouts/{service}")
        prefixes = (f"specs/{service}/", f"tasks/{service}/")
        if not any(key in parts or key.startswith(prefixes) for key in unreadable):
            return False
        if service not in self._frozen:
            self._frozen[service] = None
            log.warning("a service has records that cannot be read; it is left alone", id=service)
        return True

    def _is_drafted(self, service: ServiceId) -> bool:
        """Whether its record is still to be written; it is looked at when that is done."""
        tables = self._mirror.tables
        record = tables.service(service)
        stack = tables.stack(record.stack) if record is not None else None
        return stack is not None and bool(stack.draft)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self._mirror.tables, self._observed, self._clock.boottime(), self._clock.wall_ms()
        )


def _takes_tasks(record: keys.Stored | None) -> bool:
    return isinstance(record, Node) and record.availability is Availability.ACTIVE


def _has_ended(record: keys.Stored | None) -> bool:
    """Whether this is what became of a task whose container has stopped."""
    return record is None or (isinstance(record, Task) and record.outcome is not None)


def _stack_of(change: Change) -> dict[str, None]:
    kind, _, rest = change.key.partition("/")
    return {rest.partition("/")[0]: None} if kind in ("stacks", "files", "volumes") else {}
