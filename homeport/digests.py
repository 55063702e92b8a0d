"""Two hashes by which scheduler and agent notice that they believe different things.

Each side keeps them over what it holds and the agent's travel in every heartbeat; a
difference asks for the full list. A hash is the sum of its lines' own digests, so that one
task that comes, goes or changes costs the same whatever else the node has. A newcomer's
mistake: adding a field to a line changes the hash on one side of a rolling upgrade and makes
every node resend everything at each heartbeat; lines and sum are part of the wire contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from homeport.lifecycle import Desired
from homeport.model import Assignment, TaskId, TaskStatus

__all__ = ["Sum", "running_hash", "running_line", "wanted_hash", "wanted_line"]

_BYTES = 16
_MODULUS = 1 << (8 * _BYTES)


class Sum:
    """The hash of a set of lines, in any order: their digests added up, modulo 2^128.

    Nobody who chooses lines to make two sets collide is held off by a sum of this size, and
    nobody needs to be: it finds what was lost, not who lies. A line that is added twice counts
    twice; whoever keeps a sum removes a task's old line before adding the new one.
    """

    __slots__ = ("_sum",)

    def __init__(self) -> None:
        """Of no lines."""
        self._sum = 0

    def add(self, line: str) -> None:
        """This line is one of them now."""
        self._sum = (self._sum + _number(line)) % _MODULUS

    def remove(self, line: str) -> None:
        """This line, which was added before, is none of them any more."""
        self._sum = (self._sum - _number(line)) % _MODULUS

    @property
    def digest(self) -> bytes:
        """16 bytes; zeros for no lines."""
        return self._sum.to_bytes(_BYTES, "big")


def wanted_line(task: TaskId, generation: int, desired: Desired) -> str:
    """What of an order is compared: which task, of which generation, to which end."""
    return f"{task}|{generation}|{desired.value}"


def running_line(status: TaskStatus) -> str:
    """What of a status is compared: attempt, state and health.

    Usage, messages and times are left out: they differ without meaning a lost report.
    """
    return f"{status.task}|{status.attempt}|{status.state.value}|{status.health.value}"


def wanted_hash(assignments: Iterable[Assignment]) -> bytes:
    """What is wanted of a node; the order does not matter.

    Tasks that have a tombstone are not wanted, so neither side counts them.
    """
    return _of(wanted_line(each.task, each.generation, each.desired) for each in assignments)


def running_hash(statuses: Iterable[TaskStatus]) -> bytes:
    """What a node says of its tasks; the order does not matter."""
    return _of(running_line(status) for status in statuses)


def _of(lines: Iterable[str]) -> bytes:
    total = Sum()
    for line in lines:
        total.add(line)
    return total.digest


def _number(line: str) -> int:
    return int.from_bytes(blake2b(line.encode(), digest_size=_BYTES).digest(), "big")
