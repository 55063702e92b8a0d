"""The tasks of one service by their slots, and the versions of their records.

Slots are numbered from 1 on with few gaps, so lists hold them: of millions of tasks each costs
two places in a list, where dictionaries by id and by slot take five times as much. A newcomer's
mistake: counting on one task in a slot. It has several while one takes over from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from homeport.model import Task, TaskId

NEAR_MAX = 1 << 16
"""Slots from here on are kept one by one: a list up to a task that stands alone is no saving."""

_n = attrgetter("n")

_Tasks = Task | tuple[Task, ...]
_Versions = int | tuple[int, ...]
"""One almost always; else as many as there are tasks, in the same order."""


class Slots:
    """The tasks of one service."""

    __slots__ = ("_far", "_tasks", "_versions", "count")

    def __init__(self) -> None:
        """None yet."""
        self.count = 0
        self._tasks: list[_Tasks] = []  # by slot; empty: no task
        self._versions: list[_Versions] = []
        self._far: dict[int, tuple[_Tasks, _Versions]] = {}

    def put(self, task: Task, version: int) -> None:
        """Take in a task that is not there."""
        tasks, versions = self._at(task.slot)
        self.count += 1
        if not tasks:
            self._set(task.slot, task, version)
        else:
            self._set(task.slot, (*_each(tasks), task), (*_each_version(versions), version))

    def drop(self, task: Task) -> None:
        """Forget a task that is there."""
        tasks, versions = self._at(task.slot)
        left = [
            (each, version)
            for each, version in zip(_each(tasks), _each_version(versions), strict=True)
            if each is not task
        ]
        self.count -= 1
        if len(left) == 1:
            self._set(task.slot, *left[0])
        else:
            self._set(task.slot, tuple(each for each, _ in left), tuple(each for _, each in left))

    def find(self, slot: int, task: TaskId) -> Task | None:
        """The task of this id, which says that it is in this slot."""
        tasks = self._tasks[slot] if 0 <= slot < len(self._tasks) else self._at(slot)[0]
        if isinstance(tasks, Task):
            return tasks if tasks.id == task else None
        return next((each for each in tasks if each.id == task), None)

    def version(self, task: Task) -> int:
        """Of the record of a task that is there."""
        tasks, versions = self._at(task.slot)
        if isinstance(versions, int):
            return versions
        return versions[_each(tasks).index(task)]

    def of(self, slot: int) -> list[Task]:
        """Those of a slot, the first first."""
        return sorted(_each(self._at(slot)[0]), key=_n)

    def all(self) -> list[Task]:
        """All of them, by slot and number."""
        found: list[Task] = []
        for tasks in self._tasks:
            if isinstance(tasks, Task):
                found.append(tasks)
            elif tasks:
                found += sorted(tasks, key=_n)
        for slot in sorted(self._far):
            found += self.of(slot)
        return found

    def __iter__(self) -> Iterator[Task]:
        """All of them, by slot."""
        for tasks in self._tasks:
            yield from _each(tasks)
        for tasks, _ in self._far.values():
            yield from _each(tasks)

    def _at(self, slot: int) -> tuple[_Tasks, _Versions]:
        if 0 <= slot < len(self._tasks):
            return self._tasks[slot], self._versions[slot]
        return self._far.get(slot, ((), ()))

    def _set(self, slot: int, tasks: _Tasks, versions: _Versions) -> None:
        if not 0 <= slot < NEAR_MAX:
            if tasks:
                self._far[slot] = (tasks, versions)
            else:
                self._far.pop(slot, None)
            return
        if (missing := slot + 1 - len(self._tasks)) > 0:
            self._tasks.extend([()] * missing)
            self._versions.extend([()] * missing)
        self._tasks[slot], self._versions[slot] = tasks, versions
        while self._tasks and not self._tasks[-1]:
            self._tasks.pop()
            self._versions.pop()


def _each(tasks: _Tasks) -> tuple[Task, ...]:
    return (tasks,) if isinstance(tasks, Task) else tasks


def _each_version(versions: _Versions) -> tuple[int, ...]:
    return (versions,) if isinstance(versions, int) else versions
