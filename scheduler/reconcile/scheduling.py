"""Give waiting slots a node: the only place that creates tasks.

Vacancies become asks, placement answers, and each answer becomes one record that is
created only if it is absent, or a Waiting value that says why not. Slots that found no
node are kept by what they need: a node that got room is tried against each kind once, and
only the services of kinds that fit there are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from types import MappingProxyType

from homeport.model import Cause, NodeId, ServiceId, Task
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.cluster.observed import Refusal, Waiting
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import engine, filters, grouping, requirements as needs, words
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.fleet import Fleet, requirements_of
from scheduler.reconcile import preemption, volumes
from scheduler.reconcile.nominations import Nominated, SlotKey
from scheduler.reconcile.slots import Vacancy, name


@dataclass(slots=True)
class Scheduled:
    """What became of a batch of vacancies."""

    changes: dict[ServiceId, list[Change]] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)  # assumed in the fleet: undo on failure
    unplaced: list[Unplaced] = field(default_factory=list)
    waiting: dict[ServiceId, dict[int, Waiting]] = field(default_factory=dict)
    wake_at: dict[ServiceId, float] = field(default_factory=dict)
    preempted: set[str] = field(default_factory=set)  # keys of tasks that end to make room
    nominated: dict[SlotKey, Nominated] = field(default_factory=dict)
    tried: int = 0  # sets of tasks that might end


def decide(
    snapshot: Snapshot,
    fleet: Fleet,
    vacancies: Sequence[Vacancy],
    standing: Mapping[SlotKey, Nominated] = MappingProxyType({}),
) -> Scheduled:
    """Place what can be placed now. The fleet counts the placed tasks from now on.

    `standing`: the slots for which room is being made already.
    """
    result = Scheduled()
    due: dict[SlotKey, Vacancy] = {}
    for vacancy in vacancies:
        if vacancy.blocked:
            _wait(snapshot, result, vacancy, f"{vacancy.reason}; it {vacancy.blocked}")
        elif vacancy.not_before > snapshot.now:
            _wait(snapshot, result, vacancy, f"{vacancy.reason}; it waits before the next try")
            _wake(result, vacancy.service, vacancy.not_before)
        else:
            due[vacancy.service, vacancy.slot] = vacancy
    asks = [ask for vacancy in due.values() if (ask := ask_for(snapshot, fleet, vacancy))]
    # Thousands of slots may be refused by thousands of nodes: those of one kind share what is said.
    refused: Sequence[Refusal] | None = None
    kept: Sequence[Refusal] = ()
    summary = ""
    made = preemption.place(snapshot, fleet, asks, due, standing)
    result.changes, result.preempted = made.changes, made.preempted
    result.nominated, result.tried = made.nominated, made.tried
    for answer in made.answers:
        vacancy = due[answer.ask.service, answer.ask.slot]
        if isinstance(answer, Placed):
            result.placed.append(answer)
            result.changes.setdefault(vacancy.service, []).extend(
                _create(snapshot, vacancy, answer)
            )
        else:
            result.unplaced.append(answer)
            if answer.refusals is not refused:
                refused = answer.refusals
                kept, summary = _kept(snapshot, vacancy, refused), words.summary(refused)
            why = f"{vacancy.reason}; {summary}"
            if more := made.words.get((vacancy.service, vacancy.slot)):
                why = f"{why}; {more}"
            _wait(snapshot, result, vacancy, why, kept)
    for service in made.again:
        _wake(result, service, snapshot.now)
    return result


def ask_for(snapshot: Snapshot, fleet: Fleet, vacancy: Vacancy) -> Ask | None:
    """The ask of a vacancy; None when its spec is not there."""
    stored = snapshot.stored
    service = stored.service(vacancy.service)
    spec = stored.spec(vacancy.service, vacancy.generation)
    if service is None or spec is None:
        return None
    required = requirements_of(stored, vacancy.service, vacancy.generation)
    # Where the data is nothing can be avoided: the task waits its back-off and tries again.
    has_home = required.node or any(fleet.homes.get(volume) for volume in required.volumes)
    fixed = vacancy.only is not None or (bool(has_home) and not service.mode.is_global)
    return Ask(
        service=vacancy.service,
        slot=vacancy.slot,
        n=vacancy.n,
        generation=vacancy.generation,
        needs=required,
        priority=spec.spec.priority,
        only=vacancy.only,
        excluded=() if fixed else vacancy.excluded,
        fixes_volumes=not service.mode.is_global,
        name=f"{service.stack}/{service.name}",
        needs_lease=needs.is_exclusive(spec.spec, required, service)
        and not needs.is_pinned(required, service),
        preempts=spec.spec.preempts and vacancy.move is None,  # nobody ends for a better place
    )


def data_node(
    snapshot: Snapshot, fleet: Fleet, service: ServiceId, generation: int, last: Task | None
) -> NodeId | None:
    """The node that a single replica with a writable bind goes back to.

    None where it has no such node, or where the spec's own constraints now forbid that one:
    then the user has moved it.
    """
    head = snapshot.stored.service(service)
    if head is None or last is None or not last.pinned:
        return None
    required = requirements_of(snapshot.stored, service, generation)
    if not required.data_on_node or not needs.is_single(head):
        return None
    candidate = fleet.candidates.get(last.node)
    ask = Ask(service=service, slot=last.slot, n=0, generation=generation, needs=required)
    if candidate is None or not filters.is_eligible(fleet, ask, candidate):
        return None
    return last.node


class WaitingRoom:
    """Which services wait for a node, by what they need."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._asks: dict[ServiceId, dict[tuple[object, ...], Ask]] = {}
        self._kinds: dict[tuple[object, ...], dict[ServiceId, None]] = {}
        self._grouped = 0  # asks that a task placed elsewhere can make fit
        self._preempting: dict[ServiceId, None] = {}

    def replace(self, service: ServiceId, asks: Iterable[Ask]) -> None:
        """These are the service's asks that found no node, instead of those before."""
        for kind, ask in self._asks.pop(service, {}).items():
            self._grouped -= ask.needs.is_grouped
            of_kind = self._kinds[kind]
            of_kind.pop(service, None)
            if not of_kind:
                del self._kinds[kind]
        self._preempting.pop(service, None)
        kinds = {ask.kind: ask for ask in asks}
        if kinds:
            self._asks[service] = kinds
            for kind, ask in kinds.items():
                self._grouped += ask.needs.is_grouped
                if ask.preempts:
                    self._preempting[service] = None
                self._kinds.setdefault(kind, {})[service] = None

    def woken_by(self, fleet: Fleet, node: NodeId) -> list[ServiceId]:
        """The services of which a waiting slot fits now that this node has changed.

        For what depends on groups of nodes, one that changed can make room on any other.
        """
        candidate = fleet.candidates.get(node)
        if candidate is None or not self._kinds:
            return []
        woken: dict[ServiceId, None] = {}
        for kind, services in self._kinds.items():
            ask = self._asks[next(iter(services))][kind]
            if grouping.concerns(fleet, ask):
                fits = engine.is_placeable(fleet, ask)
            else:
                fits = filters.first_refusal(fleet, ask, candidate) is None
            if fits:
                woken |= services
        return list(woken)

    @property
    def waits_for_others(self) -> bool:
        """Whether a task that is placed somewhere can make one of these fit."""
        return self._grouped > 0

    @property
    def preempting(self) -> list[ServiceId]:
        """The services that wait for a node and may have others ended to get one."""
        return list(self._preempting)

    def everybody(self) -> list[ServiceId]:
        """All services that wait for a node."""
        return list(self._asks)


def _create(snapshot: Snapshot, vacancy: Vacancy, placed: Placed) -> list[Change]:
    stored = snapshot.stored
    service = stored.service(vacancy.service)
    spec = stored.spec(vacancy.service, vacancy.generation)
    assert service is not None, "ask_for looked it up in this snapshot"
    assert spec is not None, "ask_for looked it up in this snapshot"
    # A thousand tasks have the same few reasons, and records last: one string for all of them.
    reason = intern(f"{vacancy.reason}; placed on {name(snapshot, placed.node)}")
    task = Task(
        service=vacancy.service,
        slot=vacancy.slot,
        n=vacancy.n,
        node=placed.node,
        grants=placed.grants,
        generation=vacancy.generation,
        reason=reason,
        pinned=needs.is_pinned(placed.ask.needs, service),
        exclusive=needs.is_exclusive(spec.spec, placed.ask.needs, service),
        created_ms=snapshot.now_ms,
        failures=vacancy.failures,
        moved_ms=snapshot.now_ms if vacancy.move is Cause.RECONCILER else 0,
    )
    changes: list[Change] = [
        change
        for volume in placed.ask.needs.volumes
        if (change := volumes.home(snapshot, volume, placed.node)) is not None
    ]
    changes.append(Put(task, ABSENT, reason))
    return changes


def _kept(snapshot: Snapshot, vacancy: Vacancy, refusals: Sequence[Refusal]) -> Sequence[Refusal]:
    """The refusals of before where they are equal, so that whoever compares sees it at once."""
    before = snapshot.observed.waiting.get(vacancy.service, {}).get(vacancy.slot)
    return before.refusals if before is not None and before.refusals == refusals else refusals


def _wait(
    snapshot: Snapshot,
    result: Scheduled,
    vacancy: Vacancy,
    reason: str,
    refusals: Sequence[Refusal] = (),
) -> None:
    before = snapshot.observed.waiting.get(vacancy.service, {}).get(vacancy.slot)
    result.waiting.setdefault(vacancy.service, {})[vacancy.slot] = Waiting(
        service=vacancy.service,
        slot=vacancy.slot,
        generation=vacancy.generation,
        since_ms=before.since_ms if before is not None else snapshot.now_ms,
        reason=reason,
        refusals=refusals,
        not_before=vacancy.not_before,
    )


def _wake(result: Scheduled, service: ServiceId, when: float) -> None:
    known = result.wake_at.get(service)
    if known is None or when < known:
        result.wake_at[service] = when
