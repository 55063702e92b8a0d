"""Which node is best? Points by named parts; the sum decides, the highest wins.

Parts are ranked: each has a range of its own in one integer, so that a lower part only
decides between nodes which are equal in all higher ones. From the most important: spread
preferences, in their order; then few tasks of the same service; then room. Wishes with a
weight are traded against tasks of the same service: ten points of weight are worth one task.
So are stranded GPUs. Packing turns the lower parts round. Fixed-point integers below 2**62: an
engine over arrays must come to the same sums. Ties go to the lowest node name.
"""

from __future__ import annotations

from homeport.spec import Strategy
from scheduler.placement import filters, fragmentation, granting, groups, taints
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.placement.points import (
    AVOID,
    COUNT_MAX,
    FRAGMENT,
    FULLNESS,
    SERVICE_SHIFT,
    TASK_COST,
    WISH,
    few,
    room,
)

PREFERENCE_SHIFTS = (50, 40)
"""Of the first and second spread preference; further ones are not scored."""

__all__ = ["COUNT_MAX", "PREFERENCE_SHIFTS", "SERVICE_SHIFT", "parts", "total"]

Parts = tuple[tuple[str, int], ...]


def parts(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    """Each part's points, the most important first."""
    return (
        *preferences(fleet, ask, node),
        *wishes(fleet, ask, node),
        *_fragmentation(fleet, ask, node),
        *_packing(fleet, ask, node),
    )


def packs(fleet: Fleet, ask: Ask) -> bool:
    """Whether full nodes are better than empty ones."""
    return (ask.needs.strategy or fleet.strategy) is Strategy.BINPACK


def wishes(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    """What the user would like, by weight: what the node is, and what is near it."""
    liked = sum(
        each.weight for each in ask.needs.preferences if filters.holds(each.constraint, node.facts)
    )
    avoided = taints.avoided(node.taints, ask.needs.tolerations)
    groups_said = groups.wishes(fleet, ask, node, lambda key: filters.domains(fleet, ask, key))
    said = (
        ("preferences", liked * WISH),
        ("avoided", -avoided * AVOID * WISH),
        ("groups", groups_said),
    )
    return tuple(part for part in said if part[1])


def _fragmentation(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    if not node.gpus:
        return ()
    steps, _ = fragmentation.best(fleet.census.mix(), granting.room_of(node), ask.needs)
    return (("fragmentation", steps * FRAGMENT),)


def _packing(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    free, tasks = room(ask.needs, node), few(node.tasks) * TASK_COST
    if packs(fleet, ask):
        return (("packed", FULLNESS - free - tasks),)
    same = few(fleet.nodes_of(ask.service).get(node.id, 0)) << SERVICE_SHIFT
    return (("same-service", same), ("room", free), ("tasks", tasks))


def total(fleet: Fleet, ask: Ask, node: Candidate) -> int:
    """The sum of all parts."""
    return sum(points for _, points in parts(fleet, ask, node))


def preferences(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    """Fewer tasks of the service on nodes with the same value of the label are better.

    Nodes without the label count as one value more, as in Swarm.
    """
    return tuple(
        (f"spread:{key}", few(_sharing(fleet, ask, node.facts.get(key), key)) << shift)
        for key, shift in zip(ask.needs.spread, PREFERENCE_SHIFTS, strict=False)
    )


def _sharing(fleet: Fleet, ask: Ask, value: str | None, key: str) -> int:
    """How many tasks of the service are on nodes with this value of the label."""
    return sum(
        count
        for node, count in fleet.nodes_of(ask.service).items()
        if (candidate := fleet.candidates.get(node)) is not None
        and candidate.facts.get(key) == value
    )
