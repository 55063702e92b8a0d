"""Let a fleet count many choices of one kind at once: what `Fleet.task_added` does for each.

Everything that can be is said once for each node, or handed to a dictionary whole: the choices of
a run come by the thousand, and then a line that is carried out for each of them is what it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from homeport.model import TaskId
from scheduler.placement.asks import Ask, Placed, placed_all
from scheduler.placement.candidates import take_each
from scheduler.placement.columns import Rows
from scheduler.placement.fleet import Fleet


def record(
    fleet: Fleet,
    asks: list[Ask],
    tasks: list[TaskId],
    rows: Rows,
    limits: Sequence[tuple[int, float]],
) -> list[Placed]:
    """Count these tasks, which the fleet does not hold yet, on the nodes in these rows.

    All asks are of one kind, without devices, and fix no volume. `limits`: see `Columns.taken`.
    """
    columns, first = fleet.columns, asks[0]
    changed, times = columns.taken(rows, limits, first.needs.generic)
    where, how_often = changed.tolist(), times.tolist()
    candidates = [columns.rows[row] for row in where]
    take_each(candidates, first.needs, how_often)
    nodes = [candidate.id for candidate in candidates]
    kind = first.on(nodes[0])
    fleet.presence(first.service).add(kind, nodes, where, how_often)
    if first.needs.neighbours:
        fleet.tallies.oppose(kind, len(tasks))
    if fleet.tallies:
        fleet.tallies.taken(kind, list(zip(candidates, how_often, strict=True)))
    chosen = [nodes[entry] for entry in np.searchsorted(changed, rows).tolist()]
    fleet.held.put_all(tasks, kind, chosen)
    return placed_all(asks, chosen)
