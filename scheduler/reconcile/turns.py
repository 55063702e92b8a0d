"""When the moves that were decided on may begin: a few at a time, in their order.

What is marked is found in the tasks' records, by the events that show them; whose turn has come
is in the leader's memory, and a new leader goes on with those that have begun. Nothing begins
while the brake is on, while the leader is younger than a node's lease, or from or to a node that
is silent. A move whose place is still taken waits for those before it, which may free it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeport.lifecycle import Desired
from homeport.model import NodeId, NodeState, ServiceId, Task, TaskId
from scheduler.cluster import keys
from scheduler.cluster.observed import Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import relocating

AT_ONCE_MAX = 3
"""Moves that are under way at once."""


@dataclass(slots=True)
class Begun:
    """Which services have a move that begins now, and when to ask again (0: on any change)."""

    services: list[ServiceId] = field(default_factory=list)
    wake_at: float = 0.0


class Turns:
    """Keeps them for one term of leadership. Owned by the controller."""

    def __init__(self, observed: Observed, began: float) -> None:
        """`began`: when the leader began, in boot time."""
        self._observed = observed
        self._began = began
        self._marked: dict[TaskId, None] = {}
        self._leaving: dict[TaskId, NodeId] = {}

    def __bool__(self) -> bool:
        """Whether anything is to be moved."""
        return bool(self._marked)

    def changed(self, task: TaskId, new: keys.Stored | None) -> None:
        """A task's record is this now (None: it is gone)."""
        if not (self._marked or self._leaving or (isinstance(new, Task) and new.move is not None)):
            return  # as nearly always
        self._leaving.pop(task, None)
        if isinstance(new, Task) and new.move is not None and new.outcome is None:
            if new.desired is not Desired.REMOVED:
                self._marked.setdefault(task)
                return
            # Of one that has been replaced nobody waits for the end, but for the room it takes.
            self._leaving[task] = new.node
        self._marked.pop(task, None)
        self._observed.begun.pop(task, None)

    def begin(self, snapshot: Snapshot, fleet: Fleet, lease_seconds: float) -> Begun:
        """Let those begin whose turn has come."""
        result = Begun()
        if not self._marked:
            return result
        if snapshot.observed.brake is not None:
            self._take_back(snapshot)
            return result
        if (until := self._began + lease_seconds) > snapshot.now:
            result.wake_at = until
            return result
        waiting: list[Task] = []
        under_way = 0
        for task_id in self._marked:
            task = snapshot.stored.task(task_id)
            if task is None or task.move is None:
                continue
            if relocating.is_begun(snapshot, task) or _has_begun(snapshot, task):
                self._observed.begun[task_id] = None
                under_way += 1
            else:
                waiting.append(task)
        room_comes = any(_is_ready(snapshot, node) for node in self._leaving.values())
        for task in waiting:
            if under_way >= AT_ONCE_MAX:
                break
            if not _is_ready(snapshot, task.node) or not _is_known(snapshot, task):
                continue
            if (under_way or room_comes) and relocating.refusal(snapshot, fleet, task):
                continue
            self._observed.begun[task.id] = None
            result.services.append(task.service)
            under_way += 1
        return result

    def _take_back(self, snapshot: Snapshot) -> None:
        """Those whose turn has come and has led to nothing yet wait for it again."""
        for task_id in list(self._observed.begun):
            task = snapshot.stored.task(task_id)
            if task is not None and task.move is not None and not _has_begun(snapshot, task):
                del self._observed.begun[task_id]


def _has_begun(snapshot: Snapshot, task: Task) -> bool:
    """Whether an earlier leader let it begin."""
    assert task.move is not None, "only marked tasks are asked about"
    if task.desired is not Desired.RUNNING:
        return True
    later = snapshot.stored.tasks_of_slot(task.service, task.slot)
    return any(each.n == task.move.n for each in later)


def _is_known(snapshot: Snapshot, task: Task) -> bool:
    """Whether this leader knows how the node is that the task is to move to."""
    assert task.move is not None, "only marked tasks are asked about"
    return snapshot.observed.node(task.move.node).state is not NodeState.UNKNOWN


def _is_ready(snapshot: Snapshot, node: NodeId) -> bool:
    liveness = snapshot.observed.node(node)
    return liveness.state is NodeState.READY and liveness.reported
