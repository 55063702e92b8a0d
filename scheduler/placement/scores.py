"""Which node is best? Points by named parts; the sum decides, the highest wins.

The parts are ranked: each has a range of its own in one integer, so that a lower part
only decides between nodes which are equal in all higher ones. From the most important:
what the user wishes (spread preferences, in their order), then few tasks of the same
service, then room. Fixed-point integers below 2**62: an engine over arrays must come to
the same sums. Ties go to the lowest node name.
"""

from __future__ import annotations

from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet

COUNT_MAX = 1023
"""Counts beyond it weigh the same."""
PREFERENCE_SHIFTS = (46, 36)
"""Of the first and second spread preference; further ones are not scored."""
SERVICE_SHIFT = 26
ROOM_UNIT = 1 << 20
"""The points of a node of which nothing is reserved."""
TASK_COST = ROOM_UNIT // 64
"""A task takes at least this much room: most tasks at home reserve nothing."""

Parts = tuple[tuple[str, int], ...]


def parts(fleet: Fleet, ask: Ask, node: Candidate) -> Parts:
    """Each part's points, the most important first."""
    return (
        *preferences(fleet, ask, node),
        ("same-service", few(node.count(ask.service)) << SERVICE_SHIFT),
        ("room", room(ask, node)),
        ("tasks", few(node.tasks) * TASK_COST),
    )


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


def room(ask: Ask, node: Candidate) -> int:
    """The free shares of cpu and memory once the task is there, as a mean."""
    return (
        _free(node.cpu_capacity, node.cpu_reserved + ask.needs.cpu_millis)
        + _free(node.memory_capacity, node.memory_reserved + ask.needs.memory_bytes)
    ) // 2


def few(count: int) -> int:
    """Points for a count that should be low."""
    return COUNT_MAX - min(count, COUNT_MAX)


def _free(capacity: int, reserved: int) -> int:
    if capacity <= 0:
        return 0
    return max(0, capacity - reserved) * ROOM_UNIT // capacity


def _sharing(fleet: Fleet, ask: Ask, value: str | None, key: str) -> int:
    """How many tasks of the service are on nodes with this value of the label."""
    return sum(
        count
        for node, count in fleet.nodes_of(ask.service).items()
        if (candidate := fleet.candidates.get(node)) is not None
        and candidate.facts.get(key) == value
    )
