"""How each node was seen last: who acts on what is observed of nodes acts on differences alone.

Dispatch marks a node for every word of it that may be news. What placement and reconcilers go by
is little of that: its state, whether it has reported, and why it takes no tasks. A newcomer's
mistake: comparing what is observed as a whole. Each heartbeat changes that.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeport.model import NodeId, NodeState
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import unfit


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is gone by of one node."""

    state: NodeState
    has_reported: bool
    unfit: str  # why no task starts there; empty: they do
    unfenced: str  # why none that needs a lease does

    @property
    def is_ready(self) -> bool:
        """Whether its agent is there."""
        return self.state is NodeState.READY


class Sightings:
    """The last of each node, for one term of leadership. Owned by the controller."""

    def __init__(self) -> None:
        """None."""
        self._last: dict[NodeId, Sighting] = {}

    def begin(self, snapshot: Snapshot) -> None:
        """See all nodes for the first time."""
        for node in snapshot.stored.nodes():
            self._last[node.id] = _see(snapshot, node.id)

    def look(self, snapshot: Snapshot, node: NodeId) -> tuple[Sighting | None, Sighting] | None:
        """(as it was seen before, as it is seen now); None: there is no difference."""
        before, now = self._last.get(node), _see(snapshot, node)
        if before == now:
            return None
        self._last[node] = now
        return before, now


def has_come(before: Sighting | None, now: Sighting) -> bool:
    """Whether its agent is there now, and was not before."""
    return now.is_ready and (before is None or not before.is_ready)


def _see(snapshot: Snapshot, node: NodeId) -> Sighting:
    liveness = snapshot.observed.node(node)
    return Sighting(liveness.state, liveness.reported, unfit(snapshot, node), liveness.unfenced)
