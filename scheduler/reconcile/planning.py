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
from scheduler.placement.fleet import Fleet
from scheduler.placement.remedy import Remedy
from scheduler.reconcile import (
    nodes,
    outcomes,
    replicas,
    restarts,
    scheduling,
    services as reconcile,
    standings,
    vacancies,
)
from scheduler.reconcile.remedying import Remedying
from scheduler.reconcile.slots import Vacancy, name
from scheduler.reconcile.standings import NodeExplanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Where one missing or to-be-replaced task would go."""

    service: ServiceId
    slot: int
    node: NodeId | None  # None: it would wait
    reason: str
    replaces: TaskId | None = None
    refusals: Sequence[Refusal] = ()  # where it would wait: all of each node
    remedies: tuple[Remedy, ...] = ()  # and what would make it fit, the smallest change first
    nodes: tuple[NodeExplanation, ...] = ()  # where it would go: each as it stood at that moment
    ends: tuple[TaskId, ...] = ()  # tasks of lower priority that would end to make room for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a slot's task is where it is, or why it waits."""

    service: ServiceId
    slot: int
    task: TaskId | None
    reason: str  # a sentence
    nodes: tuple[NodeExplanation, ...] = ()  # best first, refused ones last
    remedies: tuple[Remedy, ...] = ()  # where it waits for a node; the smallest change first


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
        tasks = snapshot.stored.tasks_of_service(service_id)
        excluded, _ = restarts.excluded(snapshot, tasks, service.generation)
        for task in _old(snapshot, service):
            replaced[service_id, task.slot] = task
            vacancies.append(_successor(snapshot, fleet, service, task, excluded))
    result = scheduling.decide(snapshot, fleet, vacancies)
    where = {(placed.ask.service, placed.ask.slot): placed.node for placed in result.placed}
    where |= {place: each.node for place, each in result.nominated.items()}
    unplaced = {
        place: each.ask
        for each in result.unplaced
        if (place := (each.ask.service, each.ask.slot)) not in result.nominated
    }
    nodes = standings.weighed(fleet, result.placed)
    remedy = Remedying(snapshot, fleet, unplaced.values())
    planned: list[Planned] = []
    for vacancy in vacancies:
        place = (vacancy.service, vacancy.slot)
        nominated = result.nominated.get(place)
        old = replaced.get(place)
        waiting = result.waiting.get(vacancy.service, {}).get(vacancy.slot)
        ask = unplaced.get(place)
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
                refusals=remedy.refusals(ask) if ask is not None else (),
                remedies=remedy.of(ask) if ask is not None else (),
                nodes=nodes.get(place, ()),
                ends=tuple(sorted(nominated.victims)) if nominated is not None else (),
            )
        )
    order = {service: index for index, service in enumerate(services)}
    return sorted(planned, key=lambda each: (order[each.service], each.slot))


def explain(snapshot: Snapshot, service: ServiceId, slots: Sequence[int]) -> list[Explanation]:
    """Every node's standing for each of these slots, as if it were placed now.

    The slot's own live task is taken off the fleet first, so that the node that it is on
    is judged as it was before.
    """
    head = snapshot.stored.service(service)
    if head is None:
        reason = f"there is no service {service}"
        return [Explanation(service=service, slot=slot, task=None, reason=reason) for slot in slots]
    fleet = Fleet.from_snapshot(snapshot)
    remedy = Remedying(snapshot, fleet)
    return [_explain(snapshot, fleet, head, slot, remedy) for slot in slots]


def _explain(
    snapshot: Snapshot, fleet: Fleet, head: Service, slot: int, remedy: Remedying
) -> Explanation:
    tasks = snapshot.stored.tasks_of_slot(head.id, slot)
    live = [task for task in tasks if task.outcome is None]
    task = live[-1] if live else (tasks[-1] if tasks else None)
    held = [(each, fleet.held[each.id]) for each in live]
    for each in live:
        fleet.task_removed(each.id)
    vacancy = vacancies.of(snapshot, fleet, head, slot, task if live else None)
    ask = scheduling.ask_for(snapshot, fleet, vacancy)
    waiting = snapshot.observed.waiting.get(head.id, {}).get(slot)
    waits_for_a_node = waiting is not None and not live
    on = {task.node for task in live}
    explanation = Explanation(
        service=head.id,
        slot=slot,
        task=task.id if task is not None else None,
        reason=_why(snapshot, head, task, live, waiting),
        nodes=tuple(standings.judged(fleet, ask, on)) if ask is not None else (),
        remedies=remedy.of(ask) if ask is not None and waits_for_a_node else (),
    )
    for each, entry in held:
        fleet.task_added(each.id, entry, each.grants)
    return explanation


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
        if task.move is not None:
            return f"it is to move to node {name(snapshot, task.move.node)}: {task.move.reason}"
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


def _successor(
    snapshot: Snapshot, fleet: Fleet, service: Service, task: Task, excluded: tuple[NodeId, ...]
) -> Vacancy:
    return replace(
        vacancies.of(snapshot, fleet, service, task.slot, None, excluded),
        reason=f"generation {service.generation} replaces generation {task.generation}",
        only=task.node
        if service.mode.is_global
        else scheduling.data_node(snapshot, fleet, service.id, service.generation, task),
    )
