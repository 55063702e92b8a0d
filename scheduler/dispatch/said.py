"""What one node's agent last said of its tasks, and the hash of it.

All of it, believed or not: the agent's own hash counts what it said. A newcomer's mistake:
reading decisions out of this. What is believed stands in `scheduler.cluster.observed`; this
is for noticing that a report was lost, and outlives the session.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeport.digests import Sum, running_line
from homeport.lifecycle import TaskState
from homeport.model import TaskId, TaskStatus


class Said:
    """The statuses of one node, in the agent's words."""

    def __init__(self) -> None:
        """Nothing has been heard."""
        self._statuses: dict[TaskId, TaskStatus] = {}
        self._sum = Sum()

    @property
    def digest(self) -> bytes:
        """To be compared with the agent's running hash."""
        return self._sum.digest

    def of(self, task: TaskId) -> TaskStatus | None:
        """What it said of this task; None: nothing, or that it is gone."""
        return self._statuses.get(task)

    def hear(self, statuses: Iterable[TaskStatus], *, is_complete: bool) -> None:
        """Take in a report; a complete one leaves nothing of those before."""
        if is_complete:
            self._statuses.clear()
            self._sum = Sum()
        for status in statuses:
            old = self._statuses.pop(status.task, None)
            if old is not None:
                self._sum.remove(running_line(old))
            if status.state is not TaskState.REMOVED:
                self._statuses[status.task] = status
                self._sum.add(running_line(status))
