"""Whether all is well with a service: then one pass over its tasks is all that a look costs.

While a large service starts, each report of a task that runs has it looked at once more, mostly
to find that nothing is to be done. Calm is the plainest kind of well: as many tasks as replicas,
one in each slot, all of the newest generation and meant to run, none that asks for more than
that. Everything else is for the concerns to look at. A newcomer's mistake: a concern that wants
something of a task which is calm here; whatever makes it speak has to be looked at here too.
"""

from __future__ import annotations

from homeport.lifecycle import TERMINAL, Desired
from homeport.model import Availability, NodeId, NodeState, RolloutState, Service
from homeport.spec import Mode
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import requirements_of

_QUIET = (NodeState.READY, NodeState.UNKNOWN)
"""Of a node that has fallen silent the tasks may be wanted elsewhere."""


def is_calm(snapshot: Snapshot, service: Service) -> bool:
    """Whether no concern has anything to say of this service now, or later by the clock."""
    stored, statuses = snapshot.stored, snapshot.observed.statuses
    generation = service.generation
    if service.mode is not Mode.REPLICATED or service.removing:
        return False
    rollout = stored.rollout(service.id)
    if rollout is not None and rollout.state is not RolloutState.COMPLETED:
        return False
    if [each.generation for each in stored.specs_of(service.id)] != [generation]:
        return False  # an old one is to be forgotten, or a new one is not there
    tasks = stored.tasks_of_service(service.id)
    if len(tasks) != service.replicas:
        return False
    if requirements_of(stored, service.id, generation).volumes:
        return False
    well: dict[NodeId, bool] = {}
    for number, task in enumerate(tasks, 1):
        if (
            task.slot != number
            or task.generation != generation
            or task.desired is not Desired.RUNNING
            or task.outcome is not None
            or task.exclusive
            or task.move is not None
        ):
            return False
        is_well = well.get(task.node)
        if is_well is None:
            is_well = well[task.node] = _is_well(snapshot, task.node)
        if not is_well:
            return False
        status = statuses.get(task.id)
        if status is not None and status.state in TERMINAL:
            return False
    return True


def _is_well(snapshot: Snapshot, node: NodeId) -> bool:
    """Whether nothing sends tasks away from this node."""
    record = snapshot.stored.node(node)
    return (
        record is not None
        and record.availability is Availability.ACTIVE
        and not record.taints
        and snapshot.observed.node(node).state in _QUIET
    )
