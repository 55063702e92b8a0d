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
from scheduler.placement import filters, grouping, points
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.cells import fact
from scheduler.placement.columns import Codes, Floats, Rows
from scheduler.placement.fleet import Fleet
from scheduler.placement.lanes import NEVER, Lane

Keys = npt.NDArray[np.int64]

ROW_BITS = 20
"""Of a key: the points, negated, above the row; the least key is the best choice."""
_ROW = (1 << ROW_BITS) - 1


_SLOT, _N = attrgetter("slot"), attrgetter("n")
_NONE = 1 << 62
"""Greater than every key."""
DOMAINS_MAX = 64
"""With more of them, the asks are placed one by one."""
SORTED_MIN = 250
"""Fewer rows are not sorted anew: the heap is as good."""
STREAM_WORTH = 8
"""With fewer asks left than this part of the rows, the rows are not sorted anew."""


def is_possible(fleet: Fleet, lane: Lane, ask: Ask) -> bool:
    """Whether the points of a row depend on what is on its own node and in its domain alone."""
    needs = ask.needs
    return (
        lane.is_smooth
        and not needs.neighbours
        and not any(rule.weight for rule in needs.spread_rules)
        and not grouping.is_opposed(fleet, ask)
    )


def is_grouped(lane: Lane, ask: Ask) -> bool:
    """Whether the asks are spread over domains of nodes."""
    return lane.cells is not None or bool(ask.needs.spread_rules)


def fill(fleet: Fleet, lane: Lane, asks: list[Ask]) -> list[Placed]:
    """Place as many of these asks, in order, as one sorting is good for; none: use another way.

    The lane must be one of the asks' service, and its points up to date.
    """
    ask = asks[0]
    if ask.needs.volumes and ask.fixes_volumes:
        return []  # the first of them decides where the others go
    domains = _Domains.of(fleet, lane, ask) if is_grouped(lane, ask) else None
    if domains is not None and domains.codes is None:
        return []
    tasks = list(map(task_id, repeat(ask.service), map(_SLOT, asks), map(_N, asks)))
    if not fleet.held.keys().isdisjoint(tasks):
        return []  # one of them moves: that gives room back, and the sorting would not hold
    room = lane.room(fleet, ask)
    if domains is None:
        rows = _choose(fleet, lane, ask, len(asks), room)
    else:
        rows = _choose_by_domain(fleet, lane, ask, len(asks), room, domains)
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
            if place == end >= SORTED_MIN and left > few:
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


class _Domains:
    """The domains of the one label that the asks are spread by, and their tasks so far."""

    __slots__ = ("codes", "counted", "counts", "is_preferred", "max_skew")

    def __init__(self, codes: Codes | None, counts: list[int]) -> None:
        """No codes: there is more than one label to look at."""
        self.codes = codes
        self.counts = counts  # by code
        self.counted: list[int] = []  # the codes that a hard rule compares
        self.max_skew = 0  # of the hard rule; 0: there is none
        self.is_preferred = False  # a domain with fewer is better, whatever the nodes

    @classmethod
    def of(cls, fleet: Fleet, lane: Lane, ask: Ask) -> _Domains:
        """Those of this ask."""
        needs = ask.needs
        keys = dict.fromkeys((*needs.spread, *(rule.key for rule in needs.spread_rules)))
        if len(keys) != 1 or len(needs.spread_rules) > 1:
            return cls(None, [])
        key = next(iter(keys))
        codes = fact(fleet.columns, key)
        if len(codes.values) > DOMAINS_MAX:
            return cls(None, [])
        counts = [0] * len(codes.values)
        for node, count in fleet.nodes_of(ask.service).items():
            if (candidate := fleet.candidates.get(node)) is not None:
                counts[codes.of_row.item(candidate.row)] += count
        result = cls(codes, counts)
        result.is_preferred = lane.cells is not None
        for rule in needs.spread_rules:
            result.max_skew = rule.max_skew
            values = filters.domains(fleet, ask, key)
            result.counted = [
                code
                for code, value in enumerate(codes.values)
                if value is not None and value in values
            ]
        return result


def _choose_by_domain(
    fleet: Fleet, lane: Lane, ask: Ask, wanted: int, room: Floats, domains: _Domains
) -> list[int]:
    """As `_choose`, with sorted rows for each domain."""
    codes = domains.codes
    assert codes is not None, "the caller looked"
    room = np.where(lane.score > NEVER, room, 0)
    rows = np.flatnonzero(room >= 1)
    keys = _keys(lane.score[rows], rows)
    keys.sort()
    rows = keys & _ROW
    again = np.where(
        room[rows] >= 2, _keys(lane.points_after_one(fleet.columns, rows), rows), _NONE
    )
    domain_of = codes.of_row[rows]
    here, candidates = fleet.nodes_of(ask.service), fleet.columns.rows
    # Of each domain: rows not chosen yet, with their points and those of their second time; rows
    # that were chosen; and the best of all.
    streams: list[list[int]] = []
    seconds: list[list[int]] = []
    heaps: list[list[int]] = []
    heads: list[int] = []
    usable = domains.counted if domains.max_skew else list(range(len(codes.values)))
    for code in range(len(codes.values)):
        mine = domain_of == code
        streams.append(keys[mine].tolist()[::-1])  # the best last
        seconds.append(again[mine].tolist()[::-1])
        heaps.append([])
        heads.append(streams[code][-1] if streams[code] else _NONE)
    counts, counted, skew = domains.counts, domains.counted, domains.max_skew
    least = min((counts[code] for code in counted), default=0)
    times: dict[int, int] = {}
    chosen: list[int] = []
    for _ in range(wanted):
        best, domain, rank = _NONE, -1, _NONE
        for code in usable:
            count = counts[code]
            if skew and count + 1 - least > skew:
                continue
            key = heads[code]
            if key == _NONE:
                continue
            its_rank = min(count, points.COUNT_MAX) if domains.is_preferred else 0
            if its_rank < rank or (its_rank == rank and key < best):
                best, domain, rank = key, code, its_rank
        if domain < 0:
            break
        row = best & _ROW
        stream, heap = streams[domain], heaps[domain]
        if stream and stream[-1] == best:
            stream.pop()
            if (key := seconds[domain].pop()) != _NONE:
                heappush(heap, key)
        else:
            more = times[row] = times.get(row, 1) + 1
            if more < room[row]:
                candidate = candidates[row]
                count = here.get(candidate.id, 0) + more
                key = (-lane.points_later(row, candidate, count, more) << ROW_BITS) | row
                heapreplace(heap, key)
            else:
                heappop(heap)
        head = stream[-1] if stream else _NONE
        heads[domain] = heap[0] if heap and heap[0] < head else head
        counts[domain] += 1
        if skew and counts[domain] - 1 == least:
            least = min((counts[code] for code in counted), default=0)
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
        fleet.tallies.taken(shared[0], list(zip(candidates, times, strict=True)))
    fleet.held.update(zip(tasks, of_task, strict=False))
    fleet.columns.taken(np.array(rows, dtype=np.intp), lane.profile.limits)
    return list(map(Placed, asks, [each.node for each in of_task]))


def _keys(score: Floats, rows: Rows) -> Keys:
    keys: Keys = (-score.astype(np.int64) << ROW_BITS) | rows
    return keys
