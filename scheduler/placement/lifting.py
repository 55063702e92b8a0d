"""What a fleet would be like without one of its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from homeport.model import TaskId
from scheduler.placement.fleet import Fleet


@contextmanager
def lifted(fleet: Fleet, task: TaskId) -> Iterator[None]:
    """The task takes no room for as long as the block lasts; afterwards it does again."""
    entry, grants = fleet.held.get(task), fleet.grants.get(task, ())
    fleet.task_removed(task)
    try:
        yield
    finally:
        if entry is not None:
            fleet.task_added(task, entry, grants)
