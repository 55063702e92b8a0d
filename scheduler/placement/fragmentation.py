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


class Census:
    """How many GPU tasks of each kind there are, and what is typical of them."""

    def __init__(self) -> None:
        """None."""
        self._kinds: dict[tuple[int, int, DeviceNeed], int] = {}  # kind -> its number
        self._of_class: dict[str, int] = {}  # class -> the number of its kind; -1: of none
        self._counts: dict[int, int] = {}
        self._total = 0
        self._weights: dict[int, int] = {}  # those of `_mix`
        self._mix: Mix = ()
        self._changed = False

    def count(self, needs: Requirements, times: int) -> None:
        """So many tasks of a class more, or fewer; those of no typical size do not count."""
        number = self._of_class.get(needs.text)
        if number is None:
            number = self._of_class[needs.text] = self._number(needs)
        if number < 0:
            return
        left = self._counts.get(number, 0) + times
        if left:
            self._counts[number] = left
        else:
            del self._counts[number]
        self._total += times
        self._changed = True

    def mix(self) -> Mix:
        """The typical kinds, the most frequent first: the same value while weights are the same."""
        if self._changed:
            self._changed = False
            parts, whole = 2 * SHARES, 2 * self._total
            weights = {
                number: weight
                for number, count in self._counts.items()
                if (weight := (parts * count + self._total) // whole)
            }
            if weights != self._weights:
                self._weights = weights
                kinds = list(self._kinds)
                found = (Typical(*kinds[number], weight) for number, weight in weights.items())
                self._mix = tuple(sorted(found, key=lambda each: (-each.weight, repr(each))))
        return self._mix

    def copy(self) -> Census:
        """The same, to try things on."""
        other = Census()
        other._kinds, other._of_class = dict(self._kinds), dict(self._of_class)
        other._counts, other._total = dict(self._counts), self._total
        other._weights, other._mix, other._changed = self._weights, self._mix, self._changed
        return other

    def _number(self, needs: Requirements) -> int:
        need = gpus.need_of(needs)
        if need is None or need.count < 0:
            return -1
        # Milli-cpu, bytes of memory, and GPUs: what else a class needs does not matter here.
        kind = (needs.cpu_millis, needs.memory_bytes, need)
        return self._kinds.setdefault(kind, len(self._kinds))


def stranded(typical: Mix, room: Room) -> int:
    """The stranded GPU of a node, in UNITths of a milli-GPU."""
    return sum(each.weight * _stranded(each, room) for each in typical)


def _stranded(typical: Typical, room: Room) -> int:
    need, idle = typical.need, sum(room.free)
    usable = [
        free
        for free, will_do in zip(room.free, gpus.accepted(need, room.looks), strict=True)
        if will_do and free >= need.share_millis
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
