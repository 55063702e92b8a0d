"""One look at one service: every concern in its turn, and one answer.

How a task ended is recorded first, alone: all else rests on the record. After that the
concerns speak in a fixed order, and the first that speaks of a record is heard. A
newcomer's mistake: deciding here. This only asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from homeport.model import Node, NodeId, RolloutState, Service, ServiceId, Task, TaskId
from homeport.spec import ServiceSpec
from scheduler.cluster.changes import Change
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import engine
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import (
    calm,
    dependencies,
    globals as global_services,
    nodes,
    outcomes,
    reaper,
    relocating,
    replicas,
    restarts,
    rollouts,
    scheduling,
    slots as slots_of,
    volumes,
)
from scheduler.reconcile.slots import Slot, Vacancy


@dataclass(slots=True, kw_only=True)
class Decision:
    """What one look at a service leads to."""

    changes: list[Change] = field(default_factory=list)
    vacancies: list[Vacancy] = field(default_factory=list)
    stays: list[Ask] = field(default_factory=list)  # drained, but no other node takes them
    awaits: tuple[ServiceId, ...] = ()  # services whose change may unblock this one
    wake_at: float = 0.0  # boot time of the next look; 0: when something changes
    running: dict[TaskId, int] = field(default_factory=dict)
    proven: list[TaskId] = field(default_factory=list)
    is_calm: bool = False  # nothing to do, however far its live tasks come (see `calm`)

    def wake(self, when: float) -> None:
        """Look again at `when`, if not before; 0 says nothing."""
        if when and (not self.wake_at or when < self.wake_at):
            self.wake_at = when


def decide(snapshot: Snapshot, fleet: Fleet, service_id: ServiceId) -> Decision:
    """The next changes to a service, and which of its slots want a task."""
    decision = Decision()
    service = snapshot.stored.service(service_id)
    if service is not None and calm.is_calm(snapshot, service):
        decision.is_calm = True
        return decision
    decision.wake(outcomes.wake_at(snapshot, service_id))
    if service is None:
        decision.changes += reaper.headless(snapshot, service_id)
        return decision
    decision.changes += outcomes.decide(snapshot, service_id)
    if decision.changes:
        return decision
    slots = slots_of.of_service(snapshot, service_id)
    said: list[Iterable[Change]] = []
    spec = snapshot.stored.spec(service_id, service.generation)
    if service.removing:
        said.append(replicas.decide(snapshot, service, slots))
    elif spec is not None:
        said += _running(snapshot, fleet, service, spec.spec, slots, decision)
    said.append(reaper.tasks(snapshot, service, slots))
    decision.wake(reaper.wake_at(snapshot, service, slots))
    said.append(reaper.service(snapshot, service))
    first: dict[str, Change] = {}
    for changes in said:
        for change in changes:
            first.setdefault(change.key, change)
    decision.changes = list(first.values())
    return decision


def _running(
    snapshot: Snapshot,
    fleet: Fleet,
    service: Service,
    spec: ServiceSpec,
    slots: Mapping[int, Slot],
    decision: Decision,
) -> list[Iterable[Change]]:
    """Of a service that is to run: what its concerns say, in their order."""
    said: list[Iterable[Change]] = []
    eligible: dict[int, Node] = {}
    if service.mode.is_global:
        eligible = global_services.eligible(snapshot, service)
        said.append(global_services.decide(snapshot, service, slots, eligible))
        numbers: Iterable[int] = sorted(eligible)
    else:
        said.append(replicas.decide(snapshot, service, slots))
        numbers = replicas.wanted(service)
    wanted = {number: slots.get(number) or Slot(number) for number in numbers}
    settled = nodes.settle(snapshot, wanted)
    said.append(settled.changes)
    decision.wake(settled.wake_at)
    said.append(_drained(snapshot, fleet, service, wanted, decision))
    for progress in (
        relocating.decide(snapshot, fleet, service, spec, wanted),
        rollouts.decide(snapshot, service, spec, wanted),
    ):
        said.append(progress.changes)
        decision.running |= progress.running
        decision.proven += progress.proven
        decision.wake(progress.wake_at)
    said.append(volumes.decide(snapshot, service))
    vacancies = _vacancies(snapshot, fleet, service, spec, wanted, eligible, decision)
    decision.vacancies = _blocked(snapshot, service, spec, wanted, vacancies, decision)
    return said


def _vacancies(
    snapshot: Snapshot,
    fleet: Fleet,
    service: Service,
    spec: ServiceSpec,
    wanted: Mapping[int, Slot],
    eligible: Mapping[int, Node],
    decision: Decision,
) -> list[Vacancy]:
    found: list[Vacancy] = []
    tasks = [task for slot in wanted.values() for task in slot.tasks]
    excluded: dict[int, tuple[NodeId, ...]] = {}
    for number, slot in wanted.items():
        node = eligible.get(number)
        if node is not None and not global_services.takes_new(snapshot, fleet, service, node):
            continue
        verdict = _verdict(snapshot, service, spec, slot)
        if verdict is None or not verdict.successor:
            continue
        generation = _generation(snapshot, service, slot.last)
        if generation not in excluded:
            excluded[generation], lapses_at = restarts.excluded(snapshot, tasks, generation)
            decision.wake(lapses_at)
        only = (
            node.id
            if node is not None
            else scheduling.data_node(snapshot, fleet, service.id, generation, slot.last)
        )
        live = [*slot.wanted, *slot.stopping]
        to = relocating.target(snapshot, fleet, service, slot)
        moved = next((task.move for task in slot.tasks[::-1] if task.move), None) if to else None
        found.append(
            Vacancy(
                service=service.id,
                slot=number,
                n=slots_of.next_n(service, slot),
                generation=generation,
                reason=verdict.reason,
                failures=verdict.failures,
                not_before=verdict.not_before,
                only=only or to,
                excluded=excluded[generation],
                blocked="" if node is not None or live else _awaited(snapshot, slot, decision),
                leaves=live[-1].node if live and to is None else None,
                needs_lease=any(task.needs_lease for task in live),
                move=moved.cause if moved is not None else None,
            )
        )
    return found


def _awaited(snapshot: Snapshot, slot: Slot, decision: Decision) -> str:
    """The node that an empty slot waits for, as a sentence's end; empty: none."""
    if why := nodes.awaits_node(snapshot, slot):
        return why
    if why := relocating.awaits_target(snapshot, slot):
        decision.wake(snapshot.now + relocating.AGAIN_SECONDS)
    return why


def _verdict(
    snapshot: Snapshot, service: Service, spec: ServiceSpec, slot: Slot
) -> restarts.Verdict | None:
    if slot.wanted or slot.stopping:
        why = nodes.awaits_successor(snapshot, service, slot)
        moving = relocating.awaits_successor(snapshot, service, slot)
        if not why and moving is not None and moving.move is not None:
            why = f"it moves from node {slots_of.name(snapshot, moving.node)}: {moving.move.reason}"
        if not why:
            return None
        failures = slot.last.failures if slot.last is not None else 0
        return restarts.Verdict(successor=True, reason=why, failures=failures)
    return restarts.decide(snapshot, service, spec, slot.last)


def _generation(snapshot: Snapshot, service: Service, last: Task | None) -> int:
    """A rollout that stopped leaves the slots that it did not reach as they were."""
    rollout = snapshot.stored.rollout(service.id)
    if (
        last is not None
        and rollout is not None
        and rollout.state is RolloutState.PAUSED
        and rollout.generation == service.template_generation
        and last.generation < service.template_generation
        and snapshot.stored.spec(service.id, last.generation) is not None
    ):
        return last.generation
    return service.generation


def _blocked(
    snapshot: Snapshot,
    service: Service,
    spec: ServiceSpec,
    wanted: Mapping[int, Slot],
    vacancies: list[Vacancy],
    decision: Decision,
) -> list[Vacancy]:
    """Hold back the slots that must wait for another service, or for their turn."""
    if not vacancies:
        return vacancies
    first, decision.awaits = dependencies.predecessor(snapshot, service)
    if not first:
        first, decision.awaits = dependencies.decide(snapshot, service, spec)
    if first:
        return [_held(vacancy, first) for vacancy in vacancies]
    if service.mode.is_job and spec.max_concurrent:
        # A slot whose task's node is silent has its turn: its successor must not wait for its end.
        busy = {number for number, slot in wanted.items() if slot.wanted or slot.stopping}
        free = max(0, spec.max_concurrent - len(busy))
        turn = f"waits for its turn: {spec.max_concurrent} run at once"
        said: list[Vacancy] = []
        for vacancy in vacancies:
            if vacancy.slot in busy:
                said.append(vacancy)
            elif free:
                free -= 1
                said.append(vacancy)
            else:
                said.append(_held(vacancy, turn))
        return said
    return vacancies


def _held(vacancy: Vacancy, why: str) -> Vacancy:
    return replace(vacancy, blocked=why)


def _drained(
    snapshot: Snapshot,
    fleet: Fleet,
    service: Service,
    wanted: Mapping[int, Slot],
    decision: Decision,
) -> list[Change]:
    """Move tasks off drained nodes, but only what another node takes."""
    candidates = nodes.to_drain(snapshot, service, wanted)
    if service.mode.is_global:
        return [nodes.drain(snapshot, task) for task in candidates]
    for task in candidates:
        vacancy = Vacancy(
            service=service.id,
            slot=task.slot,
            n=slots_of.next_n(service, wanted[task.slot]),
            generation=_generation(snapshot, service, task),
            reason=nodes.must_leave(snapshot, task),
        )
        ask = scheduling.ask_for(snapshot, fleet, vacancy)
        if ask is None:
            continue
        if engine.is_placeable(fleet, ask):
            return [nodes.drain(snapshot, task)]
        decision.stays.append(ask)
    return []
