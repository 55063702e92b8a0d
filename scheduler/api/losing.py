"""What may be said of a node: that it is lost, or that it is to be forgotten.

Both end what protects an exclusive task from a second life elsewhere, so neither is taken
while the node may still run one. A newcomer's mistake: letting `--force` override that. It
gives up data and records; it cannot stop a container on a machine that nobody reaches.
"""

from __future__ import annotations

from homeport.model import Node, NodeState
from scheduler.cluster.snapshot import Snapshot


def may_be_on(snapshot: Snapshot, node: Node) -> str:
    """Why a node cannot be called lost: it is heard of. Empty: it is not."""
    liveness = snapshot.observed.node(node.id)
    if liveness.state is not NodeState.READY:
        return ""
    silent = max(0.0, snapshot.now - liveness.last_seen)
    return (
        f"node {node.name} is up, it was heard of {silent:.1f} s ago: say `homeport drain"
        f" {node.name}` to move its tasks, or switch it off first"
    )


def leases_held(snapshot: Snapshot, node: Node) -> str:
    """Why a node's records must not go yet: an exclusive task may run there. Empty: none may.

    Its slot would be filled elsewhere at once, and the old one runs on for as long as the
    node's lease; no `--force` makes that two lives of one.
    """
    liveness = snapshot.observed.node(node.id)
    if liveness.state is NodeState.DOWN:
        return ""
    stored = snapshot.stored
    held = [
        task.id
        for task in stored.tasks_of_node(node.id)
        if task.needs_lease
        and task.outcome is None
        and stored.tasks_of_slot(task.service, task.slot)[-1].n == task.n
    ]
    if not held:
        return ""
    return (
        f"{', '.join(held)} may still run on node {node.name}, and is exclusive: say `homeport"
        f" drain {node.name}` first, or, if its machine is off, `homeport node lost {node.name}`"
    )
