"""When the tasks of silent nodes may get their successors: not all at once, and not too soon.

A *move* is a vacancy that stands in for a task on a silent node (`Vacancy.leaves`). One
lost node's worth of them begins per ten seconds, none while the leader has not led for a
node's lease, of a node that is only suspected at most three start at once, and none while
the brake is on. The operator's word that a node is lost overrides all of that. A newcomer's
mistake: counting moves here; nodes are admitted, and what of theirs moves then moves together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeport.lifecycle import TERMINAL, TaskState
from homeport.model import Cause, Health, NodeId, NodeState, ServiceId, TaskId
from scheduler.cluster.observed import Brake
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.stats import AUTOMATIC, REBALANCE, SILENT
from scheduler.reconcile import brake as brakes
from scheduler.reconcile.slots import Vacancy, name

STARTING_MAX = 3
"""Replacements of tasks on suspected nodes that start at once."""
AGAIN_SECONDS = 0.5
"""How soon a replacement that waits for its turn is looked at again."""
NODE_SECONDS = 10.0
"""One lost node's worth of moves begins in this time."""

SlotTasks = Mapping[tuple[ServiceId, int], TaskId]


@dataclass(slots=True)
class Admitted:
    """What became of the moves among some vacancies."""

    vacancies: list[Vacancy] = field(default_factory=list)  # all, the held ones blocked
    wake_at: dict[ServiceId, float] = field(default_factory=dict)
    held: dict[ServiceId, None] = field(default_factory=dict)  # to look at when the brake changes


class Moves:
    """Keeps count for one term of leadership. Owned by the controller."""

    def __init__(self, now: float) -> None:
        """`now` is when the leader began."""
        self._began = now
        self._admitted: dict[NodeId, float] = {}
        self._starting: dict[TaskId, float] = {}  # task -> when it was decided

    def placed(self, snapshot: Snapshot, vacancies: Sequence[Vacancy], slots: SlotTasks) -> None:
        """Of these vacancies some were given a task: those on suspected nodes start now."""
        for vacancy in vacancies:
            task = slots.get((vacancy.service, vacancy.slot))
            if task and vacancy.leaves is not None and is_suspect(snapshot, vacancy.leaves):
                self._starting[task] = snapshot.now

    def admit(
        self, snapshot: Snapshot, vacancies: Sequence[Vacancy], lease_seconds: float
    ) -> Admitted:
        """Hold back the moves whose time has not come."""
        self._forget(snapshot)
        result = Admitted()
        room = STARTING_MAX - self._count_starting(snapshot)
        for vacancy in vacancies:
            if vacancy.leaves is None or vacancy.blocked:
                result.vacancies.append(vacancy)
                continue
            why, when = self._objection(snapshot, vacancy, vacancy.leaves, lease_seconds, room)
            if why:
                result.vacancies.append(replace(vacancy, blocked=why))
                result.held[vacancy.service] = None
                if when:
                    known = result.wake_at.get(vacancy.service, when)
                    result.wake_at[vacancy.service] = min(known, when)
                continue
            if is_suspect(snapshot, vacancy.leaves):
                room -= 1
            result.vacancies.append(vacancy)
        return result

    def _objection(
        self,
        snapshot: Snapshot,
        vacancy: Vacancy,
        node: NodeId,
        lease_seconds: float,
        room: int,
    ) -> tuple[str, float]:
        """(why the move waits, the boot time to look again); ("", 0.0): it does not."""
        if is_lost(snapshot, node):
            return "", 0.0
        if (until := self._began + lease_seconds) > snapshot.now:
            return "waits until this scheduler has led for as long as a node's lease", until
        if (said := held_by_brake(snapshot, vacancy, node))[0]:
            return said
        if (until := self._turn_of(node, snapshot.now)) > snapshot.now:
            return "waits for its turn: one lost node's tasks begin to move in ten seconds", until
        if is_suspect(snapshot, node) and room <= 0:
            why = f"waits for its turn: {STARTING_MAX} replacements start already"
            return why, snapshot.now + AGAIN_SECONDS
        self._admitted.setdefault(node, snapshot.now)
        return "", 0.0

    def _turn_of(self, node: NodeId, now: float) -> float:
        """When this node's tasks may begin to move."""
        if node in self._admitted:
            return now
        return max((when + NODE_SECONDS for when in self._admitted.values()), default=now)

    def _forget(self, snapshot: Snapshot) -> None:
        """A node that is back is admitted anew when it falls silent again."""
        for node, when in list(self._admitted.items()):
            state = snapshot.observed.node(node).state
            is_silent = state in (NodeState.SUSPECT, NodeState.DOWN)
            if not is_silent and when + NODE_SECONDS <= snapshot.now:
                del self._admitted[node]

    def _count_starting(self, snapshot: Snapshot) -> int:
        for task_id, since in list(self._starting.items()):
            task = snapshot.stored.task(task_id)
            if task is None and snapshot.now < since + AGAIN_SECONDS:
                continue  # it is being written
            if task is None or task.outcome is not None or has_started(snapshot, task_id):
                del self._starting[task_id]
        return len(self._starting)


def cause_of(snapshot: Snapshot, vacancy: Vacancy) -> str:
    """Why a vacancy is a move, as `stats.MOVES` has it; empty: it is none."""
    if vacancy.move is not None:
        return AUTOMATIC if vacancy.move is Cause.RECONCILER else REBALANCE
    if vacancy.leaves is None or snapshot.observed.node(vacancy.leaves).state is NodeState.READY:
        return ""
    return SILENT


def held_by_brake(snapshot: Snapshot, vacancy: Vacancy, node: NodeId) -> tuple[str, float]:
    """(why the brake holds the move, the boot time to look again); ("", 0.0): it does not."""
    brake: Brake | None = snapshot.observed.brake
    if brake is None:
        return "", 0.0
    if vacancy.needs_lease:
        lost = name(snapshot, node)
        return (
            f"is held by the brake ({brake.cause}): if the machine is off, say"
            f" `homeport node lost {lost}`",
            0.0,
        )
    if brakes.holds_replicas(brake, snapshot.now):
        until = brake.since + brakes.REPLICAS_HELD_SECONDS
        return f"is held by the brake for a minute ({brake.cause})", until
    return "", 0.0


def is_lost(snapshot: Snapshot, node: NodeId) -> bool:
    """Whether the operator said that the machine is off."""
    record = snapshot.stored.node(node)
    return record is not None and record.lost_ms > 0


def is_suspect(snapshot: Snapshot, node: NodeId) -> bool:
    """Whether the node may well come back any moment."""
    return snapshot.observed.node(node).state is NodeState.SUSPECT


def has_started(snapshot: Snapshot, task: TaskId) -> bool:
    """Whether the task runs, and is not known to be still coming up, or has ended."""
    status = snapshot.observed.status(task)
    if status is None:
        return False
    if status.state is TaskState.RUNNING:
        return status.health is not Health.STARTING
    return status.state in TERMINAL or status.state is TaskState.BACKOFF
