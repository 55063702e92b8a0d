"""Rebalancing that nobody asked for each time: after a node came or came back, within limits.

Only where the cluster's record says so, of replicas alone, so many an hour, and never what was
moved so within the last hour. It waits until the node has been there for a moment, and while
anything else is going on: silence, the brake, a rollout, earlier moves. Nothing is looked at in a
cluster in which no node came. A newcomer's mistake: a count that ends with the leader. When a
task was moved is in its record, and a new leader reads it there.
"""

from __future__ import annotations

from collections.abc import Callable

from homeport.model import (
    Availability,
    Cause,
    Cluster,
    Node,
    NodeId,
    NodeState,
    Rebalancing,
    RolloutState,
    Service,
    ServiceId,
    Task,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import Change
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import rebalancing
from scheduler.reconcile.movable import Wish

SETTLE_SECONDS = 10.0
"""A node that came has been there for so long before tasks are moved to it."""
AGAIN_SECONDS = 10.0
"""How soon it is asked again whether whatever was going on has come to an end."""
HOUR_SECONDS = 3600.0


class Automatic:
    """Keeps count for one term of leadership. Owned by the controller."""

    def __init__(self, began: float) -> None:
        """`began`: when the leader began, in boot time."""
        self._began = began
        self._moved: list[float] = []  # boot times, the oldest first
        self._silent: NodeId | None = None  # the node that kept it waiting last
        self._rolled_out: ServiceId | None = None  # the service that did
        self.due_at = 0.0
        """The boot time at which to look for moves; 0: when a node comes."""

    def remember(self, task: Task, now: float, now_ms: int) -> None:
        """An earlier leader may have moved this task."""
        asked = task.move is not None and task.move.cause is Cause.RECONCILER
        ago = 0.0 if asked else (now_ms - task.moved_ms) / 1000
        if (task.moved_ms or asked) and 0 <= ago < HOUR_SECONDS:
            self._moved.append(now - ago)
            self._moved.sort()

    def changed(
        self,
        key: str,
        old: keys.Stored | None,
        new: keys.Stored | None,
        cluster: Cluster | None,
        now: float,
    ) -> None:
        """A record was written: tasks may be better placed now than they are."""
        kind = key.partition("/")[0]
        if kind == "cluster" or (kind == "nodes" and _takes_tasks(new) and not _takes_tasks(old)):
            self.noticed(cluster, now)

    def noticed(self, cluster: Cluster | None, now: float) -> None:
        """A node came, or came back, or may take tasks again; or the cluster's record changed."""
        if is_wanted(cluster):
            self.due_at = now + SETTLE_SECONDS

    def decide(
        self,
        snapshot: Snapshot,
        fleet: Callable[[], Fleet],
        *,
        is_moving: bool,
        lease_seconds: float,
    ) -> list[Change]:
        """The moves to begin now, if it is time. `fleet` makes the copy to plan on."""
        now = snapshot.now
        if not self.due_at or now < self.due_at:
            return []
        self.due_at = 0.0
        cluster = snapshot.stored.cluster
        if cluster is None or not is_wanted(cluster):
            return []
        if now < self._began + lease_seconds:
            self.due_at = self._began + lease_seconds
            return []
        if is_moving or self._is_kept_waiting(snapshot):
            self.due_at = now + AGAIN_SECONDS
            return []
        self._moved = [when for when in self._moved if when > now - HOUR_SECONDS]
        left = cluster.moves_per_hour - len(self._moved)
        if left <= 0:
            self.due_at = self._moved[0] + HOUR_SECONDS if self._moved else 0.0
            return []
        wish = Wish(by=Cause.RECONCILER, moves_max=left)
        found = rebalancing.plan(snapshot, fleet(), wish)
        self._moved += [now] * len(found.moves)
        if found.is_cut:
            self.due_at = self._moved[0] + HOUR_SECONDS
        return rebalancing.marks(snapshot, found.moves, wish)

    def _is_kept_waiting(self, snapshot: Snapshot) -> bool:
        """Whether anything else is going on: the brake, a silent node, a rollout.

        What kept it waiting before is asked first, since mostly it still does. So the whole
        cluster is looked at once for each thing that goes on, not every time that is asked.
        """
        if snapshot.observed.brake is not None:
            return True
        stored = snapshot.stored
        node = stored.node(self._silent) if self._silent is not None else None
        if node is not None and _is_silent(snapshot, node):
            return True
        service = stored.service(self._rolled_out) if self._rolled_out is not None else None
        if service is not None and _is_rolled_out(snapshot, service):
            return True
        silent = (each.id for each in stored.nodes() if _is_silent(snapshot, each))
        self._silent = next(silent, None)
        if self._silent is not None:
            return True
        rolled_out = (each.id for each in stored.services() if _is_rolled_out(snapshot, each))
        self._rolled_out = next(rolled_out, None)
        return self._rolled_out is not None


def is_wanted(cluster: Cluster | None) -> bool:
    """Whether the scheduler may begin moves by itself."""
    return cluster is not None and cluster.rebalancing is Rebalancing.AUTOMATIC


def _takes_tasks(record: keys.Stored | None) -> bool:
    return isinstance(record, Node) and record.availability is Availability.ACTIVE


def _is_silent(snapshot: Snapshot, node: Node) -> bool:
    """Whether it may be back any moment, and nothing is known of it until then."""
    state = snapshot.observed.node(node.id).state
    return state in (NodeState.SUSPECT, NodeState.UNKNOWN) and not node.lost_ms


def _is_rolled_out(snapshot: Snapshot, service: Service) -> bool:
    rollout = snapshot.stored.rollout(service.id)
    return rollout is not None and rollout.state is RolloutState.UPDATING
