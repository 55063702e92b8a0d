"""Numbers that are never given twice, also when the store that gave them was restored.

A restored store counts its revisions from lower on, and knows nothing of the tasks that came
after the backup; agents still run them. So what is numbered by revision carries the
incarnation as well, and the numbers of tasks jump when one begins.
"""

from __future__ import annotations

from dataclasses import replace

from homeport.model import Service, TaskId
from scheduler.cluster import keys
from scheduler.cluster.view import View

TASKS_SKIPPED = 10_000
"""Tasks that a slot may have had since the backup; the next one's number is beyond them."""
INCARNATION_BITS = 40
"""Of a fence token, above the revision: 10¹² revisions are a year of 35,000 a second."""


def skipped(service: Service, highest: int) -> Service:
    """The service, whose next tasks have numbers that none can have had.

    `highest` is the highest number of a task of its that is recorded.
    """
    last = max(service.last_n, highest)
    return replace(service, last_n=(last // TASKS_SKIPPED + 1) * TASKS_SKIPPED)


def suffix(view: View, revision: int) -> str:
    """What makes a service's id unique for ever."""
    lives = _lives(view)
    return f"{revision:x}r{lives}" if lives else f"{revision:x}"


def fence_token(view: View, task: TaskId) -> int:
    """What the task's writes to shared storage may be ordered by; a slot's next task has a higher.

    The revision that made the record: later updates of it do not change what a container has
    been told.
    """
    return _lives(view) << INCARNATION_BITS | view.created(keys.task(task))


def _lives(view: View) -> int:
    """How often the store was restored or moved."""
    return view.cluster.incarnation - 1 if view.cluster is not None else 0
