"""What an imagined change comes to: who moves, who would be without a node, who would not leave.

Compares the cluster before and after (`imagining`), slot by slot. A task that would be replaced
on the node that it is on is no move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import TERMINAL
from homeport.model import NodeId, NodeState, Service, ServiceId, Task
from scheduler.cluster.observed import Refusal
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import filters, words
from scheduler.placement.asks import Ask
from scheduler.reconcile import nodes, replicas, slots as slots_of
from scheduler.reconcile.imagining import After, Imagining, Taken, taken
from scheduler.reconcile.planning import Planned
from scheduler.reconcile.remedying import Remedying
from scheduler.reconcile.slots import Slot, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A slot whose task would be on another node than now, or would have one."""

    service: ServiceId
    slot: int
    source: NodeId | None  # None: it has no task now
    target: NodeId
    reason: str  # a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One node that would be there."""

    node: NodeId
    cpu_millis: int  # what may be reserved of it
    memory_bytes: int
    before: Taken
    after: Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """The difference that the change would make."""

    moves: tuple[Move, ...] = ()
    waiting: tuple[Planned, ...] = ()  # wanted, and without a node
    lost: int = 0  # so many of them run now; they come first
    pinned: int = 0  # those of the lost whose data is where they run
    staying: tuple[Planned, ...] = ()  # on drained nodes, which they would not leave
    replaced: int = 0  # tasks that would be replaced where they are
    ended: int = 0  # tasks of global services that would end with their node
    rooms: tuple[Room, ...] = ()  # by name


def compare(after: After, change: Imagining) -> Imagined:
    """What is different afterwards."""
    moves: list[Move] = []
    lost: list[Planned] = []
    waiting: list[Planned] = []
    staying: list[Planned] = []
    pinned = replaced = ended = 0
    for service_id in after.looked:
        service = after.snapshot.stored.service(service_id)
        if service is None:
            continue
        held = slots_of.of_service(after.before, service_id)
        holds = slots_of.of_service(after.snapshot, service_id)
        for number in sorted({*held, *holds, *after.waiting.get(service_id, {})}):
            old = _at_home(after.before, held.get(number))
            new = _at_home(after.snapshot, holds.get(number))
            if new is not None:
                if old is None or old.node != new.node:
                    moves.append(_move(after, change, held.get(number), new))
                elif old.id != new.id:
                    replaced += 1
                elif new.node in change.drained and not service.mode.is_global:
                    staying.append(_stay(after, service_id, new))
            elif (without := _without(after, service, number, old)) is not None:
                (waiting if old is None else lost).append(without)
                pinned += old is not None and old.pinned and old.node in change.down
            elif old is not None and service.mode.is_global:
                ended += 1
    return Imagined(
        moves=tuple(moves),
        waiting=(*lost, *waiting),
        lost=len(lost),
        pinned=pinned,
        staying=tuple(staying),
        replaced=replaced,
        ended=ended,
        rooms=_rooms(after, change),
    )


def remedied(after: After, change: Imagining, waiting: Sequence[Planned]) -> list[Planned]:
    """The same, with what would make them fit in the cluster as it would be.

    That the change were not made is no way out.
    """
    asks = {
        (ask.service, ask.slot): ask for unplaced in after.unplaced.values() for ask in unplaced
    }
    without = {name(after.before, node) for node in (*change.down, *change.drained)}
    remedy = Remedying(after.snapshot, after.fleet, asks.values())
    told: list[Planned] = []
    for each in waiting:
        ask = asks.get((each.service, each.slot))
        ways = remedy.of(ask) if ask is not None else ()
        told.append(replace(each, remedies=tuple(way for way in ways if way.node not in without)))
    return told


def _at_home(snapshot: Snapshot, slot: Slot | None) -> Task | None:
    """The slot's task that runs or may come to run, as far as nodes are concerned."""
    for task in reversed(slot.wanted if slot is not None else []):
        status = snapshot.observed.status(task.id)
        has_ended = status is not None and status.state in TERMINAL
        if not has_ended and not nodes.is_down(snapshot, task):
            return task
    return None


def _move(after: After, change: Imagining, before: Slot | None, task: Task) -> Move:
    """`task` is new in the slot; where the slot's last one was, it comes from."""
    live = [*before.wanted, *before.stopping] if before is not None else []
    source = live[-1].node if live else None
    reason = task.reason
    if source is not None and source in (*change.down, *change.drained):
        how = "gone" if source in change.down else "drained"
        reason = f"node {name(after.snapshot, source)} would be {how}"
    return Move(
        service=task.service, slot=task.slot, source=source, target=task.node, reason=reason
    )


def _without(after: After, service: Service, number: int, old: Task | None) -> Planned | None:
    """A slot that is wanted and has no task that may run; None: it is not wanted."""
    waits = after.waiting.get(service.id, {}).get(number)
    refusals: Sequence[Refusal] = ()
    if waits is not None:
        reason = waits.reason
        refusals = waits.refusals
    elif old is None or service.mode.is_global or number not in replicas.wanted(service):
        return None
    elif not any(each.outcome is None for each in _tasks(after, old)):
        return None  # it has ended, and wants no other
    else:
        where = name(after.snapshot, old.node)
        reason = (
            f"its data is on {where}, and a pinned task does not move"
            if old.pinned
            else nodes.waits_for_its_node(after.snapshot, old) or f"it waits for node {where}"
        )
    return Planned(service=service.id, slot=number, node=None, reason=reason, refusals=refusals)


def _tasks(after: After, old: Task) -> list[Task]:
    return after.snapshot.stored.tasks_of_slot(old.service, old.slot)


def _stay(after: After, service: ServiceId, task: Task) -> Planned:
    """A task that the drain of its node does not move."""
    asks = [each for each in after.stays.get(service, ()) if each.slot == task.slot]
    refusals = _elsewhere(after, asks[0], task.node) if asks else ()
    if task.pinned:
        where = name(after.snapshot, task.node)
        reason = f"its data is on {where}, and a pinned task does not move"
    elif refusals:
        reason = f"no other node takes it: {words.summary(refusals)}"
    else:
        reason = "another task of its service is being moved, and goes nowhere"
    return Planned(
        service=service, slot=task.slot, node=task.node, reason=reason, refusals=refusals
    )


def _elsewhere(after: After, ask: Ask, node: NodeId) -> tuple[Refusal, ...]:
    """Why the other nodes do not take it."""
    return tuple(
        refusal
        for candidate in after.fleet.by_name()
        if candidate.id != node
        and (refusal := filters.first_refusal(after.fleet, ask, candidate)) is not None
    )


def _rooms(after: After, change: Imagining) -> tuple[Room, ...]:
    left = taken(after.fleet)
    return tuple(
        Room(
            node=each.id,
            cpu_millis=each.cpu_capacity,
            memory_bytes=each.memory_capacity,
            before=after.taken.get(each.id, Taken()),
            after=left[each.id],
        )
        for each in after.fleet.by_name()
        if each.id not in change.down
        and after.snapshot.observed.node(each.id).state is not NodeState.DOWN
    )
