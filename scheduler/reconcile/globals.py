"""A global service has one task on each node that is of the kind it needs.

Its slot is the node's number. A task *belongs* on a node by what the operator says of it
(labels, role, name); whether a new one can start there now also takes the runtime and
platform that the agent reports. A newcomer's mistake: ending tasks because of the latter.
An engine that is down for a moment must not cost a task its place. A paused node keeps
its task and gets no new one; a drained node gives it up (`nodes`).
"""

from __future__ import annotations

from collections.abc import Mapping

from homeport.model import Availability, Cause, Node, NodeState, Service
from scheduler.cluster import keys
from scheduler.cluster.changes import Change
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import filters
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet, facts_of, requirements_of
from scheduler.reconcile import replicas
from scheduler.reconcile.slots import Slot

_REPORTED = "engine.labels."


def eligible(snapshot: Snapshot, service: Service) -> dict[int, Node]:
    """The nodes on which a task belongs, by number."""
    if service.removing:
        return {}
    needs = requirements_of(snapshot.stored, service.id, service.generation)
    asked = [each for each in needs.constraints if not each.key.startswith(_REPORTED)]
    return {
        node.number: node
        for node in snapshot.stored.nodes()
        if needs.node in ("", node.id, node.name)
        and all(filters.holds(each, facts_of(node)) for each in asked)
    }


def takes_new(snapshot: Snapshot, fleet: Fleet, service: Service, node: Node) -> bool:
    """Whether an empty slot of this node is to be filled now; if not, it does not even wait."""
    candidate = fleet.candidates.get(node.id)
    if candidate is None or node.availability is not Availability.ACTIVE:
        return False
    if snapshot.observed.node(node.id).state is not NodeState.READY:
        return False
    needs = requirements_of(snapshot.stored, service.id, service.generation)
    ask = Ask(service=service.id, slot=0, n=0, generation=service.generation, needs=needs)
    return filters.is_eligible(fleet, ask, candidate)


def decide(
    snapshot: Snapshot, service: Service, slots: Mapping[int, Slot], nodes: Mapping[int, Node]
) -> list[Change]:
    """End the tasks that are not on the node whose number is their slot, or not to be there."""
    ends: list[Change] = []
    for number in sorted(slots):
        node = nodes.get(number)
        ends += replicas.remove(
            snapshot,
            [
                task
                for task in slots[number].tasks
                if (node is None or task.node != node.id)
                # A node whose record this version cannot read is there all the same.
                and keys.node(task.node) not in snapshot.stored.unreadable
            ],
            Cause.OPERATOR,
            f"service {service.name} does not belong on this node any more",
        )
    return ends
