"""Whose lease is not renewed, because a task that needs it has been, or is being, moved away.

An exclusive task that moved may run on its old node only as long as that node's lease, so the
lease must not be renewed from before the move is written until the old holder has
acknowledged that its task is to end (or the task's record is gone). A newcomer's mistake:
withholding it only once the move is written. A heartbeat that arrives while the commit is on
its way, or while nobody knows whether it took place, would be answered with a lease under
which the old copy goes on beside the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from homeport.model import NodeId, Task, TaskId
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import Observed
from scheduler.cluster.view import View


def begin(view: View, observed: Observed, changes: Iterable[Change]) -> None:
    """Withhold the leases of the nodes that these changes, not written yet, move tasks from."""
    for change in changes:
        if not isinstance(change, Put) or not isinstance(change.value, Task):
            continue
        task = change.value
        held = holders(view, task)
        if not held or view.task(task.id) is not None:
            continue
        for each in held:
            observed.revoking.setdefault(each.node, {})[each.id] = change.key


def end(observed: Observed, blocked: frozenset[str]) -> None:
    """The moves are written or not; only those whose fate is not known stay withheld.

    What was written is known from the records themselves from now on (`Superseded`).
    """
    for node, tasks in list(observed.revoking.items()):
        left = {task: key for task, key in tasks.items() if key in blocked}
        if left:
            observed.revoking[node] = left
        else:
            del observed.revoking[node]


def holders(view: View, task: Task) -> Sequence[Task]:
    """The earlier tasks of this one's slot that may still run under their node's lease."""
    if task.n == 1:
        return ()
    return [
        each
        for each in view.tasks_of_slot(task.service, task.slot)
        if each.n < task.n and each.needs_lease and each.outcome is None
    ]


class Superseded:
    """The tasks that need a lease and have a successor in their slot, by node.

    Kept from what is committed, so that a heartbeat costs nothing on nodes without one.
    """

    def __init__(self, view: View) -> None:
        """For one term of leadership: earlier leaders may have moved tasks too."""
        self._by_node: dict[NodeId, dict[TaskId, None]] = {}
        for task in view.tasks():
            if task.n > 1 and task.outcome is None:
                self._add(holders(view, task))

    def changed(self, view: View, old: Task | None, new: Task | None) -> None:
        """A task's record was written; `view` has it so already."""
        if new is not None and old is None:
            self._add(holders(view, new))
        elif old is not None and (new is None or new.outcome is not None):
            tasks = self._by_node.get(old.node)
            if tasks is not None:
                tasks.pop(old.id, None)
                if not tasks:
                    del self._by_node[old.node]

    def on(self, node: NodeId) -> Mapping[TaskId, None]:
        """Those of this node."""
        return self._by_node.get(node, _NONE)

    def _add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._by_node.setdefault(task.node, {})[task.id] = None


def withheld(
    observed: Observed, superseded: Superseded, node: NodeId, ended: Iterable[TaskId]
) -> str:
    """Why the node's lease is not renewed now; empty: it is.

    `ended`: those of the superseded tasks whose end the agent has acknowledged in its present
    session, and which it does not run any more.
    """
    if observed.revoking.get(node):
        return "an exclusive task is being moved from it"
    left = superseded.on(node).keys() - set(ended)
    if left:
        return f"it has not said yet that it gave up {min(left)}, which has moved"
    return ""


_NONE: Mapping[TaskId, None] = {}
