"""Why a task of this node may not be started yet, beside the lease and the guard.

An older copy of its slot runs here, the last complete orders leave it out, or the machine
has just started and something else comes first. A newcomer's mistake: holding what runs.
This is asked before a start only; nothing is ever stopped for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from agent import orders as rules
from agent.boot import Booting, BootOrder
from agent.journal import Journal
from agent.lease import needs_lease
from homeport.lifecycle import Desired
from homeport.model import TaskId, TaskStatus


class Here(Protocol):
    """What runs on this node."""

    def status_of(self, task: TaskId, /) -> TaskStatus | None:
        """How a task stands; None: it is not here."""
        ...

    def recorded_alive(self) -> Iterable[TaskId]:
        """The tasks whose processes live."""
        ...

    def unrecorded_alive(self) -> Iterable[TaskId]:
        """Those among them, and among unknown containers, that no scheduler lists."""
        ...


@dataclass(slots=True)
class Holds:
    """Asked by every runner before each start."""

    journal: Journal
    here: Here
    boot: BootOrder

    def reason(self, task: TaskId, now_seconds: float) -> str:
        """Why the task may not be started yet; empty: it may."""
        want = self.journal.wanted.get(task)
        if want is not None and not want.is_listed and needs_lease(want.assignment):
            # It may have been moved by whoever keeps the store now.
            return "waits for a scheduler's word: its orders leave out this exclusive task"
        if rival := rules.rival(task, self.here.unrecorded_alive()):
            return (
                f"waits: {rival} of the same slot runs here, and the scheduler has no record of it"
                " (homeport node adopt | forget)"
            )
        is_exclusive = want is not None and want.assignment.exclusive
        if is_exclusive and (rival := rules.rival(task, self.here.recorded_alive())):
            return f"waits until {rival}, the copy of this exclusive task before, has ended"
        return self.boot.hold(task, now_seconds, self.here.status_of)


def booting(journal: Journal) -> Iterable[Booting]:
    """The tasks that are to run here, as their journal has them."""
    for task, want in journal.wanted.items():
        leave = journal.leaving.get(task)
        generation = journal.spec(want.assignment)
        is_to_run = want.desired is Desired.RUNNING and (leave is None or leave.is_held)
        if generation is not None and is_to_run:
            yield Booting(
                task=task,
                stack=want.assignment.stack,
                service_name=want.assignment.service_name,
                depends_on=generation.spec.depends_on,
            )
