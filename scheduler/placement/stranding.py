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
from scheduler.placement import gpus, granting
from scheduler.placement.columns import Columns, Floats, Mask, Rows
from scheduler.placement.fleet import Fleet
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
from scheduler.placement.gpus import Look, Room
from scheduler.placement.requirements import Requirements

Ints = npt.NDArray[np.int64]

LINES = devices.WHOLE_MILLIS + 1
"""What may be left of a GPU."""
FEW = 16
"""So many rows are computed without asking which of them are equal."""
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

    def points(self, rooms: Rooms, needs: Requirements) -> Ints:
        """Of each row, for a class with room for its cpu and memory there."""
        need = gpus.need_of(needs)
        sums = self._sums(rooms)
        idle = rooms.free.sum(axis=1)
        before = self._stranded(sums, rooms.cpu_millis, rooms.memory_bytes, idle)
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


class Board:
    """The nodes of a fleet that have GPUs, as arrays that follow its columns."""

    __slots__ = ("_looks", "_place", "_rooms", "_rows", "_seen", "_state", "_states", "_table")

    def __init__(self, columns: Columns) -> None:
        """As the candidates are now."""
        having = [candidate.row for candidate in columns.rows if candidate.gpus]
        self._rows: Rows = np.array(having, dtype=np.intp)
        self._place: Rows = np.full(len(columns.rows), -1, dtype=np.intp)
        self._place[self._rows] = np.arange(len(having))
        nodes = [columns.rows[row] for row in having]
        looks = sorted({(gpu.vendor, gpu.model) for node in nodes for gpu in node.gpus})
        self._looks = tuple(looks)
        most = max((len(node.gpus) for node in nodes), default=0)
        look = np.full((len(nodes), most), -1, dtype=np.int64)
        for place, node in enumerate(nodes):
            numbers = [looks.index((gpu.vendor, gpu.model)) for gpu in node.gpus]
            look[place, : len(numbers)] = numbers
        self._rooms = Rooms(np.zeros(len(nodes)), np.zeros(len(nodes)), look, np.zeros_like(look))
        # Nodes of which the same is left have the same points: each such state has a number.
        self._states: dict[Room, int] = {}
        self._state: Rows = np.zeros(len(nodes), dtype=np.intp)
        self._table: tuple[Mix, Table] | None = None
        self._seen = columns.end
        for row in having:
            self._write(columns, row)

    @staticmethod
    def of(fleet: Fleet) -> Board | None:
        """That of a fleet, up to date with its columns; None: no node has a GPU."""
        columns = fleet.columns
        if "board" not in columns.derived:
            has = any(candidate.gpus for candidate in columns.rows)
            columns.derived["board"] = Board(columns) if has else None
        board: Board | None = columns.derived["board"]
        if board is not None and board._seen != columns.end:
            board._follow(columns)
        return board

    def steps(self, rows: Rows | None, needs: Requirements, typical: Mix) -> tuple[Rows, Ints]:
        """(rows with GPUs among these, their points); None: all rows."""
        places = np.arange(len(self._rows))
        if rows is not None:
            places = self._place[rows]
            places = places[places >= 0]
        if not len(places):
            return self._rows[places], np.zeros(0, dtype=np.int64)
        if self._table is None or self._table[0] is not typical:
            self._table = (typical, Table(typical, self._looks))
        table = self._table[1]
        result = np.full(len(places), IMPOSSIBLE)
        can = np.flatnonzero(self._has_room(places, needs))
        good = places[can]
        if len(good) <= FEW:
            result[can] = table.points(self._rooms.take(good), needs)
        else:
            _, first, back = np.unique(self._state[good], return_index=True, return_inverse=True)
            result[can] = table.points(self._rooms.take(good[first]), needs)[back]
        return self._rows[places], result

    def _has_room(self, places: Rows, needs: Requirements) -> Mask:
        """Where a task may fit: what certainly does not need not be computed."""
        rooms, need = self._rooms, gpus.need_of(needs)
        result: Mask = rooms.cpu_millis[places] >= needs.cpu_millis
        result &= rooms.memory_bytes[places] >= needs.memory_bytes
        if need is not None:
            usable = (rooms.free[places] >= need.share_millis).sum(axis=1)
            result &= usable >= max(need.count, 1)
        return result

    def _follow(self, columns: Columns) -> None:
        changed = columns.since(self._seen)
        self._seen = columns.end
        if changed is None:
            changed = self._rows
        if len(self._states) > 8 * len(self._rows) + 1024:
            self._states.clear()
            changed = self._rows
        for row in dict.fromkeys(changed.tolist()):
            if self._place[row] >= 0:
                self._write(columns, row)

    def _write(self, columns: Columns, row: int) -> None:
        place = self._place[row]
        room = granting.room_of(columns.rows[row])
        self._rooms.cpu_millis[place] = room.cpu_millis
        self._rooms.memory_bytes[place] = room.memory_bytes
        self._rooms.free[place, : len(room.free)] = room.free
        self._state[place] = self._states.setdefault(room, len(self._states))


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
