"""What would make waiting slots fit: `placement.remedies` is told what the cluster knows.

Computed when somebody asks, for each kind of ask once. A task can be moved or stopped by a command
only if it is in the last slot of its service: `scale` ends that one, and no other. All tasks of a
node together move when it is drained; of that nobody speaks where one of them had better stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeport.lifecycle import Desired
from homeport.model import NodeId, NodeState, RolloutState, Service, ServiceId, Task
from scheduler.cluster.observed import Refusal, is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import filters, remedies
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.placement.remedy import Leaver, Occupant, Remedy, Surroundings
from scheduler.reconcile import scheduling, vacancies

KINDS_MAX = 4
"""Kinds of asks that get remedies in one answer; there are more only where much waits."""
LEAVING_MAX = 30
"""Tasks of a node that a drain may move for one that waits."""
RIVALS_MAX = 200
"""Waiting slots that are looked at for who takes the room first."""


class Remedying:
    """The remedies of one answer."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet, unplaced: Iterable[Ask] = ()) -> None:
        """The fleet is tried things on, and is afterwards as it was.

        `unplaced` found no node, beside what waits in the snapshot.
        """
        self._snapshot = snapshot
        self._fleet = fleet
        self._known: dict[tuple[object, ...], tuple[Remedy, ...]] = {}
        self._refused: dict[tuple[object, ...], tuple[Refusal, ...]] = {}
        self._occupants: dict[NodeId, list[Occupant]] = {}
        self._at_rest: dict[ServiceId, bool] = {}
        self._unplaced = list(unplaced)
        self._around: Surroundings | None = None

    def of(self, ask: Ask) -> tuple[Remedy, ...]:
        """What would make it fit, the smallest change first; none where it fits."""
        if ask.kind not in self._known:
            if len(self._known) == KINDS_MAX:
                return ()
            self._around = self._around or self._look_around()
            self._known[ask.kind] = remedies.find(self._fleet, ask, self._around)
        return self._known[ask.kind]

    def refusals(self, ask: Ask) -> tuple[Refusal, ...]:
        """All rules of all nodes that say no, the lowest name first."""
        if ask.kind not in self._refused:
            self._refused[ask.kind] = tuple(
                refusal
                for node in self._fleet.by_name()
                if ask.only in (None, node.id)
                for refusal in filters.refusals(self._fleet, ask, node)
            )
        return self._refused[ask.kind]

    def _look_around(self) -> Surroundings:
        stored = self._snapshot.stored
        rivals = {ask.task: ask for ask in self._unplaced}
        for service_id, slots in self._snapshot.observed.waiting.items():
            service = stored.service(service_id)
            for slot, waiting in slots.items():
                if service is None or not waiting.refusals or len(rivals) >= RIVALS_MAX:
                    continue  # it waits for something else than a node
                vacancy = vacancies.of(self._snapshot, self._fleet, service, slot, None)
                ask = scheduling.ask_for(self._snapshot, self._fleet, vacancy)
                if ask is not None and ask.task not in self._fleet.held:  # a plan may place it
                    rivals.setdefault(ask.task, ask)
        return Surroundings(
            nodes={node.id: node for node in stored.nodes()},
            occupants=self._on,
            leaving=self._leaving,
            rivals=sorted(rivals.values(), key=lambda ask: ask.order),
        )

    def _on(self, node: NodeId) -> list[Occupant]:
        if node not in self._occupants:
            tasks = self._snapshot.stored.tasks_of_node(node)
            self._occupants[node] = [
                occupant for task in tasks if (occupant := self._occupant(task)) is not None
            ]
        return self._occupants[node]

    def _occupant(self, task: Task) -> Occupant | None:
        """The task, if `scale` can end it and nothing is being done to it already."""
        stored = self._snapshot.stored
        service = stored.service(task.service)
        if task.outcome is not None or task.desired is not Desired.RUNNING or service is None:
            return None
        if service.removing or service.mode.is_global or service.mode.is_job:
            return None
        live = [each for each in stored.tasks_of_slot(service.id, task.slot) if not each.outcome]
        if task.slot != service.replicas or len(live) > 1:
            return None
        again: Ask | None = None
        if not task.pinned and task.generation == service.template_generation:
            again = self._again(service, task)
        spec = stored.spec(service.id, task.generation)
        full_name = f"{service.stack}/{service.name}"
        return Occupant(
            task=task.id,
            name=f"{full_name}.{task.slot}",
            service=full_name,
            replicas=service.replicas,
            priority=spec.spec.priority if spec is not None else 0,
            again=again,
        )

    def _leaving(self, node: NodeId) -> list[Leaver]:
        """Who would leave the node if it were drained; nobody: one of them had better stay.

        What is pinned stays, and what is global comes back with the node.
        """
        liveness = self._snapshot.observed.node(node)
        if liveness.state is not NodeState.READY or not liveness.reported:
            return []
        found: list[Leaver] = []
        for task in self._snapshot.stored.tasks_of_node(node):
            service = self._snapshot.stored.service(task.service)
            if task.outcome is not None or task.pinned:
                continue
            if service is None or not self._is_at_rest(service) or len(found) == LEAVING_MAX:
                return []
            if service.mode.is_global:
                if task.grants:
                    return []  # the devices that it comes back to may be others
                continue
            again = self._again(service, task)
            if again is None or again.needs.data_on_node:
                return []
            found.append((task.id, again))
        return found

    def _is_at_rest(self, service: Service) -> bool:
        """Whether all of its tasks run well, and nothing is being done to them."""
        if service.id not in self._at_rest:
            stored = self._snapshot.stored
            rollout = stored.rollout(service.id)
            live = [each for each in stored.tasks_of_service(service.id) if each.outcome is None]
            self._at_rest[service.id] = (
                not service.removing
                and not service.mode.is_job
                and (rollout is None or rollout.state is RolloutState.COMPLETED)
                and len({each.slot for each in live}) == len(live)
                and all(self._runs_well(service, each) for each in live)
            )
        return self._at_rest[service.id]

    def _runs_well(self, service: Service, task: Task) -> bool:
        return (
            task.desired is Desired.RUNNING
            and task.move is None
            and task.generation >= service.template_generation
            and is_ready(self._snapshot.observed.status(task.id))
        )

    def _again(self, service: Service, task: Task) -> Ask | None:
        """What would be asked of placement if the task left its slot."""
        vacancy = vacancies.of(self._snapshot, self._fleet, service, task.slot, None)
        return scheduling.ask_for(self._snapshot, self._fleet, vacancy)
