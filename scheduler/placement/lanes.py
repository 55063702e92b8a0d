"""What has been computed for each class of asks, kept right row by row.

A lane holds the points of every node for one class (and, once the service has tasks, for that
service). It reads the log of the columns and looks again only at rows that changed. Whether a
node has room is asked of the best one alone: a node that turns out to have none loses its points
until its row changes.
"""

from __future__ import annotations

import numpy as np

from scheduler.placement import filters, points, static
from scheduler.placement.asks import Ask
from scheduler.placement.candidates import Candidate
from scheduler.placement.cells import Cells
from scheduler.placement.columns import (
    BASE,
    CPU,
    CPU_UNIT,
    DISK,
    MEMORY,
    MEMORY_UNIT,
    PIDS,
    TASKS,
    Columns,
    Floats,
)
from scheduler.placement.fleet import Fleet
from scheduler.placement.presence import Presence

NEVER = -np.inf
FEW_ROWS = 3
"""So many changed rows are looked at one by one, more of them with arrays."""
LANES_BYTES = 16 << 20
LANES_MIN = 64
FRESH = points.few(0) << points.SERVICE_SHIFT
"""Points of a node without a task of the service."""


class Profile:
    """What a class asks, made ready for arrays; one for each class and kind of exclusion."""

    __slots__ = ("allowed", "checks", "limits", "need", "needs")

    def __init__(self, ask: Ask, allowed: Floats) -> None:
        """`allowed`: FRESH for each node that can be, NEVER for the others."""
        needs = ask.needs
        self.needs = needs
        self.allowed = allowed
        self.need = np.array([[needs.cpu_millis], [needs.memory_bytes]], dtype=np.float64)
        wanted = (
            (CPU, needs.cpu_millis, filters.cpu),
            (MEMORY, needs.memory_bytes, filters.memory),
            (PIDS, needs.pids, filters.pids),
            (DISK, needs.disk_bytes, filters.disk),
        )
        # (column, how much) of all that a task takes, and the rules that can refuse it by what is
        # on a node.
        self.limits = [(column, float(amount)) for column, amount, _ in wanted if amount]
        checks = [rule for _, amount, rule in wanted if amount]
        if needs.ports:
            checks.append(filters.ports)
        if needs.tasks_per_node_max:
            checks.append(filters.tasks_per_node)
        self.checks = tuple(checks)

    def bonus(self, row: int) -> int:
        """What a row that is allowed has beside the points of its tasks and its room."""
        return int(self.allowed.item(row)) - FRESH


class Lane:
    """The points of each row, for one class and perhaps one service."""

    __slots__ = ("_own", "_seen", "cells", "presence", "profile", "score")

    def __init__(self, fleet: Fleet, profile: Profile, presence: Presence | None) -> None:
        """Nothing computed yet; with a presence, it listens to that."""
        columns = fleet.columns
        self.profile = profile
        self.presence = presence
        self.score: Floats = np.empty(len(columns.rows))
        self._seen = -1
        # The points of a row that do not depend on what is free there; -inf where it cannot be.
        self._own = profile.allowed
        self.cells = Cells(columns, profile.needs) if profile.needs.spread else None
        if presence is not None:
            self._own = profile.allowed.copy()
            for node, count in presence.nodes.items():
                if (candidate := fleet.candidates.get(node)) is not None:
                    self._count(candidate.row, count)
            if self.cells is not None:
                self.cells.fill(presence.nodes, fleet.candidates)
            presence.listeners.append(self)

    def counted(self, row: int, count: int, times: int) -> None:
        """A node has `count` tasks of the service now."""
        if row >= 0:
            self._count(row, count)
            if self.cells is not None:
                self.cells.counted(row, times)

    def close(self) -> None:
        """Listen no more."""
        if self.presence is not None and self in self.presence.listeners:
            self.presence.listeners.remove(self)

    def _count(self, row: int, count: int) -> None:
        if self._own[row] != NEVER:
            self._own[row] = points.few(count) << points.SERVICE_SHIFT

    # ------------------------------------------------------------ points

    def refresh(self, columns: Columns) -> None:
        """Look again at the rows that changed."""
        if self._seen == columns.end:
            return
        rows = columns.since(self._seen) if self._seen >= 0 else None
        self._seen = columns.end
        if rows is None or len(rows) > len(self.score) // 4 + FEW_ROWS:
            _points(columns.table, self.profile.need, self._own, self.score)
        elif len(rows) <= FEW_ROWS:
            for row in rows.tolist():
                self.score[row] = self.points(row, columns.rows[row])
        else:
            part = columns.table[: BASE + 1].take(rows, axis=1)
            self.score[rows] = _points(
                part, self.profile.need, self._own.take(rows), np.empty(len(rows))
            )

    def points(self, row: int, candidate: Candidate) -> float:
        """The points of one row, as its candidate is now."""
        if not candidate.is_open:
            return NEVER
        return (
            self._own.item(row)
            + points.room(self.profile.needs, candidate)
            + points.few(candidate.tasks) * points.TASK_COST
        )

    def fits(self, fleet: Fleet, ask: Ask, candidate: Candidate) -> bool:
        """Whether a node that can be has room."""
        return all(rule(fleet, ask, candidate) is None for rule in self.profile.checks)

    def points_later(self, row: int, candidate: Candidate, count: int, more: int) -> int:
        """The points of a row that has points, once it has so many tasks of this class more.

        `count`: how many of the service it has then.
        """
        return (
            self.profile.bonus(row)
            + (points.few(count) << points.SERVICE_SHIFT)
            + points.room(self.profile.needs, candidate, more)
            + points.few(candidate.tasks + more) * points.TASK_COST
        )

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
        if most := needs.tasks_per_node_max:
            np.minimum(result, most, out=result)
            for node, count in fleet.nodes_of(ask.service).items():
                if (found := fleet.candidates.get(node)) is not None:
                    result[found.row] = min(result[found.row], most - count)
        return result

    def points_after_one(self, columns: Columns) -> Floats:
        """The points of each row had it one task more; meaningless where that has no room."""
        table = columns.table[: BASE + 1].copy()
        table[CPU : MEMORY + 1] -= self.profile.need
        few = np.where(columns.table[TASKS] < points.COUNT_MAX, points.TASK_COST, 0)
        table[BASE] -= few
        more = 1 << points.SERVICE_SHIFT
        own = np.where(self._own >= more, self._own - more, self._own)
        return _points(table, self.profile.need, own, np.empty(len(own)))


def _points(table: Floats, need: Floats, own: Floats, out: Floats) -> Floats:
    """The points of all rows of a table, in `out`; rows without room get something low."""
    free = np.subtract(table[CPU : MEMORY + 1], need)
    np.divide(free, table[CPU_UNIT : MEMORY_UNIT + 1], out=free)
    np.floor(free, out=free)
    np.add(free[0], free[1], out=out)
    np.multiply(out, 0.5, out=out)
    np.floor(out, out=out)
    np.add(out, table[BASE], out=out)
    np.add(out, own, out=out)
    return out


class Lanes:
    """The lanes of a fleet; those longest unused make room for new ones."""

    def __init__(self, columns: Columns) -> None:
        """None."""
        self._most = max(LANES_MIN, LANES_BYTES // (16 * len(columns.rows) + 1))
        self._lanes: dict[tuple[object, ...], Lane] = {}
        self._profiles: dict[tuple[object, ...], Profile] = {}
        self._allowed: dict[tuple[object, ...], Floats] = {}

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
        lane.refresh(fleet.columns)
        return lane

    def _profile(self, fleet: Fleet, ask: Ask, kind: tuple[object, ...]) -> Profile:
        found = self._profiles.pop(kind, None) or Profile(ask, self._where(fleet, ask))
        self._profiles[kind] = found
        if len(self._profiles) > self._most:
            del self._profiles[next(iter(self._profiles))]
        return found

    def _where(self, fleet: Fleet, ask: Ask) -> Floats:
        """FRESH for each node that is what the task needs, NEVER for the others."""
        needs = ask.needs
        key = (
            needs.driver,
            needs.os,
            needs.architecture,
            needs.oci_runtime,
            needs.node,
            needs.constraints,
            ask.excluded,
            ask.needs_lease,
        )
        found = self._allowed.get(key)
        if found is None:
            found = np.where(static.mask(fleet, ask), FRESH, NEVER)
            self._allowed[key] = found
            if len(self._allowed) > self._most:
                del self._allowed[next(iter(self._allowed))]
        return found
