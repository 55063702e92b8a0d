"""The nodes of a fleet that have GPUs, and what a placement on each would strand.

Nodes of which the same is left get the same points, and a node on which tasks came and went may be
what another was before. So points are computed for *states*: once for each state, class and mix,
however many nodes are in it and however often it comes.
"""

from __future__ import annotations

import numpy as np

from scheduler.placement import gpus, granting
from scheduler.placement.columns import Columns, Mask, Rows
from scheduler.placement.fleet import Fleet
from scheduler.placement.fragmentation import IMPOSSIBLE, Mix
from scheduler.placement.gpus import Look, Room
from scheduler.placement.requirements import Requirements
from scheduler.placement.stranding import Ints, Rooms, Table

STATES_PER_NODE, STATES_MORE = 4, 256
"""With so many states they are forgotten, but for those that nodes are in."""
POINTS_BYTES = 8 << 20
CLASSES_MIN = 16
_UNKNOWN = IMPOSSIBLE - 1


class Board:
    """The nodes that have GPUs, as arrays that follow the columns of their fleet."""

    __slots__ = ("_judge", "_looks", "_place", "_rooms", "_rows", "_seen", "_state", "_states")

    def __init__(self, columns: Columns) -> None:
        """As the candidates are now."""
        having = [candidate.row for candidate in columns.rows if candidate.gpus]
        self._rows: Rows = np.array(having, dtype=np.intp)
        self._place: Rows = np.full(len(columns.rows), -1, dtype=np.intp)
        self._place[self._rows] = np.arange(len(having))
        nodes = [columns.rows[row] for row in having]
        looks = sorted({(gpu.vendor, gpu.model) for node in nodes for gpu in node.gpus})
        self._looks: dict[Look, int] = {look: number for number, look in enumerate(looks)}
        most = max((len(node.gpus) for node in nodes), default=0)
        states = STATES_PER_NODE * len(nodes) + STATES_MORE
        self._rooms = Rooms(
            np.zeros(states),
            np.zeros(states),
            np.full((states, most), -1, dtype=np.int64),
            np.zeros((states, most), dtype=np.int64),
        )
        self._states: dict[Room, int] = {}
        self._state: Rows = np.zeros(len(nodes), dtype=np.intp)  # of each place
        self._judge: _Judge | None = None
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
        states = self._state
        found = self._rows
        if rows is not None:
            places = self._place[rows]
            places = places[places >= 0]
            states, found = states[places], found[places]
        if self._judge is None or self._judge.typical is not typical:
            self._judge = _Judge(typical, tuple(self._looks), self._rooms)
        return found, self._judge.points(states, needs)

    def _follow(self, columns: Columns) -> None:
        changed = columns.since(self._seen)
        self._seen = columns.end
        if changed is None:
            changed = self._rows
        if len(self._states) + len(changed) > len(self._rooms.cpu_millis):
            self._states.clear()
            self._judge = None
            changed = self._rows
        for row in dict.fromkeys(changed.tolist()):
            if self._place[row] >= 0:
                self._write(columns, row)

    def _write(self, columns: Columns, row: int) -> None:
        room, rooms = granting.room_of(columns.rows[row]), self._rooms
        state = self._states.get(room)
        if state is None:
            state = self._states[room] = len(self._states)
            rooms.cpu_millis[state] = room.cpu_millis
            rooms.memory_bytes[state] = room.memory_bytes
            rooms.look[state] = -1
            rooms.look[state, : len(room.looks)] = [self._looks[look] for look in room.looks]
            rooms.free[state] = 0
            rooms.free[state, : len(room.free)] = room.free
        self._state[self._place[row]] = state


class _Judge:
    """What a mix says of the states."""

    __slots__ = ("_before", "_is_known", "_most", "_points", "_rooms", "_sums", "_table", "typical")

    def __init__(self, typical: Mix, looks: tuple[Look, ...], rooms: Rooms) -> None:
        """Nothing yet; `rooms` may get new states."""
        self.typical = typical
        self._rooms = rooms
        self._table = Table(typical, looks)
        states = len(rooms.cpu_millis)
        self._sums: Ints = np.empty((states, len(typical)), dtype=np.int64)
        self._before = np.empty(states)
        self._is_known = np.zeros(states, dtype=bool)
        self._points: dict[str, Ints] = {}  # class -> of each state
        self._most = max(CLASSES_MIN, POINTS_BYTES // (8 * states))

    def points(self, states: Rows, needs: Requirements) -> Ints:
        """Of each of these states, for a class."""
        of_state = self._points.get(needs.text)
        if of_state is None:
            if len(self._points) == self._most:
                del self._points[next(iter(self._points))]
            of_state = self._points[needs.text] = np.full(len(self._before), _UNKNOWN)
        result: Ints = of_state[states]
        if (missing := result == _UNKNOWN).any():
            new = np.flatnonzero(np.bincount(states[missing]))  # `unique` takes ten times as long
            of_state[new] = self._computed(new, needs)
            result = of_state[states]
        return result

    def _computed(self, states: Rows, needs: Requirements) -> Ints:
        result: Ints = np.full(len(states), IMPOSSIBLE)
        can = np.flatnonzero(self._has_room(states, needs))
        if not len(can):
            return result
        good = states[can]
        if len(new := good[~self._is_known[good]]):
            self._sums[new], self._before[new] = self._table.before(self._rooms.take(new))
            self._is_known[new] = True
        known = self._sums[good], self._before[good]
        result[can] = self._table.points(self._rooms.take(good), needs, known)
        return result

    def _has_room(self, states: Rows, needs: Requirements) -> Mask:
        """Where a task may fit: what certainly does not need not be computed."""
        rooms, need = self._rooms, gpus.need_of(needs)
        result: Mask = rooms.cpu_millis[states] >= needs.cpu_millis
        result &= rooms.memory_bytes[states] >= needs.memory_bytes
        if need is not None:
            usable = (rooms.free[states] >= need.share_millis).sum(axis=1)
            result &= usable >= max(need.count, 1)
        return result
