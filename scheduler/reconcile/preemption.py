"""Make room for slots that may preempt: who ends for them, and who gets that room.

A slot that found no node although its service says `preempts` has the least harmful tasks of
lower priority ended (`placement.preempting` chooses them) and is *nominated*: until they are gone
it waits, and what they free is kept for it against all slots that it comes before. A newcomer's
mistake: ending more because the first ones have not gone yet. What is ending counts as room to
come, whoever had it ended; so nobody is ended twice for, also when another scheduler leads by
then, which knows of no nominations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeport.lifecycle import TERMINAL, Desired
from homeport.model import Availability, Cause, NodeId, NodeState, ServiceId, Task, TaskId
from homeport.spec import ServiceSpec
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import engine, preempting
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.candidates import Candidate
from scheduler.placement.fleet import Fleet
from scheduler.placement.preempting import Occupant, Preemption
from scheduler.reconcile import nodes as silence, replicas
from scheduler.reconcile.nominations import Nominated, SlotKey
from scheduler.reconcile.slots import Vacancy, name

FAILURES_MAX = 1
"""A slot whose tasks ended badly more often than that, in a row, ends nobody: one node's refusal
sends it elsewhere, the second is its own fault and would be so on every node."""
DECISIONS_MIN, LOOKED_MAX, TRIED_MAX = 4, 2_000, 20_000
"""Slots for which room is made in one look, nodes that are looked at for more of them, and sets of
tasks that are tried for all of them, after which the next look goes on: nodes wait for answers."""
ALL = 1 << 30
NAMED_MAX = 5


@dataclass(slots=True)
class Made:
    """What comes of it."""

    answers: list[Placed | Unplaced] = field(default_factory=list)
    changes: dict[ServiceId, list[Change]] = field(default_factory=dict)  # by whom room is made for
    preempted: set[str] = field(default_factory=set)  # keys of the victims' records
    nominated: dict[SlotKey, Nominated] = field(default_factory=dict)
    words: dict[SlotKey, str] = field(default_factory=dict)  # the rest of why the slot waits
    again: dict[ServiceId, None] = field(default_factory=dict)  # to be looked at again at once
    tried: int = 0  # sets of victims


def place(
    snapshot: Snapshot,
    fleet: Fleet,
    asks: Sequence[Ask],
    due: Mapping[SlotKey, Vacancy],
    standing: Mapping[SlotKey, Nominated],
) -> Made:
    """Place these asks, and make room for those that may preempt and found none.

    `due` are the asks' vacancies, `standing` the nominations so far. As ever the fleet counts
    what was placed; what is only kept free is not counted any more afterwards.
    """
    cuts = {ask.priority for ask in asks if ask.preempts}
    cuts |= {each.ask.priority for each in standing.values()}
    if not cuts:
        return Made(answers=engine.place(fleet, asks))
    return _Making(snapshot, fleet, due, standing).place(asks, sorted(cuts, reverse=True))


def objection(snapshot: Snapshot) -> str:
    """Why nobody is ended for anybody now, as a sentence; empty: somebody may be."""
    if snapshot.observed.brake is not None:
        return "nothing ends to make room for it while the brake is on"
    for node in snapshot.stored.nodes():
        if node.availability is Availability.ACTIVE and not node.lost_ms:
            liveness = snapshot.observed.node(node.id)
            is_unheard = liveness.state is NodeState.READY and not liveness.reported
            if liveness.state is NodeState.UNKNOWN or is_unheard:
                return (
                    "nothing ends to make room for it before node"
                    f" {node.name} has reported or is down"
                )
    return ""


def objection_to(snapshot: Snapshot, vacancy: Vacancy) -> str:
    """Why nobody is ended for this slot, as a sentence; empty: somebody may be."""
    left = vacancy.leaves
    if left is not None and snapshot.observed.node(left).state is NodeState.SUSPECT:
        return f"nothing ends to make room for it before node {name(snapshot, left)} is down"
    if vacancy.failures > FAILURES_MAX:
        return f"nothing ends to make room for it: {vacancy.failures} tasks of it ended badly"
    return ""


def shown(snapshot: Snapshot, service: ServiceId, slot: int) -> str:
    """A slot as people know it: STACK/SERVICE.SLOT, of a global service STACK/SERVICE.NODE."""
    head = snapshot.stored.service(service)
    if head is None:
        return f"{service}.{slot}"
    if head.mode.is_global:
        for node in snapshot.stored.nodes():
            if node.number == slot:
                return f"{head.stack}/{head.name}.{node.name}"
    return f"{head.stack}/{head.name}.{slot}"


def listed(snapshot: Snapshot, tasks: Collection[TaskId]) -> str:
    """Some tasks as people know them."""
    records = [task for each in tasks if (task := snapshot.stored.task(each)) is not None]
    names = sorted(shown(snapshot, task.service, task.slot) for task in records)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


class _Making:
    """One batch of placements."""

    def __init__(
        self,
        snapshot: Snapshot,
        fleet: Fleet,
        due: Mapping[SlotKey, Vacancy],
        standing: Mapping[SlotKey, Nominated],
    ) -> None:
        self._snapshot = snapshot
        self._fleet = fleet
        self._due = due
        self._standing = standing
        self._known = _Known(snapshot)
        self._made = Made()
        self._kept: list[TaskId] = []  # what the fleet counts for nominations alone
        self._hopeless: set[tuple[object, ...]] = set()
        self._objection: str | None = None  # to anybody's end; None: nobody has asked yet
        self._left = max(DECISIONS_MIN, LOOKED_MAX // max(1, len(fleet.candidates)))
        self._effort = preempting.Effort()

    def place(self, asks: Sequence[Ask], cuts: Sequence[int]) -> Made:
        """Go down the priorities, at each of which room is made or kept."""
        rest = list(asks)
        for cut in cuts:
            self._place([ask for ask in rest if ask.priority > cut])
            for slot, each in self._standing.items():
                if each.ask.priority == cut and slot not in self._due:
                    self._keep(each)
            level = [ask for ask in rest if ask.priority == cut]
            # What room is being made for comes before its equals.
            self._place([ask for ask in level if _slot(ask) in self._standing])
            self._place([ask for ask in level if _slot(ask) not in self._standing])
            rest = [ask for ask in rest if ask.priority < cut]
        self._place(rest)
        for task in self._kept:
            self._fleet.task_removed(task)
        self._made.tried = self._effort.tried
        return self._made

    def _place(self, asks: Sequence[Ask]) -> None:
        answers = engine.place(self._fleet, asks)
        self._made.answers += answers
        for answer in answers:
            if isinstance(answer, Unplaced) and answer.ask.preempts:
                self._make_room(answer.ask)

    def _make_room(self, ask: Ask) -> None:
        if self._objection is None:
            self._objection = objection(self._snapshot)
        why = self._objection or objection_to(self._snapshot, self._due[_slot(ask)])
        if (begun := self._begun(ask, may_end=not why)) is not None:
            self._nominate(ask, begun)
            return
        kind = (ask.kind, ask.priority, bool(why))
        if kind in self._hopeless:
            self._say(ask, why)
            return
        if not self._left or self._effort.tried >= TRIED_MAX:
            self._made.words[_slot(ask)] = "its turn to have room made for it comes next"
            self._made.again[ask.service] = None
            return
        self._left -= 1
        only = self._fleet.candidates.get(ask.only) if ask.only is not None else None
        nodes = None if ask.only is None else [only] if only is not None else []
        found = self._decide(ask, nodes, may_end=not why)
        if found is None:
            self._hopeless.add(kind)
            self._say(ask, why)
        else:
            self._nominate(ask, found)

    def _say(self, ask: Ask, why: str) -> None:
        said = why or "no tasks of lower priority could make room for it"
        self._made.words[_slot(ask)] = said

    def _begun(self, ask: Ask, *, may_end: bool) -> Preemption | None:
        """What was begun for this slot, if it still comes to something: then it is finished, though
        another node may be a little better by now, and no matter how many others are looked at."""
        before = self._standing.get(_slot(ask))
        node = self._fleet.candidates.get(before.node) if before is not None else None
        if before is None or node is None:
            return None
        found = self._decide(ask, [node], may_end=may_end)
        if found is None or not {each.task for each in found.victims} <= before.victims:
            return None
        return found

    def _decide(
        self, ask: Ask, nodes: list[Candidate] | None, *, may_end: bool
    ) -> Preemption | None:
        self._known.ask_of(ask)
        spare = self._known.spare if may_end else _nobody
        fleet, occupants = self._fleet, self._known.occupants
        return preempting.decide(fleet, ask, occupants, spare, nodes, self._effort)

    def _nominate(self, ask: Ask, found: Preemption) -> None:
        before = self._standing.get(_slot(ask))
        already = before.victims if before is not None and before.node == found.node else ()
        victims = frozenset([*already, *(each.task for each in found.victims)])
        where = name(self._snapshot, found.node)
        if victims:
            verb = "ends" if len(victims) == 1 else "end"
            said = f"{listed(self._snapshot, victims)} {verb} on {where} to make room for it"
        else:
            said = f"it gets the room on {where} of what is ending there"
        self._made.words[_slot(ask)] = said
        reason = (
            f"it makes room for {shown(self._snapshot, ask.service, ask.slot)}"
            f" of priority {ask.priority}"
        )
        for each in found.victims:
            self._known.end(each)
            change = _end(self._snapshot, each.task, reason)
            self._made.changes.setdefault(ask.service, []).append(change)
            self._made.preempted.add(change.key)
        nominated = Nominated(ask=ask, node=found.node, grants=found.grants, victims=victims)
        self._made.nominated[_slot(ask)] = nominated
        self._keep(nominated)

    def _keep(self, each: Nominated) -> None:
        """Let the fleet count the task that is to come, until this batch is placed."""
        task = each.ask.task
        if task not in self._fleet.held and each.node in self._fleet.candidates:
            self._fleet.task_added(task, each.ask.on(each.node), each.grants)
            self._kept.append(task)


class _Known:
    """What is known of those that take room, and how many of a service may end."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._occupants: dict[NodeId, dict[TaskId, Occupant]] = {}
        self._spared: dict[ServiceId, int] = {}
        self._heads: dict[ServiceId, tuple[ServiceSpec | None, bool]] = {}
        self._needed: frozenset[ServiceId] = frozenset()

    def ask_of(self, ask: Ask) -> None:
        """It is asked for this one from now on: what it depends on does not go for it."""
        self._needed = _dependencies(self._snapshot, ask.service)

    def occupants(self, node: NodeId) -> list[Occupant]:
        """The tasks on a node."""
        found = self._occupants.get(node)
        if found is None:
            tasks = self._snapshot.stored.tasks_of_node(node)
            found = {task.id: self._occupant(task) for task in tasks if task.outcome is None}
            self._occupants[node] = found
        if not self._needed:
            return list(found.values())
        return [
            replace(each, may_go=False) if each.service in self._needed else each
            for each in found.values()
        ]

    def spare(self, service: ServiceId) -> int:
        """How many tasks of a service may be ended so that its minimum is left running."""
        found = self._spared.get(service)
        if found is None:
            found = self._spared[service] = _spare(self._snapshot, service)
        return found

    def end(self, victim: Occupant) -> None:
        """This one was chosen."""
        self._spared[victim.service] = self.spare(victim.service) - 1
        for found in self._occupants.values():
            if victim.task in found:
                found[victim.task] = replace(victim, is_ending=True)

    def _occupant(self, task: Task) -> Occupant:
        spec, is_removed = self._head(task.service)
        status = self._snapshot.observed.status(task.id)
        # What is being moved soon takes its room elsewhere, or is given up.
        may_go = (
            spec is not None
            and task.move is None
            and (
                spec.preemptible
                if spec.preemptible is not None
                else not (task.exclusive or task.pinned)
            )
        )
        return Occupant(
            task=task.id,
            service=task.service,
            priority=spec.priority if spec is not None else 0,
            created_ms=task.created_ms,
            may_go=may_go,
            is_ending=is_removed
            or task.desired is not Desired.RUNNING
            or (status is not None and status.state in TERMINAL),
        )

    def _head(self, service: ServiceId) -> tuple[ServiceSpec | None, bool]:
        """(its spec, or None where its tasks are left alone; whether all of them end)."""
        found = self._heads.get(service)
        if found is None:
            found = self._heads[service] = _head(self._snapshot, service)
        return found


def _slot(ask: Ask) -> SlotKey:
    return (ask.service, ask.slot)


def _nobody(service: ServiceId) -> int:
    return 0


def _head(snapshot: Snapshot, service: ServiceId) -> tuple[ServiceSpec | None, bool]:
    stored = snapshot.stored
    head = stored.service(service)
    if any(service in key for key in stored.unreadable):
        return None, False  # a newer version's, which leaves it alone
    if head is None or head.removing:
        return None, True
    stack = stored.stack(head.stack)
    edition = stored.spec(service, head.generation)
    if edition is None or (stack is not None and stack.draft):
        return None, False
    return edition.spec, False


def _spare(snapshot: Snapshot, service: ServiceId) -> int:
    """Only what is seen to run and is not unwell counts towards a minimum."""
    head = snapshot.stored.service(service)
    edition = snapshot.stored.spec(service, head.generation) if head is not None else None
    if head is None or edition is None:
        return 0
    if not edition.spec.min_replicas:
        return ALL
    wanted = replicas.wanted(head)
    running = {
        task.slot
        for task in snapshot.stored.tasks_of_service(service)
        if task.slot in wanted
        and task.outcome is None
        and task.desired is Desired.RUNNING
        and silence.has_reported(snapshot, task)
        and is_ready(snapshot.observed.status(task.id))
    }
    return max(0, len(running) - edition.spec.min_replicas)


def _dependencies(snapshot: Snapshot, service: ServiceId) -> frozenset[ServiceId]:
    """The services that this one depends on, and those that they depend on."""
    found: set[ServiceId] = set()
    todo = [service]
    while todo:
        head = snapshot.stored.service(todo.pop())
        edition = snapshot.stored.spec(head.id, head.generation) if head is not None else None
        if head is None or edition is None:
            continue
        for each in edition.spec.depends_on:
            other = snapshot.stored.service_named(head.stack, each.service)
            if other is not None and other.id not in found:
                found.add(other.id)
                todo.append(other.id)
    return frozenset(found)


def _end(snapshot: Snapshot, task_id: TaskId, reason: str) -> Put:
    task = snapshot.stored.task(task_id)
    assert task is not None, "its node's tasks were read from this snapshot"
    ended = replace(task, desired=Desired.SHUTDOWN, cause=Cause.RECONCILER, reason=reason)
    return Put(ended, snapshot.stored.version(keys.task(task_id)), reason)
