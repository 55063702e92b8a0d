"""What silent, returned and drained nodes mean for the tasks on them.

Dispatch judges liveness; here is decided what follows. Only DOWN is acted upon: an
UNKNOWN node may run everything that its tasks say. A movable task of a DOWN node keeps
its record and gets one named successor, since the node may come back any time; a pinned
one waits for its node. Two tasks in a slot are settled only when both nodes have
reported in this epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Cause, Health, NodeState, Service, Task
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile import replicas
from scheduler.reconcile.slots import Slot, name


def is_down(snapshot: Snapshot, task: Task) -> bool:
    """Whether the task's node is judged DOWN."""
    return snapshot.observed.node(task.node).state is NodeState.DOWN


def is_movable(service: Service, task: Task) -> bool:
    """Whether another node may run a successor while this task's node is DOWN."""
    return not task.pinned and not service.mode.is_global


def awaits_successor(snapshot: Snapshot, service: Service, slot: Slot) -> str:
    """Why a slot with live tasks wants one more, as a sentence; empty: it does not.

    The slot then holds an old task and one successor, never more.
    """
    live = [*slot.wanted, *slot.stopping]
    if len(slot.wanted) > 1 or not live:
        return ""
    if any(not is_down(snapshot, task) or not is_movable(service, task) for task in live):
        return ""
    if any(task.exclusive for task in slot.wanted) and len(live) > 1:
        return ""
    return f"node {name(snapshot, live[-1].node)} is down"


def settle(snapshot: Snapshot, slots: Mapping[int, Slot]) -> list[Change]:
    """End the surplus task of each slot whose old task's node came back."""
    changes: list[Change] = []
    for number in sorted(slots):
        surplus = _surplus(snapshot, slots[number].wanted)
        if surplus is not None:
            changes += replicas.remove(snapshot, [surplus[0]], Cause.RECONCILER, surplus[1])
    return changes


def _surplus(snapshot: Snapshot, tasks: list[Task]) -> tuple[Task, str] | None:
    if len(tasks) < 2:
        return None
    old, new = tasks[0], tasks[-1]
    if is_down(snapshot, old) and is_down(snapshot, new):
        # Both are lost: the older is given up, so that the slot may have a third.
        return old, "its node and that of its successor are down"
    if not all(_reported(snapshot, task) for task in (old, new)):
        return None
    statuses = snapshot.observed
    if old.exclusive or old.generation < new.generation or not is_ready(statuses.status(old.id)):
        return old, f"its successor on node {name(snapshot, new.node)} has taken its place"
    return new, f"the task that it replaced runs again on node {name(snapshot, old.node)}"


def _reported(snapshot: Snapshot, task: Task) -> bool:
    liveness = snapshot.observed.node(task.node)
    return liveness.reported and liveness.state is not NodeState.DOWN


def is_drained(snapshot: Snapshot, task: Task) -> bool:
    """Whether the operator wants the task's node empty."""
    node = snapshot.stored.node(task.node)
    return node is not None and node.availability is Availability.DRAIN


def to_drain(snapshot: Snapshot, service: Service, slots: Mapping[int, Slot]) -> list[Task]:
    """The tasks that may be moved off drained nodes now, in order: one slot at a time.

    Those of a global service go together: they move nowhere.
    """
    drained = [
        task
        for number in sorted(slots)
        for task in slots[number].wanted
        if is_drained(snapshot, task)
        and not task.pinned
        and snapshot.observed.node(task.node).state is not NodeState.DOWN
    ]
    if not drained or service.mode.is_global:
        return drained
    if any(_is_moving(snapshot, slot) for slot in slots.values()):
        return []
    return drained


def drain(snapshot: Snapshot, task: Task) -> Change:
    """Stop one task so that its slot's next goes elsewhere."""
    reason = f"node {name(snapshot, task.node)} is being drained"
    ended = replace(task, desired=Desired.SHUTDOWN, cause=Cause.OPERATOR, reason=reason)
    return Put(ended, snapshot.stored.version(keys.task(task.id)), reason)


def _is_moving(snapshot: Snapshot, slot: Slot) -> bool:
    """Whether the slot is between a drained task and its successor's first breath."""
    if any(is_drained(snapshot, task) for task in slot.stopping):
        return True
    if not slot.wanted:
        last = slot.last
        return last is not None and is_drained(snapshot, last) and not slot.stopping
    return any(is_coming_up(snapshot, task) for task in slot.wanted)


def is_coming_up(snapshot: Snapshot, task: Task) -> bool:
    """Whether the task was just placed and has not run yet, or not become healthy yet."""
    status = snapshot.observed.status(task.id)
    if status is None:
        return snapshot.observed.knows(task.node)
    return status.attempt <= 1 and (
        status.state.value < TaskState.RUNNING.value
        or (status.state is TaskState.RUNNING and status.health is Health.STARTING)
    )
