"""How many tasks on one node a reconciler may have stopped at once.

An agent holds back a reconciler's removals that would stop more than three of its running
tasks, or more than a quarter, within ten seconds, and then waits for an operator's word. What
is only surplus (a node with ten replicas came back, and their successors run elsewhere), or ends
to make room, must not get there, so it is stopped a few at a time. A newcomer's mistake: counting
from when the word was given. The node may hear it late; what counts is when the last ones were
gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, NodeId, Task
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot

AT_ONCE_MAX = 3
AT_ONCE_PART = 4
"""Or one in so many of the node's running tasks, if that is more: as agents count."""
WINDOW_SECONDS = 11.0
"""The agent's ten, and a little for the way."""


class Pace:
    """Counts, for one term of leadership. Owned by the controller."""

    def __init__(self, now: float) -> None:
        """A new leader does not know what was stopped just before it came: `now` counts as that."""
        self._since = now
        self._gone: dict[NodeId, list[float]] = {}

    def changed(self, old: keys.Stored | None, new: keys.Stored | None, now: float) -> None:
        """A task's record was written, or deleted.

        One that a reconciler had stopped counts until it has been gone for a while; also one that
        ends by an operator's word since: its agent may have heard of it before that.
        """
        if not (isinstance(old, Task) and _is_stopping(old)):
            return
        if new is None or (isinstance(new, Task) and not _is_stopping(new)):
            self._gone.setdefault(old.node, []).append(now)

    def postpone(
        self,
        snapshot: Snapshot,
        changes: Sequence[Change],
        preempted: Collection[str] = (),
    ) -> tuple[list[Change], list[Change], float]:
        """(what may be written now, what must wait, the boot time to look again).

        `preempted`: keys of the tasks among them that end to make room.
        """
        kept: list[Change] = []
        late: list[Change] = []
        room: dict[NodeId, int] = {}
        for change in changes:
            value = change.value if isinstance(change, Put) else None
            if not isinstance(value, Task) or not (_is_surplus(value) or change.key in preempted):
                kept.append(change)
                continue
            if value.node not in room:
                room[value.node] = self._room(snapshot, value.node)
            if room[value.node] > 0:
                room[value.node] -= 1
                kept.append(change)
            else:
                late.append(change)
        return kept, late, snapshot.now + WINDOW_SECONDS

    def _room(self, snapshot: Snapshot, node: NodeId) -> int:
        begin = snapshot.now - WINDOW_SECONDS
        if self._since > begin:
            return 0
        lately = [when for when in self._gone.get(node, ()) if when > begin]
        if lately:
            self._gone[node] = lately
        else:
            self._gone.pop(node, None)
        tasks = snapshot.stored.tasks_of_node(node)
        going = sum(map(_is_stopping, tasks))
        running = sum(map(partial(_is_running, snapshot), tasks))
        most = max(AT_ONCE_MAX, (running + len(lately)) // AT_ONCE_PART)
        return most - len(lately) - going


def _is_running(snapshot: Snapshot, task: Task) -> bool:
    status = snapshot.observed.status(task.id)
    return status is not None and status.state is TaskState.RUNNING


def _is_stopping(task: Task) -> bool:
    """Whether a reconciler has it stopped: what agents count."""
    return (
        task.desired is not Desired.RUNNING
        and task.cause is Cause.RECONCILER
        and task.outcome is None
    )


def _is_surplus(task: Task) -> bool:
    """Whether a reconciler had it stopped while it was live."""
    return (
        task.desired is Desired.REMOVED and task.cause is Cause.RECONCILER and task.outcome is None
    )
