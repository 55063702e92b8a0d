"""Whether a node's clock runs as fast as ours: what its lease is worth.

A lease counts on the agent's own clock from when it sent its heartbeat, and here a node is
DOWN by our clock; the two may differ by one percent. How long messages are on their way is
not known, so offsets are compared over time: of ten heartbeats in a row the fastest says
most. A newcomer's mistake: taking one jump for a rate. A route that became slower shifts
the offset once; a wrong clock shifts it in every stretch of time, always the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

RATE_MAX = 0.01
STRETCH_SECONDS = 15.0
STRETCHES = 2
"""So many stretches in a row say the same before it is believed."""
BEATS = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """The fastest of some heartbeats in a row."""

    at: float  # our boot time when it came
    offset: float  # our boot time less the agent's, in seconds


@dataclass(slots=True)
class Pacing:
    """The heartbeats of one session's machine. Kept by the shell for each node."""

    boot_id: str = ""
    beats: int = 0
    best: Mark | None = None
    marks: list[Mark] = field(default_factory=list)


def heard(pacing: Pacing, boot_id: str, sent: float, now: float) -> bool:
    """Take in a heartbeat sent at `sent` by the agent's boot time. Whether there is a new mark."""
    if pacing.boot_id != boot_id:
        pacing.boot_id, pacing.beats, pacing.best, pacing.marks = boot_id, 0, None, []
    offset = now - sent
    if pacing.best is None or offset < pacing.best.offset:
        pacing.best = Mark(now, offset)
    pacing.beats += 1
    if pacing.beats < BEATS:
        return False
    mark, pacing.best, pacing.beats = pacing.best, None, 0
    if pacing.marks and mark.at - pacing.marks[-1].at < STRETCH_SECONDS:
        return False
    pacing.marks = [*pacing.marks[-STRETCHES:], mark]
    return True


def rate(pacing: Pacing) -> float | None:
    """By how much the agent's clock runs slower than ours (0.02: by two percent; below 0:
    faster); None: not known yet. The smallest of the last stretches, 0 where they disagree."""
    marks = pacing.marks
    if len(marks) <= STRETCHES:
        return None
    rates = [
        (later.offset - earlier.offset) / (later.at - earlier.at)
        for earlier, later in pairwise(marks)
    ]
    if min(rates) > 0:
        return min(rates)
    if max(rates) < 0:
        return max(rates)
    return 0.0


def objection(found: float | None) -> str:
    """Why a node whose clock runs so gets no exclusive task, as a sentence; empty: it may."""
    if found is None or abs(found) <= RATE_MAX:
        return ""
    how = "slower" if found > 0 else "faster"
    return (
        f"its clock runs {abs(found):.1%} {how} than the leader's, and a lease on it cannot be"
        " relied upon"
    )
