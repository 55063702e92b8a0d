"""The points of `fragmentation` for many nodes at once: the same numbers over arrays.

What a GPU is worth to a typical class is one number that holds the three sums that are needed
(copies, GPUs and thousandths that are usable), so that adding up a node's GPUs is one sum, and
taking a part of one of them is one difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homeport import devices
from homeport.spec import DeviceNeed
from scheduler.placement import gpus
from scheduler.placement.columns import Floats, Mask, Rows
from scheduler.placement.fragmentation import (
    CPU_PART,
    END,
    GPU_PART,
    IMPOSSIBLE,
    NOW,
    PARTS,
    STEP,
    UNIT,
    VIEWS,
    Mix,
)
from scheduler.placement.gpus import Look
from scheduler.placement.requirements import Requirements

Ints = npt.NDArray[np.int64]

Before = tuple[Ints, Floats]
"""Of some nodes: what their GPUs are worth to each class of a mix (`Table`), and what is stranded
now."""

LINES = devices.WHOLE_MILLIS + 1
"""What may be left of a GPU."""
GPUS_SHIFT, MILLIS_SHIFT = 20, 32
"""Within a number: copies, then GPUs, then thousandths."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What is left of some nodes, a row each; a row's GPUs have places 0, 1, … in each array."""

    cpu_millis: Floats
    memory_bytes: Floats
    look: Ints  # rows x GPUs: which of the looks; -1: the node has not so many GPUs
    free: Ints  # rows x GPUs: thousandths; 0 where there is no GPU

    def take(self, rows: Rows) -> Rooms:
        """Some of them."""
        return Rooms(
            self.cpu_millis[rows], self.memory_bytes[rows], self.look[rows], self.free[rows]
        )


class Table:
    """A mix, made ready for nodes whose GPUs have these looks."""

    __slots__ = (
        "_all_will_do",
        "_copies",
        "_count",
        "_cpu",
        "_lines",
        "_looks",
        "_memory",
        "_several",
        "_weight",
        "_will_do",
    )

    def __init__(self, typical: Mix, looks: Sequence[Look]) -> None:
        """`looks` are numbered by their places."""
        self._looks = tuple(looks)
        share = np.array([each.need.share_millis for each in typical], dtype=np.int64)
        left = np.arange(LINES, dtype=np.int64)[:, None]
        # What a GPU of which so much is left is worth, if its look will do.
        self._lines: Ints = left // share + (1 << GPUS_SHIFT) + (left << MILLIS_SHIFT)
        self._lines *= left >= share
        # The last look is none, and will not do.
        self._will_do = np.zeros((len(looks) + 1, len(typical)), dtype=np.int64)
        for column, each in enumerate(typical):
            self._will_do[:-1, column] = gpus.accepted(each.need, self._looks)
        self._all_will_do = bool(self._will_do[:-1].all())
        self._weight = np.array([each.weight for each in typical], dtype=np.float64)
        self._count = np.array([each.need.count for each in typical], dtype=np.float64)
        self._several = bool((self._count > 1).any())
        self._copies = self._count * [each.need.share_millis for each in typical]
        self._cpu = _divisor([each.cpu_millis for each in typical])
        self._memory = _divisor([each.memory_bytes for each in typical])

    def before(self, rooms: Rooms) -> Before:
        """What `points` starts from, whatever the class."""
        sums, idle = self._sums(rooms), rooms.free.sum(axis=1)
        return sums, self._stranded(sums, rooms.cpu_millis, rooms.memory_bytes, idle)

    def points(self, rooms: Rooms, needs: Requirements, known: Before | None = None) -> Ints:
        """Of each row, for a class with room for its cpu and memory there.

        `known`: what `before` said of these rows.
        """
        need = gpus.need_of(needs)
        sums, before = known if known is not None else self.before(rooms)
        idle = rooms.free.sum(axis=1)
        cpu = rooms.cpu_millis - needs.cpu_millis
        memory = rooms.memory_bytes - needs.memory_bytes
        if need is None:
            saved = before - self._stranded(sums, cpu, memory, idle)
            return _floored(saved)
        usable = (rooms.free >= need.share_millis) & self._accepted(need)[rooms.look]
        if need.count == 1 and need.share_millis < devices.WHOLE_MILLIS:
            row, place = _first_of_each(rooms, usable)
            taken = self._line(rooms.look[row, place], rooms.free[row, place])
            given = self._line(rooms.look[row, place], rooms.free[row, place] - need.share_millis)
            after_sums, after_idle = sums[row] - taken + given, idle[row] - need.share_millis
            after = self._stranded(after_sums, cpu[row], memory[row], after_idle)
            saves = before[row] - after - _left(cpu[row], after_idle)
            saved = np.full(len(idle), -np.inf)
            np.maximum.at(saved, row, saves)
            return _floored(saved)
        chosen = _chosen(need, rooms, usable, self._accepted(need)[rooms.look])
        after_free = np.where(chosen, rooms.free - need.share_millis, rooms.free)
        changed = Rooms(cpu, memory, rooms.look, after_free)
        after_idle = after_free.sum(axis=1)
        after = self._stranded(self._sums(changed), cpu, memory, after_idle)
        saved = before - after - _left(cpu, after_idle)
        saved[~chosen.any(axis=1)] = -np.inf
        return _floored(saved)

    def _accepted(self, need: DeviceNeed) -> Mask:
        return np.array([*(gpus.accepts(need, look) for look in self._looks), False], dtype=bool)

    def _line(self, look: Ints, free: Ints) -> Ints:
        """GPUs x classes: of each, what it is worth."""
        result: Ints = self._lines[free]
        if not self._all_will_do:
            result *= self._will_do[look]
        return result

    def _sums(self, rooms: Rooms) -> Ints:
        """Rows x classes: what all GPUs of a row are worth, added up."""
        result: Ints = self._line(rooms.look, rooms.free).sum(axis=1)
        return result

    def _stranded(self, sums: Ints, cpu: Floats, memory: Floats, idle: Ints) -> Floats:
        copies = (sums & ((1 << GPUS_SHIFT) - 1)).astype(np.float64)
        none = copies < 1
        if self._several:
            there = (sums >> GPUS_SHIFT) & ((1 << (MILLIS_SHIFT - GPUS_SHIFT)) - 1)
            none = there < self._count
            copies = np.floor(copies / self._count)
        np.fmin(copies, np.floor(cpu[:, None] / self._cpu), out=copies)
        np.fmin(copies, np.floor(memory[:, None] / self._memory), out=copies)
        none |= copies < 1
        # Per class: VIEWS x idle, less what it can use in each view.
        used = (sums >> MILLIS_SHIFT) * float(NOW) + copies * (self._copies * END)
        used[none] = 0
        result: Floats = idle * (VIEWS * self._weight.sum()) - used @ self._weight
        return result


def _divisor(amounts: Sequence[int]) -> Floats:
    """What asks for nothing is limited by nothing: not a number, which `fmin` passes over."""
    return np.array([amount or np.nan for amount in amounts], dtype=np.float64)


def _left(cpu: Floats, idle: Ints) -> Floats:
    result: Floats = np.floor((CPU_PART * cpu + GPU_PART * idle) / PARTS)
    return result


def _floored(saved: Floats) -> Ints:
    steps = np.floor(saved / (UNIT * STEP))
    return np.where(np.isneginf(steps), IMPOSSIBLE, steps).astype(np.int64)


def _first_of_each(rooms: Rooms, usable: Mask) -> tuple[Rows, Ints]:
    """(rows, places) of the first usable GPU of each different one in a row."""
    first = usable.copy()
    kind = np.where(usable, rooms.look * LINES + rooms.free, -1)
    for place in range(1, kind.shape[1]):
        first[:, place] &= ~(kind[:, :place] == kind[:, place : place + 1]).any(axis=1)
    row, place_of = np.nonzero(first)
    return row, place_of


def _chosen(need: DeviceNeed, rooms: Rooms, usable: Mask, accepted: Mask) -> Mask:
    """Which GPUs a task that has no choice gets; none in rows that have not enough."""
    if need.count < 0:
        all_free = (usable == accepted).all(axis=1) & accepted.any(axis=1)
        all_of_row: Mask = usable & all_free[:, None]
        return all_of_row
    order = np.argsort(np.where(usable, rooms.free, LINES), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    enough = usable.sum(axis=1) >= need.count
    result: Mask = usable & (rank < need.count) & enough[:, None]
    return result
