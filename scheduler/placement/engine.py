"""Choose nodes for asks: exactly the answers of `reference`, sooner.

Asks of one kind that follow each other in the defined order are placed together. What is
computed once per class is in `lanes`; here is only what is done with it: take the best row, or,
for many asks, walk down the sorted rows (`runs`). Rare kinds, whose node is given or follows
from where data is, are left to the reference's own functions over the few nodes in question.

The fleet that it is given keeps the choices: `undo` takes them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np

from homeport.model import NodeId
from scheduler.cluster.observed import Refusal
from scheduler.placement import filters, grouping, reference, refusing, runs
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.candidates import Candidate, in_order
from scheduler.placement.cells import Cells
from scheduler.placement.columns import Floats
from scheduler.placement.fleet import Fleet
from scheduler.placement.lanes import NEVER, Lane, Lanes

RUN_MIN = 16
"""Fewer asks of a kind are placed one by one."""


def place(fleet: Fleet, batch: Sequence[Ask]) -> list[Placed | Unplaced]:
    """Choose a node for each ask, in the defined order; the answers are in that order.

    Placing only ever takes room, so once an ask finds no node, no later ask of its kind
    in the batch does: they share its refusals.
    """
    if len(batch) == 1:
        return [_place_one(fleet, batch[0])]
    answers: list[Placed | Unplaced] = []
    hopeless: dict[tuple[object, ...], Sequence[Refusal]] = {}
    is_grouped = False
    for asks in _kinds(batch):
        kind = asks[0].kind
        done = 0 if kind in hopeless else _place_kind(fleet, asks, answers)
        if done < len(asks):
            if kind not in hopeless:
                hopeless[kind] = _refusals(fleet, asks[done])
            answers += [Unplaced(ask=ask, refusals=hopeless[kind]) for ask in asks[done:]]
            is_grouped = is_grouped or asks[0].needs.is_grouped
    if is_grouped:
        reference.ask_again(answers, lambda ask: _place_one(fleet, ask))
    return answers


def _place_one(fleet: Fleet, ask: Ask) -> Placed | Unplaced:
    answers: list[Placed | Unplaced] = []
    if _place_kind(fleet, [ask], answers):
        return answers[0]
    return Unplaced(ask=ask, refusals=_refusals(fleet, ask))


def undo(fleet: Fleet, placed: Placed) -> None:
    """Take back what was assumed: the record was not written."""
    fleet.task_removed(placed.ask.task)


def is_placeable(fleet: Fleet, ask: Ask) -> bool:
    """Whether some node would do; nothing is assumed."""
    few = _few(fleet, ask)
    if few is not None:
        return any(filters.first_refusal(fleet, ask, node) is None for node in few)
    lane = Lanes.of(fleet).lane(fleet, ask)
    found = _best(fleet, lane, ask) is not None
    fleet.absent(ask.service)
    return found


def _kinds(batch: Sequence[Ask]) -> Iterable[list[Ask]]:
    """The asks in the defined order, those of one kind that follow each other together."""
    if not batch:
        return []
    groups: dict[tuple[int, str, str], list[Ask]] = {}
    mixed = set()  # groups with more than one kind
    unsorted = set()
    last = batch[0]
    key, group = _group(last, groups)
    for ask in batch:
        # The caller's asks of one kind mostly follow each other, and share what is equal.
        if (
            ask.needs is not last.needs
            or ask.service != last.service
            or ask.priority != last.priority
        ):
            key, group = _group(ask, groups)
            if group:
                mixed.add(key)
                unsorted.add(key)
        elif ask.slot <= last.slot and group:
            unsorted.add(key)
        if (
            ask.only is not last.only
            or ask.excluded is not last.excluded
            or ask.fixes_volumes is not last.fixes_volumes
            or ask.needs_lease is not last.needs_lease
        ):
            mixed.add(key)
        group.append(ask)
        last = ask
    kinds: list[list[Ask]] = []
    for key, group in sorted(groups.items(), key=lambda each: each[1][0].order[:3]):
        if key in unsorted:
            group.sort(key=_SLOT)
        kinds += (list(same) for _, same in groupby(group, key=_KIND)) if key in mixed else [group]
    return kinds


_SLOT = attrgetter("slot", "n")
_KIND = attrgetter("kind")


def _group(
    ask: Ask, groups: dict[tuple[int, str, str], list[Ask]]
) -> tuple[tuple[int, str, str], list[Ask]]:
    key = (ask.priority, ask.needs.text, ask.service)
    return key, groups.setdefault(key, [])


def _place_kind(fleet: Fleet, asks: list[Ask], answers: list[Placed | Unplaced]) -> int:
    """Place asks of one kind, up to the first that finds no node; returns how many were."""
    done = 0
    while done < len(asks):
        ask = asks[done]
        few = _few(fleet, ask)
        if few is not None:
            chosen, _ = reference.choose(fleet, ask, few)
        else:
            if len(asks) - done >= RUN_MIN:
                fleet.presence(ask.service)  # a run needs points by service from its first choice
            lane = Lanes.of(fleet).lane(fleet, ask)
            is_run = len(asks) - done >= RUN_MIN and runs.is_possible(fleet, lane, ask)
            if is_run and (more := runs.fill(fleet, lane, asks[done:])):
                answers += more
                done += len(more)
                continue
            chosen = _best(fleet, lane, ask)
        if chosen is None:
            fleet.absent(ask.service)
            break
        answers.append(reference.assume(fleet, ask, chosen))
        done += 1
    return done


def _few(fleet: Fleet, ask: Ask) -> list[Candidate] | None:
    """The few nodes that are in question, by name; None: all of them."""
    if ask.only is not None:
        node = fleet.candidates.get(ask.only)
        return [] if node is None else [node]
    if not ask.needs.volumes or not ask.fixes_volumes:
        return None
    homes = [nodes for each in ask.needs.volumes if (nodes := fleet.homes.get(each))]
    if not homes:
        return None
    common: list[NodeId] = [node for node in homes[0] if all(node in nodes for nodes in homes)]
    return in_order(found for node in common if (found := fleet.candidates.get(node)) is not None)


def _best(fleet: Fleet, lane: Lane, ask: Ask) -> Candidate | None:
    """The best node with room."""
    if not fleet.columns.rows:
        return None
    score = lane.score
    if grouping.concerns(fleet, ask):
        score = grouping.adjusted(fleet, ask, score)
    if lane.cells is None:
        return _first_with_room(fleet, lane, ask, score)
    return _best_by_cell(fleet, lane, lane.cells, ask, score)


def _first_with_room(fleet: Fleet, lane: Lane, ask: Ask, score: Floats) -> Candidate | None:
    rows, tries = fleet.columns.rows, 0
    while True:
        row = int(score.argmax())
        if score[row] == NEVER:
            return None
        candidate = rows[row]
        if lane.fits(fleet, ask, candidate):
            return candidate
        score[row] = lane.score[row] = NEVER
        tries += 1
        if tries == 4:
            # A full cluster: ask all of them at once.
            full = lane.room(fleet, ask) < 1
            score[full] = lane.score[full] = NEVER


def _best_by_cell(
    fleet: Fleet, lane: Lane, cells: Cells, ask: Ask, score: Floats
) -> Candidate | None:
    ranks = cells.ranks.copy()
    while (top := int(ranks.max())) >= 0:
        best = ranks == top
        of_best = np.where(best[cells.of_row], score, NEVER)
        if (found := _first_with_room(fleet, lane, ask, of_best)) is not None:
            return found
        ranks[best] = -1
    return None


def _refusals(fleet: Fleet, ask: Ask) -> Sequence[Refusal]:
    """Why each node in question will not do, the lowest name first."""
    if ask.only is None:
        return refusing.refusals(fleet, ask)
    return reference.choose(fleet, ask, _few(fleet, ask) or [])[1]
