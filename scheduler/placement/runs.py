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

from collections import Counter
from heapq import heappop, heappush, heapreplace
from itertools import repeat
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from homeport.model import TaskId, task_id
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.columns import Floats, Rows
from scheduler.placement.fleet import Fleet
from scheduler.placement.lanes import NEVER, Lane

Keys = npt.NDArray[np.int64]

ROW_BITS = 20
"""Of a key: the points, negated, above the row; the least key is the best choice."""
_ROW = (1 << ROW_BITS) - 1


_SLOT, _N = attrgetter("slot"), attrgetter("n")
_NONE = 1 << 62
"""Greater than every key."""
STREAM_WORTH = 8
"""With fewer asks left than this part of the rows, the rows are not sorted anew."""


def fill(fleet: Fleet, lane: Lane, asks: list[Ask]) -> list[Placed]:
    """Place as many of these asks, in order, as one sorting is good for; none: use another way.

    The lane must be one of the asks' service, and its points up to date.
    """
    ask = asks[0]
    if (ask.needs.volumes and ask.fixes_volumes) or lane.cells is not None:
        return []
    tasks = list(map(task_id, repeat(ask.service), map(_SLOT, asks), map(_N, asks)))
    if not fleet.held.keys().isdisjoint(tasks):
        return []  # one of them moves: that gives room back, and the sorting would not hold
    room = lane.room(fleet, ask)
    rows = _choose(fleet, lane, ask, len(asks), room)
    return _record(fleet, lane, asks, tasks, rows)


def _choose(fleet: Fleet, lane: Lane, ask: Ask, wanted: int, room: Floats) -> list[int]:
    """The rows of the next choices; the fleet knows nothing of them yet."""
    room = np.where(lane.score > NEVER, room, 0)
    rows = np.flatnonzero(room >= 1)
    keys = _keys(lane.score[rows], rows)
    if wanted < len(keys):
        keys.partition(wanted)
        keys = keys[:wanted]
    keys.sort()
    stream = keys.tolist()
    rows = keys & _ROW
    # What each of them would be worth the second time.
    again = np.where(
        room[rows] >= 2, _keys(lane.points_after_one(fleet.columns, rows), rows), _NONE
    )
    after_one = again.tolist()
    counts = fleet.nodes_of(ask.service)
    candidates = fleet.columns.rows
    chosen: list[int] = []
    heap: list[int] = []  # rows that were chosen before, with their points since then
    times: dict[int, int] = {}  # how often, where more than once
    place, end = 0, len(stream)
    few = end // STREAM_WORTH
    head = stream[0] if end else _NONE
    for left in range(wanted, 0, -1):
        if not heap or head < heap[0]:
            if place == end:
                break
            row = head & _ROW
            if (key := after_one[place]) != _NONE:
                heappush(heap, key)
            place += 1
            head = stream[place] if place < end else _NONE
        else:
            if place == end and left > few:
                break  # the heap has all rows now: sorting them is cheaper
            row = heap[0] & _ROW
            here = times[row] = times.get(row, 1) + 1
            if here < room[row]:
                candidate = candidates[row]
                count = counts.get(candidate.id, 0) + here
                key = (-lane.points_later(row, candidate, count, here) << ROW_BITS) | row
                heapreplace(heap, key)
            else:
                heappop(heap)
        chosen.append(row)
    return chosen


def _record(
    fleet: Fleet, lane: Lane, asks: list[Ask], tasks: list[TaskId], rows: list[int]
) -> list[Placed]:
    """Let the fleet count these choices."""
    if not rows:
        return []
    ask, presence = asks[0], fleet.presence(asks[0].service)
    counted = Counter(rows)
    different, times = list(counted), list(counted.values())
    candidates = [fleet.columns.rows[row] for row in different]
    needs = ask.needs
    for candidate, more in zip(candidates, times, strict=True):
        candidate.take(needs, more)
    shared = presence.add(
        ask.on(candidates[0].id), [each.id for each in candidates], different, times
    )
    entries = dict(zip(different, shared, strict=True))
    of_task = [entries[row] for row in rows]
    if fleet.tallies:
        for entry, candidate, more in zip(shared, candidates, times, strict=True):
            fleet.tallies.taken(entry, candidate, more)
    fleet.held.update(zip(tasks, of_task, strict=False))
    fleet.columns.taken(np.array(rows, dtype=np.intp), lane.profile.limits)
    return list(map(Placed, asks, [each.node for each in of_task]))


def _keys(score: Floats, rows: Rows) -> Keys:
    keys: Keys = (-score.astype(np.int64) << ROW_BITS) | rows
    return keys
