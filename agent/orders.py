"""Which orders an agent obeys: the decider between the session and the worker.

Orders are compared by (cluster, incarnation, epoch, revision). What is lower than the
journal is ignored whoever sends it, what builds on something unknown ends the session, and
a removal that looks like a mistake is held. A newcomer's mistake: a task that a COMPLETE
message leaves out is not stopped; absence is no command.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from homeport.model import (
    Assignment,
    Cause,
    OrderId,
    ServiceGeneration,
    Stack,
    StackFile,
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
    if orders.order.order < seen.order or orders.order.order[:2] < floor:
        return Verdict.LOWER
    if orders.is_complete:
        return Verdict.OBEY
    if orders.applies_to is None or orders.applies_to.order != seen.order:
        return Verdict.REPEAT if orders.order == seen else Verdict.GAP
    return Verdict.OBEY


def held(
    tombstones: Collection[Tombstone], running: Collection[str], *, stopped_lately: int
) -> frozenset[str]:
    """The tasks whose removal waits for an operator's word.

    `running` are the node's live tasks; `stopped_lately` is how many of them a reconciler
    has had stopped within the brake's window.
    """
    stops = [
        tombstone.task
        for tombstone in tombstones
        if tombstone.cause is Cause.RECONCILER and tombstone.task in running
    ]
    limit = max(MASS_STOP_MIN, (len(running) + stopped_lately) // MASS_STOP_PART)
    if len(stops) + stopped_lately <= limit:
        return frozenset()
    return frozenset(stops)
