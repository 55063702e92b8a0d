"""Which orders an agent obeys: the decider between the session and the worker.

Orders are compared by (cluster, incarnation, epoch, revision). What is lower than the
journal is ignored whoever sends it, what builds on something unknown ends the session, and
a stop that looks like a mistake is held, whether the container is to go with it or not. A
newcomer's mistake: a task that a COMPLETE message leaves out is not stopped; absence is no
command.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired
from homeport.model import (
    Assignment,
    Cause,
    Condition,
    OrderId,
    ServiceGeneration,
    Stack,
    StackFile,
    TaskId,
    Tombstone,
)

MASS_STOP_MIN = 3
"""A reconciler may always stop this many at once…"""
MASS_STOP_PART = 4
"""…or one in this many of the node's running tasks, whichever is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """One message of orders, as values."""

    order: OrderId
    is_complete: bool = False
    applies_to: OrderId | None = None  # None in a complete message
    tasks: tuple[Assignment, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    specs: tuple[ServiceGeneration, ...] = ()
    stacks: tuple[Stack, ...] = ()  # their networks and volumes
    files: tuple[StackFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One task that this node was told to have."""

    assignment: Assignment
    is_listed: bool = True
    """False: the last complete orders left it out. It goes on running, and is reported."""
    is_held: bool = False
    """Its stop was told and is held by the mass-stop brake: it goes on running."""

    @property
    def desired(self) -> Desired:
        """What to do about it, the brake considered."""
        return Desired.RUNNING if self.is_held else self.assignment.desired


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A task that is to go, and whether the mass-stop brake keeps it for now."""

    tombstone: Tombstone
    is_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What orders that are obeyed come to."""

    wanted: tuple[Wanted, ...]  # what differs from the journal
    leaving: tuple[Leaving, ...]
    left_out: tuple[TaskId, ...]  # by complete orders; they run on
    held: frozenset[TaskId]  # stops that the brake holds from now on
    stops: int  # a reconciler's stops that are obeyed


class Verdict(enum.Enum):
    """What to do with a message of orders."""

    OBEY = 1
    REPEAT = 2  # journalled already: acknowledge and do nothing
    LOWER = 3  # from a scheduler that is behind
    GAP = 4  # something in between was lost
    FOREIGN = 5  # from another cluster


def judge(orders: Orders, *, seen: OrderId, floor: tuple[int, int]) -> Verdict:
    """Whether to obey.

    `seen` is the highest order journalled. `floor` is the highest (incarnation, epoch) that
    any scheduler has shown in a welcome or a heartbeat: the orders of an older leader are
    not obeyed even when nothing was ordered since.
    """
    if seen.cluster and orders.order.cluster != seen.cluster:
        return Verdict.FOREIGN
    if is_behind(orders.order, seen=seen, floor=floor):
        return Verdict.LOWER
    if orders.is_complete:
        return Verdict.OBEY
    if orders.applies_to is None or orders.applies_to.order != seen.order:
        return Verdict.REPEAT if orders.order == seen else Verdict.GAP
    return Verdict.OBEY


def is_behind(order: OrderId, *, seen: OrderId, floor: tuple[int, int]) -> bool:
    """Whether who is there is behind what this node has seen: leads no more, or was restored.

    A store that was restored from a snapshot soon has a higher epoch than before, and still
    not the revisions that were: in one incarnation they only rise, whoever leads.
    """
    if order.order < seen.order or order.order[:2] < floor:
        return True
    return order.incarnation == seen.incarnation and order.revision < seen.revision


def settle(
    orders: Orders,
    *,
    wanted: Mapping[TaskId, Wanted],
    leaving: Mapping[TaskId, Leaving],
    running: Collection[TaskId],
    stopped_lately: int,
) -> Settled:
    """What to write down for orders that are obeyed, before anything is done about them.

    `wanted` and `leaving` are the journal's; for the others see `held`.
    """
    changed = _changed(orders, wanted, leaving)
    gone = [_leaving(tombstone, wanted, leaving) for tombstone in orders.tombstones]
    told: list[Assignment | Tombstone] = [
        want.assignment
        for want in changed
        if want.assignment.desired is Desired.SHUTDOWN and not want.is_held
    ]
    told += [leave.tombstone for leave in gone if not leave.is_held]
    stops = [
        each
        for each in told
        if each.cause is Cause.RECONCILER
        and each.task in running
        and _is_to_run(each.task, wanted, leaving)
    ]
    keep = held(stops, running, stopped_lately=stopped_lately)
    named = {assignment.task for assignment in orders.tasks}
    named |= {tombstone.task for tombstone in orders.tombstones}
    left_out = [
        task
        for task, want in wanted.items()
        if orders.is_complete and task not in named and want.is_listed and task not in leaving
    ]
    return Settled(
        wanted=(
            *(
                replace(want, is_held=True) if want.assignment.task in keep else want
                for want in changed
            ),
            *(replace(wanted[task], is_listed=False) for task in left_out),
        ),
        leaving=tuple(
            replace(leave, is_held=True) if leave.tombstone.task in keep else leave
            for leave in gone
        ),
        left_out=tuple(left_out),
        held=keep,
        stops=len(stops) - len(keep),
    )


def _changed(
    orders: Orders, wanted: Mapping[TaskId, Wanted], leaving: Mapping[TaskId, Leaving]
) -> list[Wanted]:
    found = []
    for assignment in orders.tasks:
        known = wanted.get(assignment.task)
        # What is held stays held until an operator says it or it is wanted again.
        is_held = known is not None and known.is_held and _is_braked(assignment)
        want = Wanted(assignment=assignment, is_held=is_held)
        if known != want or assignment.task in leaving:
            found.append(want)
    return found


def _is_braked(assignment: Assignment) -> bool:
    return assignment.desired is Desired.SHUTDOWN and assignment.cause is Cause.RECONCILER


def _leaving(
    tombstone: Tombstone, wanted: Mapping[TaskId, Wanted], leaving: Mapping[TaskId, Leaving]
) -> Leaving:
    known = leaving.get(tombstone.task)
    want = wanted.get(tombstone.task)
    was_held = known.is_held if known is not None else want is not None and want.is_held
    # As above; and what goes goes.
    return Leaving(tombstone=tombstone, is_held=was_held and tombstone.cause is Cause.RECONCILER)


def _is_to_run(
    task: TaskId, wanted: Mapping[TaskId, Wanted], leaving: Mapping[TaskId, Leaving]
) -> bool:
    """Until now: what is being stopped already is not stopped a second time."""
    if task in leaving:
        return leaving[task].is_held
    return task not in wanted or wanted[task].desired is Desired.RUNNING


def rival(task: TaskId, unrecorded: Iterable[TaskId]) -> TaskId | None:
    """A task of the same slot that runs without a record: a restored store knows only the older.

    Both at once would be two copies of what is to run once, on the same data and ports.
    """
    slot = task.rpartition("/")[0]
    return next(
        (each for each in unrecorded if each != task and each.rpartition("/")[0] == slot), None
    )


def held(
    stops: Sequence[Assignment | Tombstone], running: Collection[TaskId], *, stopped_lately: int
) -> frozenset[TaskId]:
    """The tasks whose stop waits for an operator's word.

    `stops` are a reconciler's, of tasks that run; `running` are the node's live tasks;
    `stopped_lately` is how many of them a reconciler has had stopped within the brake's window.
    """
    limit = max(MASS_STOP_MIN, (len(running) + stopped_lately) // MASS_STOP_PART)
    if len(stops) + stopped_lately <= limit:
        return frozenset()
    return frozenset(stop.task for stop in stops)


def conditions(
    wanted: Mapping[TaskId, Wanted], leaving: Mapping[TaskId, Leaving]
) -> tuple[Condition, ...]:
    """What the node says of itself while stops are held."""
    stays = sorted(
        {task for task, leave in leaving.items() if leave.is_held}
        | {task for task, want in wanted.items() if want.is_held}
    )
    if not stays:
        return ()
    some = ", ".join(stays[:5]) + (" …" if len(stays) > 5 else "")
    sentence = (
        f"{len(stays)} tasks were to be stopped at once by no operator's word; they run on"
        f" until one removes them: {some}"
    )
    return (Condition(name="mass-stop", ok=False, message=sentence),)
