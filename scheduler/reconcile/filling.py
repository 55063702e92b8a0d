"""Fill the slots that want a task: whose move may begin, who gets a node, and who waits for one.

`moves`, `scheduling` and `nominations` decide; here is kept what one look leaves to the next:
which silent nodes were admitted, for which slots room is being made, and who waits for what. In
three steps, `admit`, `place` and `settle`: a placement that fails must leave behind nothing but
what was admitted. A newcomer's mistake: settling only those that wait. Who was looked at and
waits for nothing any more is not to be woken for room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeport.model import NodeId, ServiceId
from scheduler.cluster import keys
from scheduler.cluster.changes import Change
from scheduler.cluster.observed import Waiting
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import scheduling, telling
from scheduler.reconcile.moves import Admitted, Moves, cause_of
from scheduler.reconcile.nominations import Nominations
from scheduler.reconcile.scheduling import Scheduled, WaitingRoom
from scheduler.reconcile.slots import Vacancy

Looked = Mapping[ServiceId, Sequence[Ask]]
"""The services of one look, each with the asks of its tasks that should leave and find no node."""


@dataclass(slots=True, kw_only=True)
class Filled:
    """What became of the vacancies of one look."""

    changes: dict[ServiceId, list[Change]]
    placed: dict[str, Placed] = field(default_factory=dict)  # by the key of the task's record
    moves: dict[str, str] = field(default_factory=dict)  # of those: why it is a move
    preempted: set[str] = field(default_factory=set)  # keys of tasks that end to make room
    roomier: list[NodeId] = field(default_factory=list)  # room on them is kept for nobody now
    again: list[ServiceId] = field(default_factory=list)  # to be looked at once more
    wake_at: dict[ServiceId, float] = field(default_factory=dict)


class Filling:
    """Keeps count for one term of leadership. Owned by the controller."""

    def __init__(self, began: float, room: WaitingRoom) -> None:
        """`began`: when the leader began, in boot time. `room`: where those are that wait."""
        self._moves = Moves(began)
        self._nominations = Nominations()
        self._room = room

    def admit(
        self, snapshot: Snapshot, vacancies: Sequence[Vacancy], lease_seconds: float
    ) -> Admitted:
        """Hold back the moves whose time has not come."""
        return self._moves.admit(snapshot, vacancies, lease_seconds)

    def place(
        self, snapshot: Snapshot, fleet: Fleet, looked: Looked, vacancies: Sequence[Vacancy]
    ) -> Scheduled:
        """Place what can be placed now; the fleet counts it from now on."""
        standing = self._nominations.standing(looked, vacancies)
        return scheduling.decide(snapshot, fleet, vacancies, standing)

    def settle(
        self,
        snapshot: Snapshot,
        looked: Looked,
        vacancies: Sequence[Vacancy],
        scheduled: Scheduled,
    ) -> Filled:
        """Keep who was placed and who waits, and say so."""
        tasks = {(each.ask.service, each.ask.slot): each.ask.task for each in scheduled.placed}
        self._moves.placed(snapshot, vacancies, tasks)
        filled = Filled(
            changes=scheduled.changes,
            placed={keys.task(each.ask.task): each for each in scheduled.placed},
            preempted=scheduled.preempted,
            wake_at=scheduled.wake_at,
        )
        for vacancy in vacancies:
            if (cause := cause_of(snapshot, vacancy)) and (
                task := tasks.get((vacancy.service, vacancy.slot))
            ):
                filled.moves[keys.task(task)] = cause
        filled.roomier = self._nominations.replace(looked, scheduled.nominated)
        unplaced: dict[ServiceId, list[Ask]] = {}
        for answer in scheduled.unplaced:
            unplaced.setdefault(answer.ask.service, []).append(answer.ask)
        for service, stays in looked.items():
            self._room.replace(service, [*unplaced.get(service, ()), *stays])
            if _say_who_waits(snapshot, service, scheduled.waiting.get(service, {})):
                filled.again.append(service)
        return filled


def _say_who_waits(snapshot: Snapshot, service: ServiceId, slots: dict[int, Waiting]) -> bool:
    """These of its slots wait now. Whether one has just been refused by every node."""
    before = snapshot.observed.waiting.get(service, {})
    said: dict[str, Waiting] = {}
    is_refused = False
    for slot, waiting in slots.items():
        if slot not in before or before[slot].reason != waiting.reason:
            said.setdefault(waiting.reason, waiting)
        if waiting.refusals and not (slot in before and before[slot].refusals):
            is_refused = True  # a rollout may stop now that no node is left
    snapshot.observed.put_waiting(service, slots)
    for waiting in said.values():
        snapshot.observed.add_event(telling.waits(waiting, snapshot.now_ms))
    return is_refused
