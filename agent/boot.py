"""In which order tasks start after the machine did: the decider.

What is here already is adopted first. The rest starts in the order of priority, a few at a
time, and what depends on another service of its stack waits until that is up here. A
newcomer's mistake: waiting for ever. After a power cut everything is to run again without
a human, so nobody waits for what has ended, for what lives on another node, or for longer
than `PATIENCE_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from homeport.lifecycle import TERMINAL, TaskState
from homeport.model import Health, TaskId, TaskStatus
from homeport.spec import Dependency, DependencyCondition

PATIENCE_SECONDS = 60.0
"""How long after the agent's start a task may be held back by what it depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booting:
    """One task that is to run on this node, and what it depends on."""

    task: TaskId
    stack: str
    service_name: str
    depends_on: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prerequisite:
    """A task of this node that has to be up first."""

    task: TaskId
    service_name: str
    condition: DependencyCondition


def prerequisites(tasks: Iterable[Booting]) -> dict[TaskId, tuple[Prerequisite, ...]]:
    """What each task waits for here; tasks that wait for nothing are left out."""
    tasks = list(tasks)
    here: dict[tuple[str, str], list[TaskId]] = {}
    for each in tasks:
        here.setdefault((each.stack, each.service_name), []).append(each.task)
    found = {
        each.task: tuple(
            Prerequisite(task=other, service_name=needed.service, condition=needed.condition)
            for needed in each.depends_on
            for other in here.get((each.stack, needed.service), ())
            if other != each.task
        )
        for each in tasks
    }
    return {task: needed for task, needed in found.items() if needed}


def is_up(condition: DependencyCondition, status: TaskStatus | None) -> bool:
    """Whether a task in this state need not be waited for any more."""
    if status is None:
        return False
    if status.state in TERMINAL:
        return True  # as it was meant to, or for good: no waiting changes that
    if condition is DependencyCondition.COMPLETED or status.state is not TaskState.RUNNING:
        return False
    if condition is DependencyCondition.HEALTHY:
        return status.health in (Health.NONE, Health.HEALTHY)
    return True


class BootOrder:
    """Who still waits for whom since the machine was started."""

    def __init__(self, tasks: Iterable[Booting] = (), *, until_seconds: float = 0.0) -> None:
        """Holds nobody back after that boot time; without tasks nobody at all."""
        self._needed = prerequisites(tasks)
        self._until_seconds = until_seconds

    def hold(
        self,
        task: TaskId,
        now_seconds: float,
        status_of: Callable[[TaskId], TaskStatus | None],
    ) -> str:
        """Why the task may not start yet; empty: it may.

        Who was let go once is not held back again: what befalls the other later is no reason.
        """
        if task not in self._needed:
            return ""
        if now_seconds < self._until_seconds:
            for each in self._needed[task]:
                if not is_up(each.condition, status_of(each.task)):
                    return f"waits for {each.service_name}: the machine has just started"
        del self._needed[task]
        return ""

    def waiting_for(self, task: TaskId) -> list[TaskId]:
        """Who may go on when something happened to this task."""
        return [
            waiting
            for waiting, needed in self._needed.items()
            if any(each.task == task for each in needed)
        ]
