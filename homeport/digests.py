"""Two hashes by which scheduler and agent notice that they believe different things.

Each side computes them from what it holds and the agent's travel in every heartbeat; a
difference asks for the full list. A newcomer's mistake: adding a field to a line changes
the hash on one side of a rolling upgrade and makes every node resend everything at each
heartbeat; these lines are part of the wire contract.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from homeport.model import Assignment, TaskStatus

__all__ = ["running_hash", "wanted_hash"]


def wanted_hash(assignments: Iterable[Assignment]) -> bytes:
    """What is wanted of a node: which tasks, of which generation, to which end.

    The order of the assignments does not matter. Tasks that have a tombstone are not
    wanted, so neither side counts them.
    """
    return _digest(
        f"{assignment.task}|{assignment.generation}|{assignment.desired.value}"
        for assignment in assignments
    )


def running_hash(statuses: Iterable[TaskStatus]) -> bytes:
    """What a node says of its tasks: attempt, state and health of each, in any order.

    Usage, messages and times are left out: they differ without meaning a lost report.
    """
    return _digest(
        f"{status.task}|{status.attempt}|{status.state.value}|{status.health.value}"
        for status in statuses
    )


def _digest(lines: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).digest()
