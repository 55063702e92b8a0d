"""Say where tasks would go and why, without changing anything.

The same reconcilers and the same placement as in earnest, on a snapshot that may have
proposed changes laid over it (`Snapshot.over`) and on a copy of the fleet. Newcomers
expect a simulation of the whole cluster here; it is one look at the named services.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired
from homeport.model import NodeId, Service, ServiceId, Task, TaskId
from scheduler.cluster.observed import Refusal, Waiting
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import filters, scores
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.reconcile import (
    nodes,
    outcomes,
    replicas,
    restarts,
    scheduling,
    services as reconcile,
)
from scheduler.reconcile.slots import Slot, Vacancy, name, next_n


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Where one missing or to-be-replaced task would go."""

    service: ServiceId
    slot: int
    node: NodeId | None  # None: it would wait
    reason: str
    replaces: TaskId | None = None
    refusals: Sequence[Refusal] = ()  # why not elsewhere, where it would wait


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplanation:
    """What speaks for and against one node."""

    node: NodeId
    name: str
    chosen: bool = False
    refusals: Sequence[Refusal] = ()
    scores: tuple[tuple[str, int], ...] = ()  # part -> points; empty where it was refused
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a slot's task is where it is, or why it waits."""

    service: ServiceId
    slot: int
    task: TaskId | None
    reason: str  # a sentence
    nodes: tuple[NodeExplanation, ...] = ()  # best first, refused ones last


def plan(snapshot: Snapshot, services: Sequence[ServiceId]) -> list[Planned]:
    """Where each missing or to-be-replaced task of these services would go, in order.

    Slots that hold a good task of the present generation are not mentioned.
    """
    ended = [change for service in services for change in outcomes.decide(snapshot, service)]
    snapshot = snapshot.over(ended)
    fleet = Fleet.from_snapshot(snapshot)
    replaced: dict[tuple[ServiceId, int], Task] = {}
    vacancies: list[Vacancy] = []
    for service_id in services:
        for task in ending(snapshot, service_id):
            fleet.task_removed(task.id)
        service = snapshot.stored.service(service_id)
        if service is None or service.removing:
            continue
        decision = reconcile.decide(snapshot, fleet, service_id)
        # Where it would go is asked; that it must wait for another service is not.
        vacancies += [
            replace(vacancy, blocked="", not_before=0.0) for vacancy in decision.vacancies
        ]
        for task in _old(snapshot, service):
            replaced[service_id, task.slot] = task
            vacancies.append(_successor(snapshot, fleet, service, task))
    result = scheduling.decide(snapshot, fleet, vacancies)
    where = {(placed.ask.service, placed.ask.slot): placed.node for placed in result.placed}
    planned: list[Planned] = []
    for vacancy in vacancies:
        place = (vacancy.service, vacancy.slot)
        old = replaced.get(place)
        waiting = result.waiting.get(vacancy.service, {}).get(vacancy.slot)
        node = where.get(place)
        planned.append(
            Planned(
                service=vacancy.service,
                slot=vacancy.slot,
                node=node,
                reason=waiting.reason
                if waiting is not None
                else f"{vacancy.reason}; goes to {name(snapshot, node)}"
                if node is not None
                else vacancy.reason,
                replaces=old.id if old is not None else None,
                refusals=waiting.refusals if waiting is not None else (),
            )
        )
    order = {service: index for index, service in enumerate(services)}
    return sorted(planned, key=lambda each: (order[each.service], each.slot))


def explain(snapshot: Snapshot, service: ServiceId, slot: int) -> Explanation:
    """Every node's standing for this slot, as if it were placed now.

    The slot's own live task is taken off the fleet first, so that the node that it is on
    is judged as it was before.
    """
    fleet = Fleet.from_snapshot(snapshot)
    tasks = snapshot.stored.tasks_of_slot(service, slot)
    live = [task for task in tasks if task.outcome is None]
    task = live[-1] if live else (tasks[-1] if tasks else None)
    for each in live:
        fleet.task_removed(each.id)
    head = snapshot.stored.service(service)
    if head is None:
        return Explanation(
            service=service, slot=slot, task=None, reason=f"there is no service {service}"
        )
    vacancy = _vacancy(snapshot, fleet, head, slot, task if live else None)
    ask = scheduling.ask_for(snapshot, fleet, vacancy)
    waiting = snapshot.observed.waiting.get(service, {}).get(slot)
    judged = _judged(fleet, ask, live) if ask is not None else []
    return Explanation(
        service=service,
        slot=slot,
        task=task.id if task is not None else None,
        reason=_why(snapshot, head, task, live, waiting),
        nodes=tuple(judged),
    )


def _why(
    snapshot: Snapshot,
    service: Service,
    task: Task | None,
    live: list[Task],
    waiting: Waiting | None,
) -> str:
    if live and task is not None:
        if nodes.is_drained(snapshot, task) and task.pinned:
            return (
                f"it stays on {name(snapshot, task.node)}, which is being drained: its data is"
                " there, and a pinned task does not move"
            )
        if task.pinned and (why := nodes.must_leave(snapshot, task)):
            return f"it stays, though {why}: its data is there, and a pinned task does not move"
        if waiting is not None:
            return waiting.reason  # a successor of it has to wait
        if why := nodes.waits_for_its_node(snapshot, task):
            return why
        return task.reason
    if waiting is not None:
        return waiting.reason
    if task is not None and task.outcome is not None:
        spec = snapshot.stored.spec(service.id, service.generation)
        if spec is not None:
            return restarts.decide(snapshot, service, spec.spec, task).reason
    return "no decision about it has been made yet"


def _judged(fleet: Fleet, ask: Ask, live: list[Task]) -> list[NodeExplanation]:
    on = {task.node for task in live}
    answers = [_judge(fleet, ask, candidate) for candidate in fleet.by_name()]
    best = max(
        (each for each in answers if not each.refusals),
        key=lambda each: each.total,
        default=None,
    )
    marked = [
        replace(each, chosen=each.node in on if on else best is not None and each.node == best.node)
        for each in answers
    ]
    return sorted(marked, key=lambda each: (bool(each.refusals), -each.total, each.name))


def _judge(fleet: Fleet, ask: Ask, candidate: Candidate) -> NodeExplanation:
    refusals = filters.refusals(fleet, ask, candidate)
    if refusals:
        return NodeExplanation(node=candidate.id, name=candidate.name, refusals=refusals)
    parts = scores.parts(fleet, ask, candidate)
    return NodeExplanation(
        node=candidate.id,
        name=candidate.name,
        scores=parts,
        total=sum(points for _, points in parts),
    )


def ending(snapshot: Snapshot, service_id: ServiceId) -> list[Task]:
    """Live tasks that the next looks will end: their room is free by then."""
    service = snapshot.stored.service(service_id)
    if service is None:
        return []
    tasks = [task for task in snapshot.stored.tasks_of_service(service_id) if task.outcome is None]
    if service.removing:
        return tasks
    if service.mode.is_global:
        return [task for task in tasks if task.generation < service.template_generation]
    keep = replicas.wanted(service)
    return [
        task
        for task in tasks
        if task.slot not in keep or task.generation < service.template_generation
    ]


def _old(snapshot: Snapshot, service: Service) -> list[Task]:
    """Live tasks of an old generation in slots that stay: the newest of each slot."""
    keep = None if service.mode.is_global else replicas.wanted(service)
    newest: dict[int, Task] = {}
    for task in snapshot.stored.tasks_of_service(service.id):
        if (keep is None or task.slot in keep) and task.outcome is None:
            newest[task.slot] = task
    return [
        task
        for task in newest.values()
        if task.generation < service.template_generation and task.desired is Desired.RUNNING
    ]


def _successor(snapshot: Snapshot, fleet: Fleet, service: Service, task: Task) -> Vacancy:
    return replace(
        _vacancy(snapshot, fleet, service, task.slot, None),
        reason=f"generation {service.generation} replaces generation {task.generation}",
        only=task.node
        if service.mode.is_global
        else scheduling.data_node(snapshot, fleet, service.id, service.generation, task),
    )


def _vacancy(
    snapshot: Snapshot, fleet: Fleet, service: Service, slot: int, live: Task | None
) -> Vacancy:
    """The slot as if it were empty; with the generation of its live task, if it has one."""
    tasks = snapshot.stored.tasks_of_service(service.id)
    generation = live.generation if live is not None else service.generation
    history = Slot(slot, tuple(task for task in tasks if task.slot == slot))
    only: NodeId | None = None
    if service.mode.is_global:
        only = next((node.id for node in snapshot.stored.nodes() if node.number == slot), None)
    elif live is None:
        only = scheduling.data_node(snapshot, fleet, service.id, generation, history.last)
    return Vacancy(
        service=service.id,
        slot=slot,
        n=next_n(service, history),
        generation=generation,
        reason="the slot is empty",
        only=only,
        excluded=restarts.excluded(snapshot, tasks, generation)[0],
    )
