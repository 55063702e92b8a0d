"""Several tasks that make way together, where it does not suffice that one does.

Three ways are looked for. A *set*: two or three leave one node, of whom nobody can be spared; each
moves or, if it cannot, stops. A *chain*: one moves to where another makes room by moving on. A
*drain*: all that can leave a node runs elsewhere by the time that it takes tasks again. Who could
move or stop by itself is for `fixes` to say.

A newcomer's mistake: taking what is found here for a remedy. Whether those that move find a node
is tried with the way as a whole (`Trial.outcome`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, product

from homeport.model import Availability, TaskId
from scheduler.placement import engine, fixes
from scheduler.placement.asks import Placed
from scheduler.placement.fleet import Candidate
from scheduler.placement.remedy import Drain, Fix, Kind, Leave, Leaver, Size, Way
from scheduler.placement.trial import Trial

SET_MAX = 3
"""Tasks that leave together."""
TRIES_MAX, TRIES_TOTAL = 400, 2_000
"""Sets, and chains, that are tried on one node and on all; the least harmful tasks come first."""
CHAINED_MAX = 4
"""Tasks of a node for which it is asked whether another could make room."""
NAMED_MAX = 5
"""Tasks that a drain would move, by name."""

_Member = tuple[TaskId, list[Fix]]
"""A task and how it may leave: move, if it can, or stop."""


@dataclass(slots=True)
class Effort:
    """How much more may be tried."""

    left: int = TRIES_TOTAL


@dataclass(slots=True)
class _Search:
    """The sets of one node."""

    left: int
    found: list[frozenset[TaskId]] = field(default_factory=list)
    seen: set[frozenset[TaskId]] = field(default_factory=set)  # in the search for one size

    def takes(self, members: frozenset[TaskId]) -> bool:
        """Whether to try these, once: of those of whom one can be spared nobody wants to know."""
        if self.left <= 0 or members in self.seen or any(each <= members for each in self.found):
            return False
        self.seen.add(members)
        self.left -= 1
        return True


def sets(trial: Trial, node: Candidate, effort: Effort) -> list[Way]:
    """Two or three tasks without whom the node would do."""
    begun = min(TRIES_MAX, effort.left)
    search = _Search(begun)
    found = list[tuple[_Member, ...]]()
    for size in range(1, SET_MAX + 1):
        search.seen.clear()
        found += _sets(trial, node, search, size, ())
    effort.left -= begun - search.left
    return [
        tuple(sorted(way, key=lambda fix: fix.harm))
        for members in found
        if len(members) > 1  # what one alone does has been found before
        for way in product(*(ways for _, ways in members))
    ]


def _sets(
    trial: Trial, node: Candidate, search: _Search, size: int, gone: tuple[_Member, ...]
) -> list[tuple[_Member, ...]]:
    """Those who are gone and so many more."""
    found = list[tuple[_Member, ...]]()
    before = frozenset(task for task, _ in gone)
    for task, ways in _leaving(trial, node).items():
        members = before | {task}
        if not search.takes(members):
            continue
        trial.go(ways[0].step)
        if trial.refusal(node) is None:
            search.found.append(members)
            found.append((*gone, (task, ways)))
        elif size > 1:
            found += _sets(trial, node, search, size - 1, (*gone, (task, ways)))
        trial.back()
    return found


def _leaving(trial: Trial, node: Candidate) -> dict[TaskId, list[Fix]]:
    """Of whom the first objection would be gone, or smaller, without them."""
    refusal = trial.refusal(node)
    found: dict[TaskId, list[Fix]] = {}
    for fix in fixes.of(trial, node, refusal) if refusal is not None else ():
        if isinstance(fix.step, Leave):
            found.setdefault(fix.step.task, []).append(fix)
    return found


def chains(
    trial: Trial, node: Candidate, nodes: Iterable[Candidate], effort: Effort
) -> Iterator[Way]:
    """One task moves to another of the nodes, from where a second one moves on."""
    moves = (fix for ways in _leaving(trial, node).values() for fix in ways if fix.moves)
    for first in list(islice(moves, CHAINED_MAX)):
        trial.go(first.step)
        if trial.refusal(node) is None:
            yield from ((first, second) for second in _second(trial, node, first, nodes, effort))
        trial.back()


def _second(
    trial: Trial, node: Candidate, first: Fix, nodes: Iterable[Candidate], effort: Effort
) -> list[Fix]:
    """Who would have to move so that the first finds a node; nobody where it finds one anyway."""
    assert isinstance(first.step, Leave), "only moves are chained"
    assert first.step.again is not None, "only moves are chained"
    fleet = trial.fleet
    (mine,) = engine.place(fleet, [replace(trial.ask, only=node.id, excluded=())])
    if not isinstance(mine, Placed):
        return []
    found = list[Fix]()
    moved = Trial(fleet, first.step.again, trial.around)
    others = [] if engine.is_placeable(fleet, moved.ask) else nodes
    for other in others:
        ways = _leaving(moved, other) if other.id != node.id else {}
        for second in (fix for each in ways.values() for fix in each if fix.moves):
            if effort.left <= 0:
                break
            effort.left -= 1
            moved.go(second.step)
            if moved.refusal(other) is None:
                found.append(second)
            moved.back()
    engine.undo(fleet, mine)
    return found


def drain(trial: Trial, node: Candidate) -> Fix | None:
    """The node is drained, and opened again; None: that does not help, or is not to be done."""
    leaving = tuple(trial.around.leaving(node.id))
    is_active = trial.record(node.id).availability is Availability.ACTIVE
    if not leaving or not is_active or any(ask.service == trial.ask.service for _, ask in leaving):
        return None
    step = Drain(node.id, leaving)
    if not _would_fit(trial, node, leaving) or not trial.go(step):
        return None
    fits = trial.refusal(node) is None
    fleet = trial.fleet
    moves = [
        f"{ask.name}.{ask.slot} to {fleet.candidates[fleet.held[ask.task].node].name}"
        for _, ask in leaving
    ]
    trial.back()
    if not fits:
        return None
    named, more = ", ".join(moves[:NAMED_MAX]), len(moves) - NAMED_MAX
    name = shlex.quote(node.name)
    return Fix(
        kind=Kind.MOVE,
        size=Size.DRAIN,
        sort="drain",
        step=step,
        says=f"drain {node.name}, which moves {named}{f' and {more} more' if more > 0 else ''},"
        " and let it take tasks again",
        harm=(len(leaving),),
        commands=(f"homeport drain {name} --wait", f"homeport uncordon {name}"),
    )


def _would_fit(trial: Trial, node: Candidate, leaving: Iterable[Leaver]) -> bool:
    """Whether the node would do if these were just gone: that is known soonest."""
    gone = sum([trial.go(Leave(task)) for task, _ in leaving])
    fits = trial.refusal(node) is None
    for _ in range(gone):
        trial.back()
    return fits
