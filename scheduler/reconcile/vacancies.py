"""A slot as if it were empty: what placement would be asked for it now."""

from __future__ import annotations

from homeport.model import NodeId, Service, Task
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import restarts, scheduling
from scheduler.reconcile.slots import Slot, Vacancy, next_n


def of(
    snapshot: Snapshot,
    fleet: Fleet,
    service: Service,
    slot: int,
    live: Task | None,
    excluded: tuple[NodeId, ...] | None = None,
) -> Vacancy:
    """Its vacancy; with the generation of its live task, if it has one.

    `excluded`: the nodes that a task of that generation avoids; None: they are looked up, among
    all tasks of the service.
    """
    generation = live.generation if live is not None else service.generation
    history = Slot(slot, tuple(snapshot.stored.tasks_of_slot(service.id, slot)))
    if excluded is None:
        tasks = snapshot.stored.tasks_of_service(service.id)
        excluded = restarts.excluded(snapshot, tasks, generation)[0]
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
        excluded=excluded,
    )
