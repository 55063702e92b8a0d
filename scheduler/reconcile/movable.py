"""Which tasks may be moved to a better node, and what is asked of placement for them.

A replica that runs well, alone in its slot, with nothing on its node that it would leave behind.
Data keeps a task where it is: a local volume, a writable bind. An exclusive task moves only when
somebody says so, because its slot is not served meanwhile. What a rollout is about to replace
stays, and so does what an operator already sends away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeport.lifecycle import Desired
from homeport.model import (
    Cause,
    NodeId,
    NodeState,
    RolloutState,
    Service,
    ServiceId,
    Task,
    TaskId,
)
from homeport.spec import ServiceSpec
from scheduler.cluster.observed import is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet, requirements_of
from scheduler.reconcile import nodes, replicas, restarts, scheduling
from scheduler.reconcile.slots import Slot, Vacancy, next_n

RESTS_MS = 3_600_000
"""What the scheduler moved by itself it leaves where it is for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Who wants a cluster rebalanced, and how much of it."""

    by: Cause = Cause.OPERATOR
    moves_max: int
    stack: str = ""  # empty: all
    with_exclusive: bool = False


class Movable:
    """Looks each service and node up once."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet, wish: Wish) -> None:
        """Nothing is looked up yet."""
        self._snapshot = snapshot
        self._fleet = fleet
        self._wish = wish
        self._services: dict[ServiceId, tuple[Service, ServiceSpec] | None] = {}
        self._excluded: dict[ServiceId, tuple[NodeId, ...]] = {}
        self._nodes: dict[NodeId, list[Task]] = {}
        self._asks: dict[TaskId, Ask | None] = {}

    def on(self, node: NodeId) -> list[Task]:
        """The node's tasks that may be moved, by id."""
        found = self._nodes.get(node)
        if found is None:
            liveness = self._snapshot.observed.node(node)
            is_known = liveness.state is NodeState.READY and liveness.reported
            tasks = self._snapshot.stored.tasks_of_node(node) if is_known else []
            found = self._nodes[node] = [task for task in tasks if self._may_move(task)]
        return found

    def spec(self, service: ServiceId) -> ServiceSpec:
        """What the successors of this service's tasks are made of."""
        known = self._service(service)
        assert known is not None, "only tasks of services that may move are asked about"
        return known[1]

    def ask(self, task: Task) -> Ask | None:
        """Its slot's next task, to be placed anywhere."""
        if task.id not in self._asks:
            self._asks[task.id] = self._ask(task)
        return self._asks[task.id]

    def _ask(self, task: Task) -> Ask | None:
        known = self._service(task.service)
        if known is None:
            return None
        service, _ = known
        stored = self._snapshot.stored
        slot = Slot(task.slot, tuple(stored.tasks_of_slot(task.service, task.slot)))
        if task.service not in self._excluded:
            self._excluded[task.service], _ = restarts.excluded(
                self._snapshot, stored.tasks_of_service(task.service), service.generation
            )
        vacancy = Vacancy(
            service=task.service,
            slot=task.slot,
            n=next_n(service, slot),
            generation=service.generation,
            reason="it is better placed elsewhere",
            excluded=self._excluded[task.service],
        )
        return scheduling.ask_for(self._snapshot, self._fleet, vacancy)

    def _may_move(self, task: Task) -> bool:
        known = self._service(task.service)
        if known is None or not self._is_at_rest(task, known[0]):
            return False
        live = [
            each
            for each in self._snapshot.stored.tasks_of_slot(task.service, task.slot)
            if each.outcome is None
        ]
        if len(live) != 1 or not is_ready(self._snapshot.observed.status(task.id)):
            return False
        if nodes.must_leave(self._snapshot, task):
            return False
        ask = self.ask(task)
        if ask is None or (ask.needs_lease and not task.needs_lease):
            return False  # exclusive since it was placed: it has no lease under which it would end
        return self._wish.with_exclusive or not ask.needs_lease

    def _is_at_rest(self, task: Task, service: Service) -> bool:
        """Whether nothing else is meant to become of it."""
        if task.outcome is not None or task.desired is not Desired.RUNNING or task.move is not None:
            return False
        if task.pinned or task.slot not in replicas.wanted(service):
            return False
        if task.generation < service.template_generation:
            return False
        if task.needs_lease and not self._wish.with_exclusive:
            return False
        rests = self._snapshot.now_ms - task.moved_ms < RESTS_MS
        return not (self._wish.by is Cause.RECONCILER and task.moved_ms and rests)

    def _service(self, service_id: ServiceId) -> tuple[Service, ServiceSpec] | None:
        """A service whose tasks may be moved; None: they may not."""
        if service_id not in self._services:
            self._services[service_id] = self._look_up(service_id)
        return self._services[service_id]

    def _look_up(self, service_id: ServiceId) -> tuple[Service, ServiceSpec] | None:
        stored = self._snapshot.stored
        service = stored.service(service_id)
        if service is None or service.removing or service.mode.is_global or service.mode.is_job:
            return None
        if self._wish.stack and service.stack != self._wish.stack:
            return None
        stack = stored.stack(service.stack)
        if stack is None or stack.draft:
            return None  # what its records say is about to change
        rollout = stored.rollout(service_id)
        if rollout is not None and rollout.state is not RolloutState.COMPLETED:
            return None
        edition = stored.spec(service_id, service.generation)
        needs = requirements_of(stored, service_id, service.generation)
        if edition is None or needs.volumes or needs.node or needs.data_on_node:
            return None
        return service, edition.spec


def only_on(ask: Ask, node: NodeId) -> Ask:
    """The same ask of one node."""
    return replace(ask, only=node, excluded=())
