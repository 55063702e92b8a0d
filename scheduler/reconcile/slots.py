"""A service's slots as reconcilers look at them, and what a slot without a task wants.

A slot's tasks are its history, oldest first. A task is *live* until its outcome is
recorded, whatever is observed: `outcomes` records what was observed first, and everything
else rests on the record. A newcomer's mistake: filling a slot whose task is only
*stopping*; what is being stopped still runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homeport.lifecycle import Desired
from homeport.model import Cause, NodeId, Service, ServiceId, Task
from scheduler.cluster.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot with the tasks that it has records of."""

    number: int
    tasks: tuple[Task, ...] = ()  # oldest first

    @property
    def wanted(self) -> list[Task]:
        """Live tasks that are meant to run: one, or an old one and its successor."""
        if not self.tasks:
            return []
        return [
            task for task in self.tasks if task.outcome is None and task.desired is Desired.RUNNING
        ]

    @property
    def stopping(self) -> list[Task]:
        """Live tasks that are meant to end."""
        if not self.tasks:
            return []
        return [
            task
            for task in self.tasks
            if task.outcome is None and task.desired is not Desired.RUNNING
        ]

    @property
    def last(self) -> Task | None:
        """The newest task."""
        return self.tasks[-1] if self.tasks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacancy:
    """A slot that wants a task: now, later, or when something else has happened."""

    service: ServiceId
    slot: int
    n: int
    generation: int
    reason: str  # why the slot is empty: a sentence
    failures: int = 0  # of the slot, in a row
    not_before: float = 0.0  # boot time
    blocked: str = ""  # what must happen first: a sentence; empty: nothing
    only: NodeId | None = None
    excluded: tuple[NodeId, ...] = ()
    leaves: NodeId | None = None  # the silent node of the task that it is to stand in for
    needs_lease: bool = False  # that task does: an exclusive one moves
    move: Cause | None = None  # who wants it filled on a better node; None: it is no such move


def of_service(snapshot: Snapshot, service: ServiceId) -> dict[int, Slot]:
    """The slots that have records, by number."""
    found: dict[int, list[Task]] = {}
    for task in snapshot.stored.tasks_of_service(service):
        found.setdefault(task.slot, []).append(task)
    return {number: Slot(number, tuple(tasks)) for number, tasks in found.items()}


def next_n(service: Service, slot: Slot) -> int:
    """The number of the slot's next task: never one that it has had.

    Also the record of its newest task may be gone while that of an older one, on a node that is
    down, is still there.
    """
    return max((service.last_n, *(task.n for task in slot.tasks))) + 1


def names(snapshot: Snapshot, nodes: Iterable[NodeId]) -> str:
    """Nodes as people know them."""
    return ", ".join(name(snapshot, node) for node in nodes)


def name(snapshot: Snapshot, node: NodeId) -> str:
    """A node as people know it."""
    record = snapshot.stored.node(node)
    return record.name if record is not None else node
