"""What has been computed for each class of asks, kept right row by row.

A lane holds the points of every node for one class (and, once the service has tasks, for that
service). It reads the log of the columns and looks again only at rows that changed. Whether a
node has room is asked of the best one alone: a node that turns out to have none loses its points
until its row changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scheduler.placement import filters, points, scores, static
from scheduler.placement.asks import Ask
from scheduler.placement.board import Board
from scheduler.placement.candidates import Candidate
from scheduler.placement.cells import Cells
from scheduler.placement.columns import (
    BASE,
    CPU,
    CPU_UNIT,
    MEMORY,
    MEMORY_UNIT,
    TASKS,
    Columns,
    Floats,
    Rows,
)
from scheduler.placement.fleet import Fleet
from scheduler.placement.fragmentation import IMPOSSIBLE, Mix
from scheduler.placement.presence import Presence
from scheduler.placement.profiles import Profile

Counts = npt.NDArray[np.int64]

NEVER = -np.inf
FEW_ROWS = 3
"""So many changed rows are looked at one by one, more of them with arrays."""
_HALF = np.array(0.5)
LANES_BYTES = 16 << 20
LANES_MIN = 64


class Lane:
    """The points of each row, for one class and perhaps one service."""

    __slots__ = (
        "_own",
        "_seen",
        "_typical",
        "cells",
        "here",
        "is_smooth",
        "presence",
        "profile",
        "score",
    )

    def __init__(self, fleet: Fleet, profile: Profile, presence: Presence | None) -> None:
        """Nothing computed yet; with a presence, it listens to that."""
        columns = fleet.columns
        self.profile = profile
        self.presence = presence
        self.score: Floats = np.empty(len(columns.rows))
        self._seen = -1
        self._typical: Mix = ()  # for which fragmentation is counted
        # Whether a task more changes the points of its row by room and tasks alone.
        self.is_smooth = True
        # How many tasks of the service each row has; empty without a presence.
        self.here: Floats = np.zeros(0 if presence is None else len(columns.rows))
        # The points of a row that do not depend on what is free there; -inf where it cannot be.
        self._own = profile.fresh if presence is None else profile.fresh.copy()
        self.cells = Cells(columns, profile.needs) if profile.needs.spread else None
        if presence is not None:
            there = [fleet.candidates.get(node) for node in presence.nodes]
            rows = [-1 if candidate is None else candidate.row for candidate in there]
            if rows:
                counts = list(presence.nodes.values())
                self._count_all(np.array(rows, dtype=np.intp), np.array(counts))
            if self.cells is not None:
                self.cells.fill(presence.nodes, fleet.candidates)
            presence.listeners.append(self)

    def counted(self, row: int, count: int, times: int) -> None:
        """A node has `count` tasks of the service now."""
        if row >= 0:
            self._count(row, count)
            if self.cells is not None:
                self.cells.counted(row, times)

    def counted_all(self, rows: list[int], counts: list[int], times: list[int]) -> None:
        """The same of many nodes."""
        self._count_all(np.array(rows, dtype=np.intp), np.array(counts))
        if self.cells is not None:
            for row, more in zip(rows, times, strict=True):
                self.cells.counted(row, more)

    def close(self) -> None:
        """Listen no more."""
        if self.presence is not None and self in self.presence.listeners:
            self.presence.listeners.remove(self)

    def _count(self, row: int, count: int) -> None:
        self.here[row] = count
        self._own[row] = self.profile.bonus.item(row) + self.profile.same_service(count)

    def _count_all(self, rows: Rows, counts: Counts) -> None:
        rows, counts = rows[rows >= 0], counts[rows >= 0]
        self.here[rows] = counts
        few = points.COUNT_MAX - np.minimum(counts, points.COUNT_MAX)
        same = 0 if self.profile.packs else few << points.SERVICE_SHIFT
        self._own[rows] = self.profile.bonus[rows] + same

    # ------------------------------------------------------------ points

    def refresh(self, fleet: Fleet) -> None:
        """Look again at the rows that changed, at all of them when what is typical did."""
        columns, board = fleet.columns, Board.of(fleet)
        typical = fleet.census.mix() if board is not None else ()
        if typical is not self._typical:
            self._typical, self._seen = typical, -1
        if self._seen == columns.end:
            return
        rows = columns.since(self._seen) if self._seen >= 0 else None
        self._seen = columns.end
        self.is_smooth = not self.profile.needs.devices and not typical
        if rows is not None and len(rows) > len(self.score) // 4 + FEW_ROWS:
            rows = None
        if rows is None:
            self._points_of(columns.table, self._own, columns.scratch, self.score)
        elif len(rows) <= FEW_ROWS:
            for row in rows.tolist():
                self.score[row] = self.points(row, columns.rows[row])
        else:
            part = columns.table[: BASE + 1].take(rows, axis=1)
            self.score[rows] = self._points_of(part, self._own.take(rows), part, part[BASE])
        if board is not None and not self.is_smooth:
            where, steps = board.steps(rows, self.profile.needs, typical)
            self.score[where] += np.where(steps > IMPOSSIBLE, steps * points.FRAGMENT, NEVER)

    def _points_of(self, table: Floats, own: Floats, free: Floats, out: Floats) -> Floats:
        """The points of the rows of a table, in `out`; two lines of `free` are lost."""
        profile = self.profile
        np.subtract(table[CPU], profile.cpu, out=free[CPU])
        np.subtract(table[MEMORY], profile.memory, out=free[MEMORY])
        units = table[CPU_UNIT : MEMORY_UNIT + 1]
        return _points(free[: MEMORY + 1], units, table[BASE], own, profile.packs, out)

    def points(self, row: int, candidate: Candidate) -> float:
        """The points of one row, as its candidate is now."""
        if not candidate.is_open:
            return NEVER
        return self._own.item(row) + self._packing(candidate)

    def fits(self, fleet: Fleet, ask: Ask, candidate: Candidate) -> bool:
        """Whether a node that can be has room."""
        for rule in self.profile.checks:  # noqa: SIM110 (a generator takes twice as long)
            if rule(fleet, ask, candidate) is not None:
                return False
        return True

    def _packing(self, candidate: Candidate) -> int:
        low = (
            points.room(self.profile.needs, candidate)
            + points.few(candidate.tasks) * points.TASK_COST
        )
        return points.FULLNESS - low if self.profile.packs else low

    def room(self, fleet: Fleet, ask: Ask) -> Floats:
        """For how many tasks of the class, one after the other, each row has room.

        Infinity: as many as one likes. Of rows without points it says nothing.
        """
        columns, needs = fleet.columns, self.profile.needs
        result: Floats = np.full(len(columns.rows), np.inf)
        for column, amount in self.profile.limits:
            np.minimum(result, np.floor(columns.table[column] / amount), out=result)
        if needs.ports:
            np.minimum(result, 1, out=result)
            for row in np.flatnonzero((result >= 1) & (self.score > NEVER)).tolist():
                if filters.ports(fleet, ask, columns.rows[row]) is not None:
                    result[row] = 0
        for kind, count in needs.generic:
            np.minimum(result, np.floor(columns.generic(kind) / count), out=result)
        if most := needs.tasks_per_node_max:
            np.minimum(result, most if self.presence is None else most - self.here, out=result)
        return result

    def points_later(self, columns: Columns, rows: Rows, more: Counts) -> Floats:
        """The points of these rows, had each so many tasks of the class more.

        `more` is a column, and each number in it makes a line. Meaningless without room for them.
        The lane has a presence.
        """
        profile, limit = self.profile, points.COUNT_MAX
        table = columns.table[: TASKS + 1].take(rows, axis=1)
        free = np.empty((2, len(more), len(rows)))
        np.subtract(table[CPU], profile.cpu * (more + 1), out=free[0])
        np.subtract(table[MEMORY], profile.memory * (more + 1), out=free[1])
        base = (limit - np.minimum(table[TASKS] + more, limit)) * points.TASK_COST
        own = profile.bonus.take(rows)
        if not profile.packs:
            few = limit - np.minimum(self.here.take(rows) + more, limit)
            own = own + few * (1 << points.SERVICE_SHIFT)
        units = table[CPU_UNIT : MEMORY_UNIT + 1, None]
        return _points(free, units, base, own, profile.packs, free[0])


def _points(
    free: Floats, units: Floats, base: Floats, own: Floats, packs: bool, out: Floats
) -> Floats:
    """The points, in `out`, of rows of which so much cpu and memory is left with the task.

    Whatever it is, if that is less than nothing. `free` is lost.
    """
    np.divide(free, units, out=free)
    np.floor(free, out=free)
    both = np.add(free[0], free[1], out=free[0])
    np.multiply(both, _HALF, out=both)
    np.floor(both, out=both)
    np.add(both, base, out=out)
    if packs:
        np.subtract(points.FULLNESS, out, out=out)
        out[out == np.inf] = NEVER
    np.add(out, own, out=out)
    return out


class Lanes:
    """The lanes of a fleet; those longest unused make room for new ones."""

    def __init__(self, columns: Columns) -> None:
        """None."""
        self._most = max(LANES_MIN, LANES_BYTES // (16 * len(columns.rows) + 1))
        self._lanes: dict[tuple[object, ...], Lane] = {}
        self._profiles: dict[tuple[object, ...], Profile] = {}
        self._allowed: dict[tuple[object, ...], tuple[Floats, Floats]] = {}

    @staticmethod
    def of(fleet: Fleet) -> Lanes:
        """Those of this fleet, whose columns are brought up to date."""
        columns = fleet.arrays()
        found = columns.derived.get("lanes")
        if not isinstance(found, Lanes):
            found = columns.derived["lanes"] = Lanes(columns)
        return found

    def lane(self, fleet: Fleet, ask: Ask) -> Lane:
        """The lane of this kind of ask, with the points of now."""
        presence = fleet.present(ask.service)
        if presence is None and ask.needs.spread:
            presence = fleet.presence(ask.service)
        kind = (ask.needs.text, ask.excluded, ask.needs_lease)
        key = (*kind, ask.service if presence is not None else None)
        lane = self._lanes.pop(key, None)
        if lane is not None and lane.presence is not presence:
            lane = None  # the service had no tasks in between
        if lane is None:
            lane = Lane(fleet, self._profile(fleet, ask, kind), presence)
        self._lanes[key] = lane  # the last used is the last to go
        if len(self._lanes) > self._most:
            self._lanes.pop(next(iter(self._lanes))).close()
        lane.refresh(fleet)
        return lane

    def _profile(self, fleet: Fleet, ask: Ask, kind: tuple[object, ...]) -> Profile:
        found = self._profiles.pop(kind, None)
        if found is None:
            packs = scores.packs(fleet, ask)
            bonus, fresh = self._bonus(fleet, ask)
            found = Profile(ask, bonus, bonus if packs else fresh, packs)
        self._profiles[kind] = found
        if len(self._profiles) > self._most:
            del self._profiles[next(iter(self._profiles))]
        return found

    def _bonus(self, fleet: Fleet, ask: Ask) -> tuple[Floats, Floats]:
        """The wishes that each node meets, NEVER where it is not what the task needs.

        And the same with the points of a node that has no task of the service.
        """
        needs = ask.needs
        key = (
            needs.driver,
            needs.os,
            needs.architecture,
            needs.oci_runtime,
            needs.node,
            needs.constraints,
            needs.preferences,
            needs.tolerations,
            needs.paths,
            needs.devices,
            ask.excluded,
            ask.needs_lease,
        )
        found = self._allowed.get(key)
        if found is None:
            bonus = np.where(static.mask(fleet, ask), static.wishes(fleet, ask), NEVER)
            found = (bonus, bonus + float(points.few(0) << points.SERVICE_SHIFT))
            self._allowed[key] = found
            if len(self._allowed) > self._most:
                del self._allowed[next(iter(self._allowed))]
        return found
