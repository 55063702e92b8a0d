"""How much of a node's idle GPU is stranded: no use to the tasks that usually come.

What usually comes is judged by the GPU tasks that the fleet holds (`Census`): no forecast, and the
same for whoever looks at the same fleet. For each typical class there are two views of a node.
*Now*: what no task of the class could take of it at once. *In the end*: what is left idle when
as many tasks of the class came as cpu, memory and GPUs allow. The first alone is the measure of
Weng et al., "Beware of Fragmentation" (USENIX ATC 2023); the second sees early that a node runs
out of cpu or memory before its GPUs. A placement's points are the stranded milli-GPUs that it
saves, less a little for what it leaves free: full nodes first.

All integers. What is here looks at one node and is the reference; `stranding` gives the same
numbers for many nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeport.spec import DeviceNeed
from scheduler.placement import gpus
from scheduler.placement.gpus import Option, Room
from scheduler.placement.requirements import Requirements

SHARES = 64
"""Weights of typical classes are in so many parts of all; what is less than half of one is rare."""
NOW, END = 7, 1
"""Weights of the two views of a node."""
VIEWS = NOW + END
UNIT = VIEWS * SHARES
"""Stranded GPU is counted in so many parts of a thousandth."""
CPU_PART, GPU_PART, PARTS = 1, 16, 25
"""What is left free costs so many UNITths for each milli-cpu and each milli-GPU, over PARTS."""
STEP = 8
"""Points are worth so many stranded milli-GPUs; smaller differences are ties."""
IMPOSSIBLE = -(1 << 40)
"""Points of a node that has not enough GPU left."""


@dataclass(frozen=True, slots=True)
class Typical:
    """A class of tasks that usually come."""

    cpu_millis: int
    memory_bytes: int
    need: DeviceNeed
    weight: int


Mix = tuple[Typical, ...]


Kind = tuple[int, int, DeviceNeed]
"""Of a GPU task: milli-cpu, bytes of memory, and its GPUs. What else it needs does not matter."""


class Census:
    """How many GPU tasks of each kind there are, and what is typical of them."""

    def __init__(self) -> None:
        """None."""
        self._counts: dict[Kind, int] = {}
        self._total = 0
        self._mix: Mix | None = ()  # None: not looked at since the last count
        self._known: Mix = ()
        self._weights: dict[Kind, int] = {}

    def count(self, needs: Requirements, times: int) -> None:
        """So many tasks of a class more, or fewer; those of no typical size do not count."""
        need = gpus.need_of(needs)
        if need is None or need.count < 0:
            return
        kind = (needs.cpu_millis, needs.memory_bytes, need)
        left = self._counts.get(kind, 0) + times
        if left:
            self._counts[kind] = left
        else:
            del self._counts[kind]
        self._total += times
        self._mix = None

    def mix(self) -> Mix:
        """The typical kinds, the most frequent first: the same value while weights are the same."""
        if self._mix is None:
            weights, total = {}, self._total
            for kind, count in self._counts.items():
                if weight := (2 * SHARES * count + total) // (2 * total):
                    weights[kind] = weight
            if weights != self._weights:
                self._weights = weights
                found = (Typical(*kind, weight) for kind, weight in weights.items())
                self._known = tuple(sorted(found, key=lambda each: (-each.weight, repr(each))))
            self._mix = self._known
        return self._mix

    def copy(self) -> Census:
        """The same, to try things on."""
        other = Census()
        other._counts = dict(self._counts)
        other._total = self._total
        other._mix, other._known, other._weights = self._mix, self._known, self._weights
        return other


def stranded(typical: Mix, room: Room) -> int:
    """The stranded GPU of a node, in UNITths of a milli-GPU."""
    return sum(each.weight * _stranded(each, room) for each in typical)


def _stranded(typical: Typical, room: Room) -> int:
    need, idle = typical.need, sum(room.free)
    usable = [
        free
        for free, look in zip(room.free, room.looks, strict=True)
        if free >= need.share_millis and gpus.accepts(need, look)
    ]
    copies = sum(free // need.share_millis for free in usable) // need.count
    if typical.cpu_millis:
        copies = min(copies, room.cpu_millis // typical.cpu_millis)
    if typical.memory_bytes:
        copies = min(copies, room.memory_bytes // typical.memory_bytes)
    if copies <= 0 or len(usable) < need.count:
        return VIEWS * idle
    now = idle - sum(usable)
    end = idle - copies * need.count * need.share_millis
    return NOW * now + END * end


def best(typical: Mix, room: Room, needs: Requirements) -> tuple[int, Option]:
    """The points of a node for a class, and which of its GPUs give them."""
    need = gpus.need_of(needs)
    before = stranded(typical, room)
    if need is None:
        return (before - stranded(typical, room.without(needs, (), 0))) // (UNIT * STEP), ()
    saved: int | None = None
    chosen: Option = ()
    for option in gpus.options(need, room):
        after = room.without(needs, option, need.share_millis)
        left = (CPU_PART * after.cpu_millis + GPU_PART * sum(after.free)) // PARTS
        saves = before - stranded(typical, after) - left
        if saved is None or saves > saved:
            saved, chosen = saves, option
    return (IMPOSSIBLE if saved is None else saved // (UNIT * STEP)), chosen
