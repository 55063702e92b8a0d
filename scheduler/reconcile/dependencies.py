"""What must come before a service's first start: `depends_on`, and its own predecessor.

Only the first: once a slot of the service has had a task, `depends_on` never holds it
back again. Recovery and cold boot come with a later milestone. A service that was removed
and applied again is a new one; it waits until nothing of the old one runs, since both
would write to the same volumes.
"""

from __future__ import annotations

from homeport.lifecycle import TaskState
from homeport.model import Health, Service, ServiceId, TaskStatus
from homeport.spec import DependencyCondition, ServiceSpec
from scheduler.cluster.snapshot import Snapshot

_UNMET = {
    DependencyCondition.STARTED: "has started",
    DependencyCondition.HEALTHY: "is healthy",
    DependencyCondition.COMPLETED: "has completed",
}


def decide(
    snapshot: Snapshot, service: Service, spec: ServiceSpec
) -> tuple[str, tuple[ServiceId, ...]]:
    """What the service waits for, as a sentence (empty: nothing), and the services whose
    change may end that."""
    if service.last_n or not spec.depends_on:
        return "", ()
    if snapshot.stored.tasks_of_service(service.id):
        return "", ()
    unmet: list[str] = []
    awaited: list[ServiceId] = []
    for dependency in spec.depends_on:
        if not dependency.required:
            continue
        other = snapshot.stored.service_named(service.stack, dependency.service)
        if other is None:
            unmet.append(f"service {dependency.service}, which the stack does not have")
        elif not is_met(snapshot, other, dependency.condition):
            unmet.append(f"until {dependency.service} {_UNMET[dependency.condition]}")
            awaited.append(other.id)
    if not unmet:
        return "", ()
    return f"waits {', '.join(unmet)}", tuple(awaited)


def predecessor(snapshot: Snapshot, service: Service) -> tuple[str, tuple[ServiceId, ...]]:
    """As `decide`, of removed services of the same name that still have tasks."""
    others = tuple(
        other.id
        for other in snapshot.stored.services_named(service.stack, service.name)
        if other.id != service.id and other.removing and snapshot.stored.tasks_of_service(other.id)
    )
    return ("waits until the removed service of this name is gone" if others else ""), others


def is_met(snapshot: Snapshot, service: Service, condition: DependencyCondition) -> bool:
    """Whether what depends on this service may start."""
    if condition is DependencyCondition.COMPLETED:
        done = {
            task.slot
            for task in snapshot.stored.tasks_of_service(service.id)
            if task.outcome is not None and task.outcome.state is TaskState.COMPLETE
        }
        return len(done) >= (1 if service.mode.is_global else max(1, service.replicas))
    for task in snapshot.stored.tasks_of_service(service.id):
        if task.outcome is not None:
            if task.outcome.state is TaskState.COMPLETE:
                return True
        elif _satisfies(snapshot.observed.status(task.id), condition):
            return True
    return False


def _satisfies(status: TaskStatus | None, condition: DependencyCondition) -> bool:
    if status is None or status.state is not TaskState.RUNNING:
        return False
    return condition is DependencyCondition.STARTED or status.health in (
        Health.NONE,
        Health.HEALTHY,
    )
