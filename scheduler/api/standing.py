"""How the cluster stands, for `homeport status`: nodes by state, the brake, what is held.

Only values: a store's health, which takes a question to it, is asked by who answers. A
newcomer's mistake: reading the counts of a follower. It does not observe; what it cannot
know it leaves unset, and `observed_unknown_since_ms` says so.
"""

from __future__ import annotations

from collections import Counter

from homeport.model import NodeState
from homeport.v1 import control_pb2
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile import brake as brakes
from scheduler.reconcile.slots import name

MASS_STOP = "mass-stop"
"""The condition by which an agent says that it holds stops."""


def fill(response: control_pb2.GetClusterResponse, snapshot: Snapshot) -> None:
    """Add what this leader observes."""
    states: Counter[NodeState] = Counter()
    for node in snapshot.stored.nodes():
        liveness = snapshot.observed.node(node.id)
        states[liveness.state] += 1
        if node.lost_ms:
            response.lost_nodes.append(node.name)
        for condition in liveness.status.conditions:
            if condition.name == MASS_STOP and not condition.ok:
                response.held_stops.add(node=node.name, message=condition.message)
        if liveness.status.unknown_containers:
            response.unknown_containers.add(
                node=node.name, containers=liveness.status.unknown_containers
            )
    for state in NodeState:
        if states[state]:
            response.node_states.add(state=state.value, nodes=states[state])
    brake = snapshot.observed.brake
    if brake is not None:
        nodes = [name(snapshot, node) for node in brake.silent]
        response.brake.cause = brake.cause
        response.brake.since_ms = brake.since_ms
        response.brake.nodes.extend(nodes)
        response.brake.replicas_move_at_ms = brake.since_ms + round(
            brakes.REPLICAS_HELD_SECONDS * 1000
        )
        response.brake.lifted_by.extend(f"homeport node lost {node}" for node in nodes)
