"""Carry out a task's move to a better node (`Task.move`): its successor there, then its end.

A replica's successor starts first. Once that is healthy, or has run for as long as a rollout
would watch it, the old task goes; where it fails, or its node falls silent, it goes itself and
the old task stays as if nothing had been. An exclusive task is stopped first, and placed when it
has said so. What cannot be done any more is dropped with a reason. When a move's turn has come
is for `turns` to say, in `Observed.begun`.

A newcomer's mistake: keeping more than the mark. It is in the task's own record and says which
number the successor has, so a new leader goes on wherever the last one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, NodeId, NodeState, Service, Task
from homeport.spec import ServiceSpec
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import filters, words
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.placement.lifting import lifted
from scheduler.reconcile import nodes, proofs, replicas, scheduling
from scheduler.reconcile.proofs import Progress
from scheduler.reconcile.slots import Slot, Vacancy, name, next_n

PATIENCE_SECONDS = 900.0
"""A successor that does not run by then (its image may be large) is given up."""
AGAIN_SECONDS = 0.5
"""How soon a node that has not reported yet is looked at again."""


def decide(
    snapshot: Snapshot,
    fleet: Fleet,
    service: Service,
    spec: ServiceSpec,
    slots: Mapping[int, Slot],
) -> Progress:
    """The next steps of the moves in these slots."""
    progress = Progress()
    for number in sorted(slots):
        slot = slots[number]
        old = marked(slot)
        if old is None or old.move is None:
            continue
        new = next((task for task in slot.tasks if task.n == old.move.n), None)
        if new is not None:
            progress.changes += _handed_over(snapshot, spec, old, new, progress)
        elif why := _objection(snapshot, fleet, service, slot, old):
            progress.changes.append(_drop(snapshot, old, why))
        elif old.needs_lease and is_begun(snapshot, old) and _is_ready(snapshot, old.node):
            progress.changes.append(_stop(snapshot, old))
    return progress


def marked(slot: Slot) -> Task | None:
    """The task of a slot that is to be moved and still runs."""
    return next((task for task in slot.wanted if task.move is not None), None)


def is_begun(snapshot: Snapshot, task: Task) -> bool:
    """Whether the turn of the task's move has come."""
    return task.id in snapshot.observed.begun


def awaits_successor(snapshot: Snapshot, service: Service, slot: Slot) -> Task | None:
    """The task of this slot that wants its successor now, beside it."""
    old = marked(slot)
    if old is None or old.needs_lease or len(slot.wanted) > 1 or slot.stopping:
        return None
    if not is_begun(snapshot, old) or not _is_ready(snapshot, old.node):
        return None
    return None if _change_of_mind(snapshot, service, slot, old) else old


def target(snapshot: Snapshot, fleet: Fleet, service: Service, slot: Slot) -> NodeId | None:
    """Where the slot's next task goes because a move says so; None: placement chooses."""
    old = awaits_successor(snapshot, service, slot)
    if old is not None and old.move is not None:
        return old.move.node
    last = slot.last
    if last is None or last.move is None or last.outcome is None:
        return None
    # An exclusive task was stopped for it. Where its node will not do any more, another may.
    return None if _refusal(snapshot, fleet, service, slot, last) else last.move.node


def awaits_target(snapshot: Snapshot, slot: Slot) -> str:
    """Why an exclusive task that was stopped for its move is not placed yet: a sentence's end, or
    empty. A new leader hears of the nodes one by one, and the first is the wrong one.
    """
    last = slot.last
    if last is None or last.move is None or not last.needs_lease:
        return ""
    node = snapshot.stored.node(last.move.node)
    if node is None or node.availability is not Availability.ACTIVE:
        return ""
    if snapshot.observed.node(node.id).state is not NodeState.UNKNOWN:
        return ""
    return f"waits for node {node.name}, where it moves to, to report or to be down"


def refusal(snapshot: Snapshot, fleet: Fleet, task: Task) -> str:
    """Why the node that a task is to move to would not take it now; empty: it would."""
    service = snapshot.stored.service(task.service)
    tasks = tuple(snapshot.stored.tasks_of_slot(task.service, task.slot))
    if service is None:
        return "its service is gone"
    return _refusal(snapshot, fleet, service, Slot(task.slot, tasks), task)


def _refusal(snapshot: Snapshot, fleet: Fleet, service: Service, slot: Slot, task: Task) -> str:
    assert task.move is not None, "only marked tasks are asked about"
    to = task.move.node
    candidate = fleet.candidates.get(to)
    ask = _ask(snapshot, fleet, service, slot)
    if candidate is None or ask is None:
        return f"node {name(snapshot, to)} is gone" if ask is not None else "its spec is gone"
    with lifted(fleet, task.id):
        first = filters.first_refusal(fleet, ask, candidate)
    if first is None and not task.needs_lease:
        # Both run at once for a while.
        beside = replace(ask, only=to, excluded=())
        first = filters.first_refusal(fleet, beside, candidate)
    return "" if first is None else words.sentence(first, f"node {candidate.name}")


def _ask(snapshot: Snapshot, fleet: Fleet, service: Service, slot: Slot) -> Ask | None:
    vacancy = Vacancy(
        service=service.id,
        slot=slot.number,
        n=next_n(service, slot),
        generation=service.generation,
        reason="it moves",
    )
    return scheduling.ask_for(snapshot, fleet, vacancy)


def _objection(snapshot: Snapshot, fleet: Fleet, service: Service, slot: Slot, old: Task) -> str:
    """Why a move that has no successor yet comes to nothing; empty: it goes on, or waits."""
    if why := _change_of_mind(snapshot, service, slot, old):
        return why
    return _refusal(snapshot, fleet, service, slot, old) if is_begun(snapshot, old) else ""


def _change_of_mind(snapshot: Snapshot, service: Service, slot: Slot, old: Task) -> str:
    """Why the task is not to be moved any more, wherever to; empty: it is.

    In the look in which a move comes to nothing its slot must not get the successor either.
    """
    assert old.move is not None, "only marked tasks are asked about"
    if next_n(service, slot) > old.move.n:
        return "the task that was to replace it is gone"
    if len(slot.wanted) > 1:
        return "its slot has another task already"
    if old.generation < service.template_generation:
        return "another generation is rolled out"
    if not old.exclusive and nodes.is_exclusive_now(snapshot, service):
        return "its service has become exclusive, and it runs without a lease"
    return nodes.must_leave(snapshot, old)


def _handed_over(
    snapshot: Snapshot, spec: ServiceSpec, old: Task, new: Task, progress: Progress
) -> list[Change]:
    """What follows from how the successor does."""
    assert old.move is not None, "only marked tasks are asked about"
    if old.needs_lease:
        return []  # its node fell silent before it was stopped: `nodes` settles that
    if new.outcome is not None or new.desired is not Desired.RUNNING:
        message = new.outcome.message if new.outcome is not None else new.reason
        return [_drop(snapshot, old, f"the task that was to replace it ended: {message}")]
    if why := _failure(snapshot, new, progress):
        if not _is_ready(snapshot, old.node):
            # The new one may be all that runs: `nodes` ends one of them when it has heard of both.
            return [_drop(snapshot, old, why)]
        ended = replicas.remove(snapshot, [new], old.move.cause, f"the move is given up: {why}")
        return [*ended, _drop(snapshot, old, why)]
    if not _is_ready(snapshot, new.node):
        return []  # what was seen of it before a silence proves nothing
    if proofs.is_proven(snapshot, new, spec.update.monitor_ms, progress):
        moved = f"its successor on node {name(snapshot, new.node)} has taken its place"
        return replicas.remove(snapshot, [old], old.move.cause, moved)
    return []


def _failure(snapshot: Snapshot, new: Task, progress: Progress) -> str:
    """Why a successor is given up, as a clause; empty: it is not."""
    if snapshot.observed.node(new.node).state in (NodeState.SUSPECT, NodeState.DOWN):
        return f"node {name(snapshot, new.node)} is silent"
    if not _is_ready(snapshot, new.node):
        return ""  # this leader has not heard of it yet
    if why := proofs.trouble(snapshot, new):
        return why
    status = snapshot.observed.status(new.id)
    if status is not None and status.state is TaskState.RUNNING:
        return ""
    left = PATIENCE_SECONDS - (snapshot.now_ms - new.created_ms) / 1000
    if left <= 0:
        return f"the new task does not run after {PATIENCE_SECONDS / 60:.0f} minutes"
    progress.wake(snapshot.now + left)
    return ""


def _is_ready(snapshot: Snapshot, node: NodeId) -> bool:
    liveness = snapshot.observed.node(node)
    return liveness.state is NodeState.READY and liveness.reported


def _drop(snapshot: Snapshot, task: Task, why: str) -> Change:
    """Have a task stay where it is."""
    reason = f"it stays where it is: {why}"
    version = snapshot.stored.version(keys.task(task.id))
    return Put(replace(task, move=None), version, reason)


def _stop(snapshot: Snapshot, task: Task) -> Change:
    """Stop an exclusive task, so that its slot's next starts on the better node."""
    assert task.move is not None, "only marked tasks are stopped"
    reason = f"it moves to node {name(snapshot, task.move.node)}: {task.move.reason}"
    ended = replace(task, desired=Desired.SHUTDOWN, cause=task.move.cause, reason=reason)
    return Put(ended, snapshot.stored.version(keys.task(task.id)), reason)
