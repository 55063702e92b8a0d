"""What would become of the tasks after a change that nobody has made: what-if.

The change is laid over the snapshot, and then the same deciders and the same placement as in
earnest go on until nothing moves any more: imagined agents obey at once, imagined tasks run
well, and no back-off or pace is waited for. So a node that would be gone counts as one of
which its operator has said that it is lost. Rollouts stand still, except that what an imagined
apply replaces is replaced all at once, as in `planning`. A newcomer's mistake: doing it on the
leader's own fleet. It is the controller's; here works a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Availability,
    Health,
    Node,
    NodeId,
    NodeState,
    Outcome,
    ServiceId,
    Task,
    TaskId,
    TaskStatus,
    Volume,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.observed import Liveness, Waiting
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.placement.following import follow
from scheduler.reconcile import (
    exemptions,
    nodes,
    planning,
    replicas,
    scheduling,
    services as reconcile,
)
from scheduler.reconcile.nominations import Nominations
from scheduler.reconcile.slots import Vacancy

LOOKED_MAX = 30_000
"""Slots that are looked at in one imagination, each as often as it is: about a second's work, for
which the scheduler does nothing else."""
TRIED_PER_SLOT = 4
"""Sets of victims that are tried in the time of a look at one slot."""

_OBEYS = (NodeState.READY, NodeState.UNKNOWN)
"""What a node is whose agent does what it is told, as soon as it hears of it."""


class TooMuch(Exception):
    """To imagine this takes longer than a scheduler may think about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagining:
    """A change to imagine; all of it counts together."""

    down: tuple[NodeId, ...] = ()
    drained: tuple[NodeId, ...] = ()
    added: tuple[Node, ...] = ()
    applied: tuple[Change, ...] = ()  # what an apply would write
    touched: tuple[ServiceId, ...] = ()  # the services that it would touch


@dataclass(frozen=True, slots=True)
class Taken:
    """What is reserved of a node."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    tasks: int = 0


@dataclass(slots=True, kw_only=True)
class After:
    """The cluster as it would be, and what led there."""

    before: Snapshot
    snapshot: Snapshot
    fleet: Fleet
    looked: list[ServiceId]  # the services that the change could mean something to
    waiting: dict[ServiceId, dict[int, Waiting]]
    unplaced: dict[ServiceId, list[Ask]]  # those of the waiting that find no node
    stays: dict[ServiceId, list[Ask]]  # on drained nodes, and no other node takes them
    taken: dict[NodeId, Taken]  # of the nodes before


def imagine(
    snapshot: Snapshot,
    change: Imagining,
    fleet: Fleet | None = None,
    looked_max: int = LOOKED_MAX,
) -> After:
    """The cluster after the change, once nothing moves any more. Raises TooMuch.

    `fleet`: a copy of the snapshot's that is kept by the answer; not for an apply.
    """
    world = _World(snapshot, change, fleet, looked_max)
    due = _concerned(world.snapshot, change)
    looked: dict[ServiceId, None] = {}
    while due:
        looked |= dict.fromkeys(due)
        placed, changed = world.look(due)
        if not placed and not changed:
            break
        # What became free, or came near, may be what a waiting slot waits for. A service whose
        # slots have all been given a node wants no more, unless a drain goes on with its next.
        more = placed if change.drained else []
        due = sorted({*changed, *more, *world.waiting, *world.stays})
    return After(
        before=snapshot,
        snapshot=world.snapshot,
        fleet=world.fleet,
        looked=sorted(looked),
        waiting=world.waiting,
        unplaced=world.unplaced,
        stays=world.stays,
        taken=world.taken,
    )


def taken(fleet: Fleet) -> dict[NodeId, Taken]:
    """What is reserved of each node."""
    return {
        each.id: Taken(each.cpu_reserved, each.memory_reserved, each.tasks)
        for each in fleet.candidates.values()
    }


def _concerned(snapshot: Snapshot, change: Imagining) -> list[ServiceId]:
    """The services with tasks where something changes, and all that wait for a node."""
    stored = snapshot.stored
    found = {*change.touched, *snapshot.observed.waiting}
    for node in (*change.down, *change.drained):
        found |= {task.service for task in stored.tasks_of_node(node)}
    if change.added:
        found |= {service.id for service in stored.services() if service.mode.is_global}
    return sorted(each for each in found if not _is_left_alone(snapshot, each))


def _is_left_alone(snapshot: Snapshot, service: ServiceId) -> bool:
    """Whether the controller decides nothing about this service either."""
    stored = snapshot.stored
    return (
        stored.service(service) is None
        or exemptions.is_drafted(stored, service)
        or exemptions.is_unreadable(stored, service)
    )


class _World:
    """The imagined cluster while it comes to rest."""

    def __init__(
        self, snapshot: Snapshot, change: Imagining, fleet: Fleet | None, looked_max: int
    ) -> None:
        self.waiting: dict[ServiceId, dict[int, Waiting]] = {}
        self.unplaced: dict[ServiceId, list[Ask]] = {}
        self.stays: dict[ServiceId, list[Ask]] = {}
        self._base = snapshot
        self._touched = frozenset(change.touched)
        self._changes: dict[str, Change] = {}  # by key: the latest of each record
        self._left = looked_max
        self._nominations = Nominations()
        self._observed = snapshot.observed.copy()
        self._observed.brake = None
        for node in change.down:
            seen = self._observed.node(node)
            self._observed.liveness[node] = replace(seen, state=NodeState.DOWN, other_until=0.0)
        for added in change.added:
            self._observed.liveness[added.id] = Liveness(
                state=NodeState.READY, reported=True, since=snapshot.now, last_seen=snapshot.now
            )
        self._lay(change.applied)
        self._lay(_availabilities(snapshot, change))
        if fleet is None:
            fleet = Fleet.from_snapshot(self.snapshot)
        else:
            assert not change.applied, "what tasks need may differ after an apply"
            for key in (keys.node(node) for node in (*change.down, *change.drained)):
                record = self.snapshot.stored.node(NodeId(key.partition("/")[2]))
                follow(fleet, self.snapshot, key, record, record)
            for added in change.added:
                follow(fleet, self.snapshot, keys.node(added.id), None, added)
        self.fleet = fleet
        self.taken = taken(fleet)
        self._do([each for service in change.touched for each in self._replaced(service)])

    # ------------------------------------------------------------ one look

    def look(self, due: Sequence[ServiceId]) -> tuple[list[ServiceId], list[ServiceId]]:
        """Look at these services once, as the controller does.

        Returns those that were given tasks, and those for which something else was done.
        """
        changes: dict[str, Change] = {}
        changed: dict[ServiceId, None] = {}
        vacancies: list[Vacancy] = []
        for service in due:
            tasks = self.snapshot.stored.tasks_of_service(service)
            self._count(service, len(tasks))
            for task in tasks:
                if self._is_ending(task):
                    changes[keys.task(task.id)] = self._ended(task, task.reason)
                    changed[service] = None
            decision = reconcile.decide(self.snapshot, self.fleet, service)
            for each in decision.changes:
                obeyed = self._obeyed(each)
                if obeyed is not None and obeyed.key not in changes:
                    changes[obeyed.key] = obeyed
                    changed[service] = None
            vacancies += [self._now(each) for each in decision.vacancies]
            self.stays.pop(service, None)
            if decision.stays:
                self.stays[service] = decision.stays
        standing = self._nominations.standing(due, vacancies)
        result = scheduling.decide(self.snapshot, self.fleet, vacancies, standing)
        self._nominations.replace(due, result.nominated)
        self._spend(result.tried // TRIED_PER_SLOT)
        for service in due:
            self.waiting.pop(service, None)
            self.unplaced.pop(service, None)
        self.waiting |= result.waiting
        for answer in result.unplaced:
            self.unplaced.setdefault(answer.ask.service, []).append(answer.ask)
        for proposed in result.changes.values():
            for each in proposed:
                ended = self._made_room(each)
                changes.setdefault(each.key, ended or each)
                if ended is not None:
                    changed[ServiceId(each.key.split("/", 2)[1])] = None
        for placed in result.placed:
            self._observed.statuses[placed.ask.task] = _running(placed.ask.task)
        self._do(list(changes.values()))
        return list(result.changes), list(changed)

    def _now(self, vacancy: Vacancy) -> Vacancy:
        """Without what only time heals; for an apply also without what must come first."""
        blocked = "" if vacancy.service in self._touched else vacancy.blocked
        return replace(vacancy, not_before=0.0, blocked=blocked)

    def _count(self, service_id: ServiceId, tasks: int) -> None:
        service = self.snapshot.stored.service(service_id)
        wanted = len(replicas.wanted(service)) if service is not None else 0
        self._spend(1 + max(wanted, tasks))

    def _spend(self, slots: int) -> None:
        self._left -= slots
        if self._left < 0:
            raise TooMuch

    def _obeyed(self, change: Change) -> Change | None:
        """What becomes of a proposed change at once; None: it has no part in this."""
        if isinstance(change, Delete):
            return change if change.key.startswith("volumes/") else None
        if not isinstance(change, Put) or not isinstance(change.value, Task | Volume):
            return None
        task = change.value
        if isinstance(task, Volume) or task.desired is Desired.RUNNING:
            return change
        if task.desired is Desired.SHUTDOWN and not nodes.must_leave(self.snapshot, task):
            return None  # a rollout's step
        return self._ended(task, change.reason)

    def _made_room(self, change: Change) -> Change | None:
        """What becomes of the end of a task that makes room for another; None: it is none."""
        if isinstance(change, Put) and isinstance(change.value, Task):
            task = change.value
            return None if task.desired is Desired.RUNNING else self._ended(task, change.reason)
        return None

    def _is_ending(self, task: Task) -> bool:
        """Whether it was told to end before, and has not reported that yet."""
        return (
            task.outcome is None and task.desired is not Desired.RUNNING and self._hears(task.node)
        )

    def _hears(self, node: NodeId) -> bool:
        return self._observed.node(node).state in _OBEYS

    def _ended(self, task: Task, reason: str) -> Change:
        """A task that is to end: its agent has done it, if it hears of it."""
        version = self.snapshot.stored.version(keys.task(task.id))
        if not self._hears(task.node) and task.outcome is None:
            return Put(task, version, reason)
        if task.desired is Desired.REMOVED:
            return Delete(keys.task(task.id), version, reason)
        outcome = task.outcome or Outcome(
            state=TaskState.SHUTDOWN, ended_ms=self.snapshot.now_ms, attempts=1
        )
        return Put(replace(task, outcome=outcome), version, reason)

    def _replaced(self, service_id: ServiceId) -> Iterable[Change]:
        """The tasks that an apply ends sooner or later: all of them now."""
        service = self.snapshot.stored.service(service_id)
        if service is None:
            return
        kept = service.mode.is_global or service.removing
        for task in planning.ending(self.snapshot, service_id):
            stays = not service.removing and (kept or task.slot in replicas.wanted(service))
            desired = Desired.SHUTDOWN if stays else Desired.REMOVED
            reason = f"generation {service.generation} replaces generation {task.generation}"
            yield self._ended(replace(task, desired=desired), reason)

    # ------------------------------------------------------------ what has happened

    def _lay(self, changes: Iterable[Change]) -> None:
        self._changes |= {change.key: change for change in changes}
        over = self._base.over(list(self._changes.values()))
        self.snapshot = replace(over, observed=self._observed)

    def _do(self, changes: Sequence[Change]) -> None:
        before = self.snapshot
        self._lay(changes)
        for change in changes:
            if not isinstance(change, Put | Delete):
                continue
            new = change.value if isinstance(change, Put) else None
            follow(self.fleet, self.snapshot, change.key, _home(before, change.key), new)


def _availabilities(snapshot: Snapshot, change: Imagining) -> list[Change]:
    found: list[Change] = []
    for node in change.drained:
        if (record := snapshot.stored.node(node)) is not None:
            version = snapshot.stored.version(keys.node(node))
            drained = replace(record, availability=Availability.DRAIN)
            found.append(Put(drained, version, "it would be drained"))
    return found + [Put(node, 0, "it would be added") for node in change.added]


def _home(snapshot: Snapshot, key: str) -> Volume | None:
    """The record under the key, if it is a volume's."""
    if not key.startswith("volumes/"):
        return None
    _, stack, name, node = key.split("/", 3)
    there = (each for each in snapshot.stored.volumes_of(stack, name) if each.node == node)
    return next(there, None)


def _running(task: TaskId) -> TaskStatus:
    return TaskStatus(task=task, state=TaskState.RUNNING, health=Health.HEALTHY)
