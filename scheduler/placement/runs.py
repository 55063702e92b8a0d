"""Many asks of one kind at once: the choices of one at a time, without looking again at all nodes.

Placing a task changes one row only. So each row has a queue of its own: its points for the first
task, for the second once it has the first, and so on. The next choice is the best head of all
queues. A queue whose next task is better than the one before goes on being chosen (packing), so
a task comes at the place of the worst one of its queue up to it: `_Offers` computes these places
for many rows and tasks with arrays, and to choose is to sort them. This is exact for any points
that depend on their own row, whether a task makes its node worse (spread) or better (packing).
Where labels rank domains of nodes above the nodes, or hold them back, each domain is sorted by
itself and `_merged` takes the heads in turn.

A newcomer's mistake: to take rows as they are sorted for as long as there are asks. A row can be
the best twice in a row.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import numpy.typing as npt

from homeport.model import task_ids
from scheduler.placement import grouping, points, recording, static
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
ASKS_PER_DOMAIN = 4
"""With fewer, too: a domain costs as much as to place so many."""
SPARE = 64
RANK_SHIFT = 64
"""Above all keys."""
BLOCK = 2048
"""So many tasks are looked at together, of one row or of as many."""


def is_possible(fleet: Fleet, lane: Lane, ask: Ask) -> bool:
    """Whether the points of a row depend on what is on its own node and in its domain alone."""
    needs = ask.needs
    return (
        lane.is_smooth
        and not any(rule.weight for rule in needs.spread_rules)
        and grouping.is_steady(fleet, ask)
    )


def fill(fleet: Fleet, lane: Lane, asks: list[Ask]) -> list[Placed]:
    """Place as many of these asks, in order, as one sorting is good for; none: use another way.

    The lane must be one of the asks' service, and its points up to date.
    """
    ask = asks[0]
    if ask.needs.volumes and ask.fixes_volumes:
        return []  # the first of them decides where the others go
    is_grouped = lane.cells is not None or bool(ask.needs.spread_rules)
    domains = _Domains.of(fleet, lane, ask) if is_grouped else None
    if domains is not None and not domains.are_worth(len(asks)):
        return []
    tasks = task_ids(ask.service, map(_SLOT, asks), map(_N, asks))
    if not fleet.held.keys().isdisjoint(tasks):
        return []  # one of them moves: that gives room back, and the sorting would not hold
    offers = _Offers(fleet, lane, ask)
    if domains is None:
        places, _ = offers.choices(np.flatnonzero(offers.room >= 1), len(asks))
        places.sort()  # two of a row that are equal are the same choice
        rows = places[: len(asks)] & _ROW
    else:
        rows = _merged(offers, len(asks), domains)
    if not len(rows):
        return []
    return recording.record(fleet, asks[: len(rows)], tasks[: len(rows)], rows, lane.profile.limits)


class _Offers:
    """What each row has to offer to tasks of one kind: its queue."""

    __slots__ = ("_columns", "_lane", "_neighbours", "_score", "room")

    def __init__(self, fleet: Fleet, lane: Lane, ask: Ask) -> None:
        """As the fleet is now."""
        self._columns = fleet.columns
        self._lane = lane
        self._score = lane.score
        self._neighbours: Floats | None = None  # points of near and apart; they stay
        if ask.needs.neighbours or grouping.is_opposed(fleet, ask):
            self._neighbours = grouping.neighboured(fleet, ask, np.zeros(len(lane.score)))
            self._score = lane.score + self._neighbours
        self.room = np.where(self._score > NEVER, lane.room(fleet, ask), 0)
        if grouping.is_apart_from_its_own(ask):
            np.minimum(self.room, 1, out=self.room)

    def choices(self, rows: Rows, wanted: int) -> tuple[Keys, Keys]:
        """(places, keys) of all choices that can be among the first so many, and perhaps of others.

        A key says what the task is worth there, its place when it is chosen; both name the row.
        Those of one row are in the order in which they are chosen.
        """
        room = self.room
        keys = _keys(self._score[rows], rows)
        if wanted < len(keys):
            keys.partition(wanted)
            keys = keys[:wanted]
        places = last = keys
        all_places, all_keys = [places], [keys]
        rows, more = keys & _ROW, 1
        while True:
            # A row is done with when it has no room, or its last task comes too late already.
            end = np.partition(places, wanted - 1)[wanted - 1] if len(places) >= wanted else _NONE
            goes_on = (room[rows] > more) & (last < end)
            rows, last = rows[goes_on], last[goes_on]
            if not len(rows):
                return places, np.concatenate(all_keys)
            times = np.arange(more, more + max(min(BLOCK // len(rows), wanted), 1))[:, None]
            keys = _keys(self._later(rows, times), rows)
            keys[times >= room[rows]] = _NONE
            reached = np.maximum(np.maximum.accumulate(keys, axis=0), last)
            last = reached[-1]
            more += len(times)
            counts = reached < end
            all_places.append(reached[counts])
            all_keys.append(keys[counts])
            places = np.concatenate(all_places)

    def _later(self, rows: Rows, times: Keys) -> Floats:
        score = self._lane.points_later(self._columns, rows, times)
        return score if self._neighbours is None else score + self._neighbours[rows]


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
        counted = np.bincount(codes.of_row, weights=lane.here, minlength=len(codes.values))
        result = cls(codes, counted.astype(np.int64).tolist())
        result.is_preferred = lane.cells is not None
        for rule in needs.spread_rules:
            result.max_skew = rule.max_skew
            values = static.domains(fleet, ask, key)
            result.counted = [
                code
                for code, value in enumerate(codes.values)
                if value is not None and value in values
            ]
        return result

    def are_worth(self, asks: int) -> bool:
        """Whether so many asks are enough to sort each domain."""
        return self.codes is not None and asks >= ASKS_PER_DOMAIN * len(self.counts)


def _merged(offers: _Offers, wanted: int, domains: _Domains) -> Rows:
    """The rows of the next choices, each domain's in its order."""
    assert domains.codes is not None, "the caller looked"
    counts, counted, skew = domains.counts, domains.counted, domains.max_skew
    usable = set(counted) if skew else set(range(len(counts)))
    # One domain rarely gets more than twice its part. If it would, what is chosen before is right
    # and the caller sorts again.
    most = min(wanted, 2 * wanted // max(len(usable), 1) + skew + SPARE)
    queues: list[list[int]] = []  # of each domain: the keys in order, the first last
    cut: set[int] = set()  # domains that would have more
    for code in range(len(counts)):
        rows = np.flatnonzero((domains.codes.of_row == code) & (offers.room >= 1))
        if code not in usable or not len(rows):
            queues.append([])
            continue
        places, keys = offers.choices(rows, most)
        order = np.argsort(places, kind="stable")[:most]
        queues.append(keys[order][::-1].tolist())
        if len(order) == most:
            cut.add(code)
    shift = RANK_SHIFT if domains.is_preferred else None
    heads: dict[int, int] = {}  # of the domains that have nodes left
    for code, queue in enumerate(queues):
        if queue:
            heads[code] = queue.pop() + _rank(counts[code], shift)
    least = min((counts[code] for code in counted), default=0)
    allowed = [code for code in heads if not skew or counts[code] + 1 - least <= skew]
    chosen: list[int] = []
    for _ in range(wanted):
        if not allowed:
            break
        domain = min(allowed, key=heads.__getitem__)
        chosen.append(heads[domain] & _ROW)
        count = counts[domain] = counts[domain] + 1
        if queues[domain]:
            heads[domain] = queues[domain].pop() + _rank(count, shift)
        elif domain in cut:
            break  # what would come next is not known
        else:
            del heads[domain]
        before = least
        if skew and count - 1 == least:
            least = min(counts[code] for code in counted)
        if least != before:
            allowed = [code for code in heads if counts[code] + 1 - least <= skew]
        elif domain not in heads or (skew and count + 1 - least > skew):
            allowed.remove(domain)
    return np.array(chosen, dtype=np.intp)


def _rank(count: int, shift: int | None) -> int:
    """What is added to the keys of a domain with so many tasks: it comes before all points."""
    return 0 if shift is None else min(count, points.COUNT_MAX) << shift


def _keys(score: Floats, rows: Rows) -> Keys:
    keys: Keys = (-score.astype(np.int64) << ROW_BITS) | rows
    return keys
