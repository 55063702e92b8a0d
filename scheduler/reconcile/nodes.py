"""What silent, returned and drained nodes mean for the tasks on them.

Dispatch judges liveness; here is decided what follows. An UNKNOWN node may run everything
that its tasks say, so nothing follows. Of a SUSPECT node the replicas get a successor that
are neither exclusive nor pinned nor global; of a DOWN one also the exclusive tasks, whose
lease is over by then. A moved task keeps its record, since the node may come back any time;
a pinned one waits for its node. Two copies are settled only when both nodes have reported
since they were last silent. When moves may begin is for `brake` and `moves` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Cause, Health, NodeId, NodeState, Service, Taint, Task
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import requirements, taints
from scheduler.placement.fleet import requirements_of
from scheduler.reconcile import replicas
from scheduler.reconcile.slots import Slot, name

RECOVERY_SECONDS = 20.0
"""How long two copies of which neither is well are both kept."""


def is_down(snapshot: Snapshot, task: Task) -> bool:
    """Whether the task's node is judged DOWN."""
    return snapshot.observed.node(task.node).state is NodeState.DOWN


def is_movable(service: Service, task: Task) -> bool:
    """Whether another node may run a successor while this task's node is DOWN."""
    return not task.pinned and not service.mode.is_global


def gives_up(snapshot: Snapshot, task: Task) -> bool:
    """Whether the task's node has been silent for long enough for another to run its like."""
    state = snapshot.observed.node(task.node).state
    if task.needs_lease:
        return lease_is_over(state)
    return state in (NodeState.SUSPECT, NodeState.DOWN)


def lease_is_over(state: NodeState) -> bool:
    """Whether a node in this state certainly runs no exclusive task any more.

    DOWN comes after the node's lease, a margin and what clocks may differ by.
    """
    return state is NodeState.DOWN


def awaits_successor(snapshot: Snapshot, service: Service, slot: Slot) -> str:
    """Why a slot with live tasks wants one more, as a sentence; empty: it does not.

    The slot then holds an old task and one successor, never more that are wanted.
    """
    live = [*slot.wanted, *slot.stopping]
    if len(slot.wanted) > 1 or not live:
        return ""
    if not all(is_movable(service, task) and gives_up(snapshot, task) for task in live):
        return ""
    if any(is_unfenced(snapshot, service, task) for task in live):
        return ""
    node = live[-1].node
    how = "is silent"
    if _is_lost(snapshot, node):
        how = "is lost"
    elif is_down(snapshot, live[-1]):
        how = "is down"
    return f"node {name(snapshot, node)} {how}"


def is_unfenced(snapshot: Snapshot, service: Service, task: Task) -> bool:
    """Whether an exclusive successor has to wait for this task's node, however long it is silent.

    The task is from before its service became exclusive: no lease of its node ends it. Only an
    operator can say that it runs no more.
    """
    if task.exclusive or _is_lost(snapshot, task.node):
        return False
    return is_exclusive_now(snapshot, service)


def is_exclusive_now(snapshot: Snapshot, service: Service) -> bool:
    """Whether a task of the service that is made now is exclusive."""
    edition = snapshot.stored.spec(service.id, service.generation)
    if edition is None:
        return False
    required = requirements_of(snapshot.stored, service.id, service.generation)
    return requirements.is_exclusive(edition.spec, required, service)


def _is_lost(snapshot: Snapshot, node: NodeId) -> bool:
    """Whether its operator said so."""
    return (record := snapshot.stored.node(node)) is None or bool(record.lost_ms)


def awaits_node(snapshot: Snapshot, slot: Slot) -> str:
    """Why an empty slot is not filled yet though another node could: a sentence's end, or empty.

    After a cold start the nodes come back one by one, and the first must not get everything.
    """
    if slot.last is None:
        return ""
    node = snapshot.stored.node(slot.last.node)
    if node is None or node.availability is not Availability.ACTIVE:
        return ""
    if snapshot.observed.node(node.id).state is not NodeState.UNKNOWN:
        return ""
    return f"waits for node {node.name}, where its last task was, to report or to be down"


@dataclass(slots=True)
class Settled:
    """Which surplus tasks end, and when to look again (boot time; 0: when something changes)."""

    changes: list[Change] = field(default_factory=list)
    wake_at: float = 0.0


def settle(snapshot: Snapshot, slots: Mapping[int, Slot]) -> Settled:
    """End the surplus task of each slot that has two."""
    settled = Settled()
    for number in sorted(slots):
        tasks = slots[number].wanted
        if len(tasks) < 2:
            continue
        if tasks[0].move is not None and not tasks[0].needs_lease:
            continue  # it is moved: `relocating` sees to both
        surplus = _surplus(snapshot, tasks[0], tasks[-1])
        if isinstance(surplus, tuple):
            settled.changes += replicas.remove(snapshot, [surplus[0]], Cause.RECONCILER, surplus[1])
        elif surplus and (not settled.wake_at or surplus < settled.wake_at):
            settled.wake_at = surplus
    return settled


def _surplus(snapshot: Snapshot, old: Task, new: Task) -> tuple[Task, str] | float:
    """The copy that goes, and why; or the boot time at which that may be known (0: no idea)."""
    moved = f"its successor on node {name(snapshot, new.node)} has taken its place"
    if old.needs_lease:
        return old, moved  # never two: what was moved is not wanted any more
    if is_down(snapshot, old) and is_down(snapshot, new):
        # Both are lost: the older is given up, so that the slot may have a third.
        return old, "its node and that of its successor are down"
    if not (has_reported(snapshot, old) and has_reported(snapshot, new)):
        return 0.0
    if old.generation < new.generation:
        return old, moved
    runs = [since for each in (old, new) if (since := _runs_since_ms(snapshot, each)) is not None]
    if not runs:
        # Neither is well: the old one is given a moment to become so.
        seen = [snapshot.observed.node(task.node).since for task in (old, new)]
        until = max(seen) + RECOVERY_SECONDS
        return (old, moved) if until <= snapshot.now else until
    if _runs_since_ms(snapshot, old) == min(runs):
        return new, f"the task that it replaced runs again on node {name(snapshot, old.node)}"
    return old, moved


def _runs_since_ms(snapshot: Snapshot, task: Task) -> int | None:
    """Since when the copy has been running and healthy (wall clock); None: it is not.

    By its node's clock, which may be far off: it cannot have run before it was placed.
    """
    status = snapshot.observed.status(task.id)
    if status is None or not is_ready(status):
        return None
    return min(max(status.running_since_ms, task.created_ms), snapshot.now_ms)


def has_reported(snapshot: Snapshot, task: Task) -> bool:
    """Whether what is observed of the task was said after its node's last silence."""
    liveness = snapshot.observed.node(task.node)
    return liveness.reported and liveness.state is NodeState.READY


def waits_for_its_node(snapshot: Snapshot, task: Task) -> str:
    """Why a task on a silent node is neither known to run nor moved, as a sentence; empty: it
    is, or will be."""
    liveness = snapshot.observed.node(task.node)
    if liveness.state not in (NodeState.SUSPECT, NodeState.DOWN):
        return ""
    where = name(snapshot, task.node)
    word = "down" if liveness.state is NodeState.DOWN else "silent"
    since = _said_at(snapshot, liveness.last_seen)
    if task.pinned:
        return (
            f"it waits for node {where}, which is {word} since {since}: its data is there, and a"
            " pinned task does not move"
        )
    if task.needs_lease and liveness.state is NodeState.SUSPECT:
        return (
            f"node {where} is silent since {since}: an exclusive task moves once its node's lease"
            " is certainly over"
        )
    service = snapshot.stored.service(task.service)
    if service is not None and is_unfenced(snapshot, service, task):
        return (
            f"it waits for node {where}, which is {word} since {since}: the service was made"
            " exclusive after this task had started there, so no lease ends it; bring the node"
            f" back, or say `homeport node lost {where}` when you know that it is off"
        )
    return ""


def _said_at(snapshot: Snapshot, when: float) -> str:
    """A boot time for people: wall clock, and how long ago."""
    ago = max(0.0, snapshot.now - when)
    at = datetime.fromtimestamp(snapshot.now_ms / 1000 - ago, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({ago:.0f} s ago)"


def is_drained(snapshot: Snapshot, task: Task) -> bool:
    """Whether the operator wants the task's node empty."""
    node = snapshot.stored.node(task.node)
    return node is not None and node.availability is Availability.DRAIN


def must_leave(snapshot: Snapshot, task: Task) -> str:
    """Why a task is to be stopped here and placed elsewhere, as a sentence; empty: it may stay.

    An exclusive task whose node gets no lease has ended, or is about to, and starts again
    nowhere before it has said so.
    """
    where = name(snapshot, task.node)
    if is_drained(snapshot, task):
        return f"node {where} is being drained"
    if (taint := _evicts(snapshot, task)) is not None:
        return f"node {where} has the taint {taints.shown(taint)}, which it does not tolerate"
    if task.needs_lease and (why := snapshot.observed.node(task.node).unfenced):
        return f"node {where} gets no exclusive task: {why}"
    return ""


def _evicts(snapshot: Snapshot, task: Task) -> Taint | None:
    """The taint of its node that sends this task away."""
    node = snapshot.stored.node(task.node)
    if node is None or not node.taints:
        return None
    needs = requirements_of(snapshot.stored, task.service, task.generation)
    return taints.evicting(node.taints, needs.tolerations)


def to_drain(snapshot: Snapshot, service: Service, slots: Mapping[int, Slot]) -> list[Task]:
    """The tasks that may be moved off drained nodes now, in order: one slot at a time.

    Those of a global service go together: they move nowhere.
    """
    drained = [
        task
        for number in sorted(slots)
        for task in slots[number].wanted
        if must_leave(snapshot, task)
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
    # A node is drained or tainted by its operator; it loses its lease by itself.
    by_operator = is_drained(snapshot, task) or _evicts(snapshot, task) is not None
    cause = Cause.OPERATOR if by_operator else Cause.RECONCILER
    reason = must_leave(snapshot, task)
    ended = replace(task, desired=Desired.SHUTDOWN, cause=cause, reason=reason)
    return Put(ended, snapshot.stored.version(keys.task(task.id)), reason)


def _is_moving(snapshot: Snapshot, slot: Slot) -> bool:
    """Whether the slot is between a drained task and its successor's first breath."""
    if any(must_leave(snapshot, task) for task in slot.stopping):
        return True
    if not slot.wanted:
        last = slot.last
        return last is not None and bool(must_leave(snapshot, last)) and not slot.stopping
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
