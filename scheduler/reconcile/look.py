"""What one look at the cluster decided: the writes to propose, and what is known of them.

Every record is proposed once, in the words of whoever spoke first: two services may share a
volume. What is known beside the writes (who is looked at again when one fails, what was assumed,
what ends to make room) is kept by the key of the record. A newcomer's mistake: taking a proposal
for done. Each may fail by itself, and then all that is known of it here has to be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from homeport.model import ServiceId, Task
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.asks import Ask, Placed
from scheduler.reconcile.filling import Filled
from scheduler.reconcile.pace import Pace
from scheduler.reconcile.services import Decision
from scheduler.reconcile.slots import Vacancy


@dataclass(slots=True)
class Look:
    """What one look found and decided. What is said of records is by their keys."""

    looked: dict[ServiceId, Sequence[Ask]] = field(default_factory=dict)  # see `filling.Looked`
    vacancies: list[Vacancy] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=dict)
    owners: dict[str, ServiceId] = field(default_factory=dict)  # who is looked at again
    placed: dict[str, Placed] = field(default_factory=dict)
    moves: dict[str, str] = field(default_factory=dict)  # of those: why it is a move
    preempted: set[str] = field(default_factory=set)  # of tasks that end to make room

    def add(self, changes: Iterable[Change], owner: ServiceId | None = None) -> None:
        """Propose these, but for records of which somebody has spoken already."""
        for change in changes:
            if change.key not in self.changes:
                self.changes[change.key] = change
                if owner is not None:
                    self.owners[change.key] = owner

    def add_decision(self, service: ServiceId, decision: Decision) -> None:
        """This service was looked at."""
        self.add(decision.changes, service)
        self.vacancies += decision.vacancies
        self.looked[service] = decision.stays

    def add_filled(self, filled: Filled) -> None:
        """Propose what gives slots their tasks."""
        self.placed |= filled.placed
        self.moves |= filled.moves
        for service, changes in filled.changes.items():
            self.add(changes, service)
            # What somebody else has ended in this look is ended for their reason.
            self.preempted |= {
                change.key
                for change in changes
                if change.key in filled.preempted and self.owners.get(change.key) == service
            }

    def add_moves(self, changes: Iterable[Change]) -> None:
        """Propose what marks tasks to be moved to better nodes."""
        for change in changes:
            if isinstance(change, Put) and isinstance(change.value, Task):
                self.add([change], change.value.service)

    def slow_down(self, snapshot: Snapshot, pace: Pace) -> tuple[list[ServiceId], float]:
        """Propose no more ends than agents obey at once.

        Returns the services whose other tasks end later, and the boot time to look at them again.
        """
        kept, late, later = pace.postpone(snapshot, list(self.changes.values()), self.preempted)
        self.changes = {change.key: change for change in kept}
        return [self.owners[each.key] for each in late if each.key in self.owners], later
