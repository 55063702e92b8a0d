"""What the loss of each single node would cost: the what-if that is asked all the time.

The same answer as `whatif node-down`. It takes a placement of every task of the cluster, so it
is for clusters of some size, which a home lab does not outgrow; of larger ones nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from homeport.model import NodeId
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet, unfit
from scheduler.reconcile import imagining
from scheduler.reconcile.imagined import compare
from scheduler.reconcile.imagining import Imagining, TooMuch

NODES_MAX = 100
TASKS_MAX = 2_000
LOOKED_MAX = 2_000
"""Slots looked at for one node, which must not keep the scheduler long: beyond any of these
nothing is worked out."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Slots that run now and would be without a node."""

    pinned: int = 0  # their data is on the node that is lost
    unplaceable: int = 0  # they could move, and no node takes them


def of_node(snapshot: Snapshot, fleet: Fleet, node: NodeId) -> Loss | None:
    """What the node's loss would cost; None: too much hangs on it to say. `fleet` is kept as
    it is: a copy is worked on."""
    change = Imagining(down=(node,))
    try:
        after = imagining.imagine(snapshot, change, fleet.copy(), LOOKED_MAX)
    except TooMuch:
        return None
    found = compare(after, change)
    return Loss(pinned=found.pinned, unplaceable=found.lost - found.pinned)


def are_told(snapshot: Snapshot) -> bool:
    """Whether a cluster of this size is worked out."""
    if len(snapshot.stored.nodes()) > NODES_MAX:
        return False
    return sum(1 for _ in islice(snapshot.stored.tasks(), TASKS_MAX + 1)) <= TASKS_MAX


def state_of(snapshot: Snapshot, node: NodeId) -> tuple[object, ...]:
    """What of a node is not stored and makes a difference to a loss."""
    seen = snapshot.observed.node(node)
    return seen.state, seen.reported, seen.unfenced, unfit(snapshot, node)
