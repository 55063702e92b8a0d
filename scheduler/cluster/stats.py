"""What the control loop counts of itself, as plain numbers that somebody else may read.

The controller is the one writer and knows nothing of Prometheus; `http.views` turns the
numbers into metrics when somebody scrapes. They begin at nothing with each term of
leadership, which Prometheus takes for the restart of a counter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets of durations; what took longer is in one more."""

PLACED = "placed"
UNSCHEDULABLE = "unschedulable"  # no node takes it now
ERROR = "error"  # decided, but not written; or not even decided
RESULTS = (PLACED, UNSCHEDULABLE, ERROR)

SILENT = "silent"  # its node is suspected, down or lost
REBALANCE = "rebalance"  # an operator had it moved to a better node
AUTOMATIC = "automatic"  # the scheduler had
MOVES = (SILENT, REBALANCE, AUTOMATIC)


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        """Nothing took any time yet."""
        self.buckets = [0] * (len(BOUNDS_SECONDS) + 1)  # each counts its own, not those below
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Something took so long."""
        self.buckets[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)


class Stats:
    """One term's counts."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.attempts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.moves: Counter[str] = Counter(dict.fromkeys(MOVES, 0))  # that were begun
        self.preempted = 0  # tasks that were ended to make room for others
        self.scheduling = Durations()
        self.reconciling = Durations()
