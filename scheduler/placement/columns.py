"""The nodes as arrays: one row for each node, in the order of names, one column for each fact.

Derived from the candidates and never asked before `sync`: events only mark rows. What a node
*is* (its facts, drivers, name) changes rarely and makes all arrays anew; what is free on it
changes with each task and rewrites its row. Rows that changed are logged, so that whoever has
computed something from the columns looks at those alone.

Numbers are float64: every integer below 2**53 is exact in it, NumPy divides it four times as
fast as int64, and IEEE division gives the same quotient as Python's. A newcomer's mistake: a
product or a sum here that could pass 2**53.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.placement import points
from scheduler.placement.candidates import Candidate, in_order

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

CPU, MEMORY, CPU_UNIT, MEMORY_UNIT, BASE, TASKS, PIDS, DISK = range(8)
"""Columns: what is free; capacity in units of room; the points of few tasks, -inf on a node that
takes nothing new; tasks; what is free where a node says how much it has, else infinity."""
WIDTH = 8


class Codes:
    """One aspect of the nodes, numbered: which of its different values each row has."""

    __slots__ = ("_sets", "examples", "numbers", "of_row", "values")

    def __init__(self, rows: Sequence[Candidate], aspect: Callable[[Candidate], Hashable]) -> None:
        """Number the values in the order of rows."""
        numbers: dict[Hashable, int] = {}
        self.examples: list[Candidate] = []  # of each value: the first node that has it
        codes = np.empty(len(rows), dtype=np.intp)
        for row, candidate in enumerate(rows):
            value = aspect(candidate)
            number = numbers.get(value)
            if number is None:
                number = numbers[value] = len(self.examples)
                self.examples.append(candidate)
            codes[row] = number
        self.of_row: Rows = codes
        self.numbers = numbers
        self.values = list(numbers)
        self._sets: dict[frozenset[str], Rows] = {}

    def numbers_of(self, values: frozenset[str]) -> Rows:
        """The numbers of these values; looked up once for the same set."""
        found = self._sets.get(values)
        if found is None:
            known = (self.numbers.get(each) for each in sorted(values))
            numbers = [number for number in known if number is not None]
            found = self._sets[values] = np.array(numbers, dtype=np.intp)
        return found


class Columns:
    """The arrays, and which of their rows have changed."""

    def __init__(self) -> None:
        """No nodes."""
        self.rows: list[Candidate] = []
        self.table: Floats = np.zeros((WIDTH, 0))
        self.scratch: Floats = np.zeros((2, 0))  # for whoever computes something of all rows
        self.end = 0  # how many changes of rows have been logged
        # What others have computed from the arrays, by their own names; void with the shape.
        self.derived: dict[str, Any] = {}
        self._log: Rows = np.zeros(0, dtype=np.intp)
        self._origin = 0  # how many changes are no longer in the log
        self._marked: list[int] = []  # rows that changed since the last `sync`
        self._reshaped = True
        self._codes: dict[str, Codes] = {}
        self._generic: dict[str, Floats] = {}  # kind -> what is free; of kinds that were asked for

    # ------------------------------------------------------------ events

    def reshape(self) -> None:
        """A node came, went or became another one."""
        self._reshaped = True

    def touch(self, candidate: Candidate) -> None:
        """What is free on a node, or whether it takes new tasks, has changed."""
        if candidate.row >= 0:
            self._marked.append(candidate.row)

    def taken(
        self,
        rows: Rows,
        needs: Sequence[tuple[int, float]],
        generic: Sequence[tuple[str, int]],
    ) -> tuple[Rows, Rows]:
        """Each of these rows takes one task for each time it occurs, and nothing else changes.

        `needs` are (column, how much of it a task takes), `generic` (kind, how many). The caller
        tells the candidates.
        Returns the different rows, in order, and how many tasks each takes.
        """
        counts = np.bincount(rows, minlength=len(self.rows))
        changed = np.flatnonzero(counts)
        counts = counts[changed]
        for column, needed in needs:
            self.table[column, changed] -= counts * needed
        for kind, needed in generic:
            if (free := self._generic.get(kind)) is not None:
                free[changed] -= counts * needed
        tasks = self.table[TASKS, changed] + counts
        self.table[TASKS, changed] = tasks
        few = (points.COUNT_MAX - np.minimum(tasks, points.COUNT_MAX)) * points.TASK_COST
        self.table[BASE, changed] = few
        self._note(changed)
        return changed, counts

    def sync(self, candidates: Iterable[Candidate]) -> bool:
        """Bring the arrays up to date; `candidates` are all nodes.

        True: rows mean something else now, and what was derived from the old ones is void.
        """
        if self._reshaped:
            self._build(candidates)
            return True
        self._apply()
        return False

    # ------------------------------------------------------------ questions

    def since(self, seen: int) -> Rows | None:
        """The rows that changed after the log was `seen` long; None: any may have."""
        begin = seen - self._origin
        return None if begin < 0 else self._log[begin : self.end - self._origin]

    def codes(self, name: str, aspect: Callable[[Candidate], Hashable]) -> Codes:
        """An aspect's numbers, kept under its name until the shape changes."""
        found = self._codes.get(name)
        if found is None:
            found = self._codes[name] = Codes(self.rows, aspect)
        return found

    def generic(self, kind: str) -> Floats:
        """How much of a generic resource is free in each row."""
        found = self._generic.get(kind)
        if found is None:
            found = np.array([_generic(each, kind) for each in self.rows], dtype=np.float64)
            self._generic[kind] = found
        return found

    # ------------------------------------------------------------ the arrays

    def _build(self, candidates: Iterable[Candidate]) -> None:
        for candidate in self.rows:
            candidate.row = -1
        self.rows = in_order(candidates)
        self.table = np.zeros((WIDTH, len(self.rows)))
        self.scratch = np.zeros((2, len(self.rows)))
        for row, candidate in enumerate(self.rows):
            candidate.row = row
            self.table[:, row] = _numbers(candidate)
        self._codes = {}
        self._generic = {}
        self.derived = {}
        self._marked = []
        self._reshaped = False
        self._log = np.zeros(4 * len(self.rows) + 64, dtype=np.intp)
        self._origin = self.end

    def _apply(self) -> None:
        marked, self._marked = self._marked, []
        if not marked:
            return
        if len(marked) > 4:
            marked = list(dict.fromkeys(marked))
        table, rows = self.table, self.rows
        for row in marked:
            for column, number in enumerate(_numbers(rows[row])):
                table[column, row] = number
            for kind, free in self._generic.items():
                free[row] = _generic(rows[row], kind)
        self._note(marked)

    def _note(self, changed: Rows | list[int]) -> None:
        begin = self.end - self._origin
        if begin + len(changed) > len(self._log):
            # To look at so many rows one by one pays for nobody.
            self._origin, begin = self.end, 0
        self.end += len(changed)
        if len(changed) == 1:
            self._log[begin] = changed[0]
        else:
            self._log[begin : begin + len(changed)] = changed


def _generic(candidate: Candidate, kind: str) -> int:
    return candidate.generic_capacity.get(kind, 0) - candidate.generic_reserved.get(kind, 0)


def _numbers(candidate: Candidate) -> tuple[float, ...]:
    """A candidate's row."""
    unit = points.ROOM_UNIT
    cpu, memory = candidate.cpu_capacity, candidate.memory_capacity
    return (
        max(cpu - candidate.cpu_reserved, 0),
        max(memory - candidate.memory_reserved, 0),
        cpu / unit if cpu > 0 else np.inf,
        memory / unit if memory > 0 else np.inf,
        points.few(candidate.tasks) * points.TASK_COST if candidate.is_open else -np.inf,
        candidate.tasks,
        candidate.pids_capacity - candidate.pids_reserved if candidate.pids_capacity else np.inf,
        candidate.disk_capacity - candidate.disk_reserved if candidate.disk_capacity else np.inf,
    )
