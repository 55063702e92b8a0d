"""The readable greedy: one ask after the other, every node looked at.

Its answers define what placement means. `engine` gives exactly the same answers sooner, and the
property tests hold it to that; it also takes from here what is too rare to be done cleverly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from homeport.model import Grant
from scheduler.cluster.observed import Refusal
from scheduler.placement import filters, granting, scores
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.fleet import Candidate, Fleet


def place(fleet: Fleet, batch: Sequence[Ask]) -> list[Placed | Unplaced]:
    """Choose a node for each ask, in the defined order; the answers are in that order.

    Placing only ever takes room, so once an ask finds no node, no later ask of its kind
    in the batch does: they share its refusals. What waits for a group of nodes to change
    (`Requirements.is_grouped`) is asked again in the end, for as long as that places something.
    """
    answers: list[Placed | Unplaced] = []
    hopeless: dict[tuple[object, ...], Sequence[Refusal]] = {}
    for ask in sorted(batch, key=lambda ask: ask.order):
        kind = ask.kind
        if (known := hopeless.get(kind)) is not None:
            answers.append(Unplaced(ask=ask, refusals=known))
            continue
        answer = _place_one(fleet, ask)
        answers.append(answer)
        if isinstance(answer, Unplaced):
            hopeless[kind] = answer.refusals
    ask_again(answers, lambda ask: _place_one(fleet, ask))
    return answers


def ask_again(
    answers: list[Placed | Unplaced], place_one: Callable[[Ask], Placed | Unplaced]
) -> None:
    """Give the grouped asks that found no node another chance, in order, until none is placed."""
    waiting = [
        place
        for place, answer in enumerate(answers)
        if isinstance(answer, Unplaced) and answer.ask.needs.is_grouped
    ]
    goes_on = bool(waiting) and any(isinstance(answer, Placed) for answer in answers)
    while goes_on:
        goes_on = False
        hopeless: dict[tuple[object, ...], Sequence[Refusal]] = {}
        for place in waiting:
            ask = answers[place].ask
            if (known := hopeless.get(ask.kind)) is not None:
                answers[place] = Unplaced(ask=ask, refusals=known)
                continue
            answer = answers[place] = place_one(ask)
            if isinstance(answer, Unplaced):
                hopeless[ask.kind] = answer.refusals
            else:
                goes_on = True
                hopeless.clear()
        waiting = [place for place in waiting if isinstance(answers[place], Unplaced)]


def _place_one(fleet: Fleet, ask: Ask) -> Placed | Unplaced:
    nodes = fleet.by_name() if ask.only is None else _only(fleet, ask)
    best, refused = choose(fleet, ask, nodes)
    return Unplaced(ask=ask, refusals=refused) if best is None else assume(fleet, ask, best)


def assume(fleet: Fleet, ask: Ask, node: Candidate) -> Placed:
    """Let the fleet count the task on a node where nothing refuses it; grant it its devices."""
    grants: tuple[Grant, ...] = ()
    if ask.needs.devices:
        found = granting.grants(ask.needs, node, fleet.census.mix())
        assert found is not None, "no rule refused it"
        grants = found
    fleet.task_added(ask.task, ask.on(node.id), grants)
    return Placed(ask=ask, node=node.id, grants=grants)


def is_placeable(fleet: Fleet, ask: Ask) -> bool:
    """Whether some node would do; nothing is assumed."""
    return any(
        filters.first_refusal(fleet, ask, node) is None for node in fleet.candidates.values()
    )


def choose(
    fleet: Fleet, ask: Ask, nodes: Iterable[Candidate]
) -> tuple[Candidate | None, tuple[Refusal, ...]]:
    """The best of these nodes, which are in the order of names; and why the others will not do."""
    best: Candidate | None = None
    best_score = 0
    refused: list[Refusal] = []
    for node in nodes:
        refusal = filters.first_refusal(fleet, ask, node)
        if refusal is not None:
            refused.append(refusal)
            continue
        score = scores.total(fleet, ask, node)
        if best is None or score > best_score:
            best, best_score = node, score
    return best, tuple(refused)


def _only(fleet: Fleet, ask: Ask) -> list[Candidate]:
    """The one node that can do, where the ask names it: no other is worth a refusal."""
    assert ask.only is not None
    node = fleet.candidates.get(ask.only)
    return [] if node is None else [node]
