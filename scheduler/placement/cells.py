"""Groups of nodes between which a service is spread: their ranks, kept as its tasks come and go.

A cell is a set of nodes with equal values of all labels that the class speaks of. A rank says
how good it is to be in a cell, whatever the node: it comes before all points of a node.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from homeport.model import NodeId
from scheduler.placement import points
from scheduler.placement.candidates import Candidate
from scheduler.placement.columns import Codes, Columns, Rows
from scheduler.placement.requirements import Requirements
from scheduler.placement.scores import PREFERENCE_SHIFTS

Ranks = npt.NDArray[np.int64]


class Tally:
    """How many of a service's tasks are at each value of one label."""

    __slots__ = ("cells", "counts", "of_cell", "of_row")

    def __init__(self, axis: Codes, of_cell: list[int]) -> None:
        """None anywhere; `of_cell`: the value of each cell."""
        self.counts = [0] * len(axis.values)
        self.of_cell = of_cell
        self.of_row = axis.of_row.tolist()
        self.cells: list[list[int]] = [[] for _ in axis.values]  # of each value
        for cell, value in enumerate(of_cell):
            self.cells[value].append(cell)


class Cells:
    """The cells of one class for one service."""

    __slots__ = ("_preferred", "of_row", "ranks")

    def __init__(self, columns: Columns, needs: Requirements) -> None:
        """All cells, without a task."""
        axes = [fact(columns, key) for key in needs.spread[: len(PREFERENCE_SHIFTS)]]
        combined = axes[0].of_row
        for axis in axes[1:]:
            combined = combined * len(axis.values) + axis.of_row
        _, first, of_row = np.unique(combined, return_index=True, return_inverse=True)
        self.of_row: Rows = of_row
        self._preferred = [Tally(axis, axis.of_row[first].tolist()) for axis in axes]
        self.ranks: Ranks = np.zeros(len(first), dtype=np.int64)
        self._rank_all()

    def fill(self, nodes: dict[NodeId, int], candidates: dict[NodeId, Candidate]) -> None:
        """Count the tasks that there are."""
        for node, count in nodes.items():
            if (candidate := candidates.get(node)) is not None:
                for tally in self._preferred:
                    tally.counts[tally.of_row[candidate.row]] += count
        self._rank_all()

    def counted(self, row: int, times: int) -> None:
        """So many tasks more at this row."""
        for tally in self._preferred:
            value = tally.of_row[row]
            tally.counts[value] += times
            for cell in tally.cells[value]:
                self.ranks[cell] = self._rank(cell)

    def _rank_all(self) -> None:
        for cell in range(len(self.ranks)):
            self.ranks[cell] = self._rank(cell)

    def _rank(self, cell: int) -> int:
        return sum(
            points.few(tally.counts[tally.of_cell[cell]]) << shift
            for tally, shift in zip(self._preferred, PREFERENCE_SHIFTS, strict=False)
        )


def fact(columns: Columns, key: str) -> Codes:
    """The numbered values of a label or other fact; a node without it has a value of its own."""
    return columns.codes(f"fact:{key}", lambda candidate: candidate.facts.get(key))
