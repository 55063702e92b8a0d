"""Many asks of one kind at once: the choices of one at a time, without looking again at all nodes.

Placing a task changes one row only. So the rows are sorted once; the next choice is the head of
what is sorted, or a row that was chosen before and whose new points are better than that head.
This is exact for any points that depend on their own row, whether a task makes its node worse
(spread) or better (packing). Where labels rank cells of nodes above the nodes, each cell has a
head of its own.

A newcomer's mistake: to take rows as they are sorted for as long as there are asks. A row can be
the best twice in a row.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from scheduler.placement.asks import Ask, Placed
from scheduler.placement.columns import Floats, Rows
from scheduler.placement.fleet import Fleet
from scheduler.placement.lanes import Lane

Keys = npt.NDArray[np.int64]

ROW_BITS = 20
"""Of a key: the points, negated, above the row; the least key is the best choice."""
_ROW = (1 << ROW_BITS) - 1


_NONE = 1 << 62
"""Greater than every key."""
STREAM_WORTH = 8
"""With fewer asks left than this part of the rows, the rows are not sorted anew."""


def fill(fleet: Fleet, lane: Lane, asks: list[Ask]) -> list[Placed]:
    """Place as many of these asks, in order, as one sorting is good for; none: use another way."""
    ask = asks[0]
    if (ask.needs.volumes and ask.fixes_volumes) or lane.cells is not None:
        return []
    rows = np.flatnonzero(lane.room_for(fleet, ask, 1))
    stream = _keys(lane.score[rows], rows)
    stream.sort()
    again = np.full(len(lane.score), _NONE)
    rows = np.flatnonzero(lane.room_for(fleet, ask, 2))
    again[rows] = _keys(lane.points_after_one(fleet.columns)[rows], rows)
    return _walk(fleet, lane, asks, stream.tolist(), again.tolist())


def _walk(
    fleet: Fleet, lane: Lane, asks: list[Ask], stream: list[int], again: list[int]
) -> list[Placed]:
    rows, held, presence = fleet.columns.rows, fleet.held, fleet.presence(asks[0].service)
    placed: list[Placed] = []
    taken: list[int] = []
    heap: list[int] = []  # rows that were chosen before, with their points since then
    place, end = 0, len(stream)
    for ask in asks:
        task = ask.task
        if task in held:
            break  # it moves: that gives room back, and the sorting does not hold
        if place == end and len(asks) - len(placed) > end // STREAM_WORTH:
            break  # the heap has all rows now: sorting them is cheaper
        key = stream[place] if place < end else _NONE
        is_first = not heap or key < heap[0]
        if is_first:
            if key == _NONE:
                break
            place += 1
        else:
            key = heappop(heap)
        row = key & _ROW
        candidate = rows[row]
        entry = presence.share(ask.on(candidate.id))
        held[task] = entry
        candidate.take(ask.needs, 1)
        presence.count(candidate.id, row, 1)
        taken.append(row)
        placed.append(Placed(ask=ask, node=candidate.id))
        if is_first:
            if again[row] != _NONE:
                heappush(heap, again[row])
        elif lane.fits(fleet, ask, candidate):
            heappush(heap, (-int(lane.points(row, candidate)) << ROW_BITS) | row)
    if taken:
        fleet.columns.taken(np.array(taken, dtype=np.intp), lane.profile.limits)
    return placed


def _keys(score: Floats, rows: Rows) -> Keys:
    keys: Keys = (-score.astype(np.int64) << ROW_BITS) | rows
    return keys
