"""The arithmetic of scores: what a free share, a count or a wish is worth.

All of it comes out the same over Python's numbers and over arrays of float64: divisions are
the IEEE quotient of two integers below 2**53, rounded down.
"""

from __future__ import annotations

from scheduler.placement.candidates import Candidate
from scheduler.placement.requirements import Requirements

COUNT_MAX = 1023
"""Counts beyond it weigh the same."""
SERVICE_SHIFT = 26
WISH = (1 << SERVICE_SHIFT) // 10
"""What one point of a weight is worth: ten of them are one task of the service fewer."""
FRAGMENT = 1 << 20
"""What a step of `fragmentation` is worth: a whole GPU is as bad to strand as one or two tasks of
the service are to join."""
AVOID = 100
"""The weight of a taint that says AVOID."""
ROOM_UNIT = 1 << 20
"""The points of a node of which nothing is reserved."""
TASK_COST = ROOM_UNIT // 64
"""A task takes at least this much room: most tasks at home reserve nothing."""


FULLNESS = ROOM_UNIT + COUNT_MAX * TASK_COST
"""The points of room and of few tasks together on an empty node; packing counts down from it."""


def few(count: int) -> int:
    """Points for a count that should be low."""
    return COUNT_MAX - min(count, COUNT_MAX)


def room(needs: Requirements, node: Candidate) -> int:
    """The free shares of cpu and memory once the task is there, as a mean."""
    return (
        _free(node.cpu_capacity, node.cpu_reserved + needs.cpu_millis)
        + _free(node.memory_capacity, node.memory_reserved + needs.memory_bytes)
    ) // 2


def _free(capacity: int, reserved: int) -> int:
    if capacity <= 0 or reserved >= capacity:
        return 0
    return int((capacity - reserved) * ROOM_UNIT / capacity)
