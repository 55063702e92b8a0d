"""How nodes stand for a task: the points of each by part, or all that speaks against it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from homeport.model import NodeId, ServiceId
from scheduler.cluster.observed import Refusal
from scheduler.placement import engine, filters, scores
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Candidate, Fleet

JUDGED_MAX = 4_000
"""Standings of nodes in one plan, some 200 bytes each in its answer: in a large cluster only the
first tasks have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplanation:
    """What speaks for and against one node."""

    node: NodeId
    name: str
    chosen: bool = False
    refusals: tuple[Refusal, ...] = ()
    scores: tuple[tuple[str, int], ...] = ()  # part -> points; empty where it was refused
    total: int = 0


def weighed(
    fleet: Fleet, placed: Sequence[Placed]
) -> dict[tuple[ServiceId, int], tuple[NodeExplanation, ...]]:
    """What each decision was between: all are taken back, and made once more in their order."""
    most = JUDGED_MAX // max(len(fleet.candidates), 1)
    for each in reversed(placed):
        engine.undo(fleet, each)
    found: dict[tuple[ServiceId, int], tuple[NodeExplanation, ...]] = {}
    waiting = list(placed)
    for last in (False, True):
        later: list[Placed] = []
        for each in waiting:
            node = fleet.candidates[each.node]
            if len(found) < most:
                if not last and filters.first_refusal(fleet, each.ask, node) is not None:
                    later.append(each)  # it waited for a neighbour, and was decided after that
                    continue
                place = (each.ask.service, each.ask.slot)
                found[place] = tuple(judged(fleet, each.ask, {each.node}))
            fleet.task_added(each.ask.task, each.ask.on(each.node), each.grants)
        waiting = later
    return found


def judged(fleet: Fleet, ask: Ask, on: Collection[NodeId]) -> list[NodeExplanation]:
    """Each node's standing; `on`: where it is, or will be. Else the best is marked."""
    answers = [_judge(fleet, ask, candidate) for candidate in fleet.by_name()]
    best = max(
        (each for each in answers if not each.refusals),
        key=lambda each: each.total,
        default=None,
    )
    marked = [
        replace(each, chosen=each.node in on if on else best is not None and each.node == best.node)
        for each in answers
    ]
    return sorted(marked, key=lambda each: (bool(each.refusals), -each.total, each.name))


def _judge(fleet: Fleet, ask: Ask, candidate: Candidate) -> NodeExplanation:
    refusals = filters.refusals(fleet, ask, candidate)
    if refusals:
        return NodeExplanation(node=candidate.id, name=candidate.name, refusals=refusals)
    parts = scores.parts(fleet, ask, candidate)
    return NodeExplanation(
        node=candidate.id,
        name=candidate.name,
        scores=parts,
        total=sum(points for _, points in parts),
    )
