"""What is the smallest change that makes a waiting task fit?

For the nodes that fail by the fewest rules, each way to be rid of the first objection is tried on
the fleet (`trial`), alone and then, where no small one suffices, two together. What is answered
has been tried as a whole, with the engine: the task gets a node, and so does each that moves for
it. The order is that of `remedy.Size`: what disturbs nobody comes first.

Asked only for `explain` and `plan`: it costs a look at all nodes and some hundred trials.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from scheduler.placement import addition, filters, fixes, grouping
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.placement.remedy import Fix, Leave, Remedy, Renode, Size, Surroundings
from scheduler.placement.trial import Trial

REMEDIES_MAX = 5
NODES_MAX = 20
"""Nodes that are tried: in a large fleet, those that fail by the fewest rules."""
GROUPED_LOOKS, GROUPED_MIN = 4_000, 3
"""Of what depends on groups of nodes: so many looks at nodes for each round, and nodes at least."""
PAIRS_MAX = 200
"""Pairs of changes that are tried on a node."""
SINGLE_MAX = Size.STOP
"""Where a single change up to this size does, nobody looks for two."""
OUTCOMES_MAX = 40
"""Remedies that are tried as a whole; most are found at the first try."""
WAIT_SECONDS = 60
"""How long the commands of a move wait for the task that gets the room."""

Way = tuple[Fix, ...]
Found = tuple[Way, Candidate | None]
"""What is to be done, and the node for which it was found; None: one that is not there."""


def find(fleet: Fleet, ask: Ask, around: Surroundings) -> tuple[Remedy, ...]:
    """The smallest changes that make it fit, the smallest first; none where it fits as it is.

    The fleet is tried things on, and is afterwards as it was.
    """
    trial = Trial(fleet, ask, around)
    nodes = _promising(fleet, ask)
    if nodes is None:
        return ()
    found: list[Found] = [(way, node) for node in nodes for way in _single(trial, node)]
    if all(_size(way) > SINGLE_MAX for way, _ in found):
        found += [(way, node) for node in nodes for way in _pairs(trial, node)]
    if (added := addition.of(fleet, ask)) is not None:
        found.append(((added,), None))
    return tuple(_tried(trial, found))


def _promising(fleet: Fleet, ask: Ask) -> list[Candidate] | None:
    """The nodes worth trying, the best first; None: one takes the task as it is."""
    ranked: list[tuple[bool, int, Candidate]] = []
    for node in fleet.by_name():
        if ask.only not in (None, node.id):
            continue
        rules = [each.rule for each in filters.refusals(fleet, ask, node)]
        if not rules:
            return None
        ranked.append((not all(map(fixes.has_any, rules)), len(rules), node))
    ranked.sort(key=lambda each: each[:2])  # stable: the lowest name first
    most = NODES_MAX
    if grouping.concerns(fleet, ask):
        # Each trial then counts over all nodes: of a large cluster fewer are tried.
        most = min(most, max(GROUPED_LOOKS // max(len(ranked), 1), GROUPED_MIN))
    return [node for hopeless, _, node in ranked[:most] if not hopeless]


def _single(trial: Trial, node: Candidate) -> Iterator[Way]:
    """The single changes after which nothing objects any more."""
    refusal = trial.refusal(node)
    for fix in fixes.of(trial, node, refusal) if refusal is not None else ():
        trial.go(fix.step)
        fits = trial.refusal(node) is None
        trial.back()
        if fits:
            yield (fix,)


def _pairs(trial: Trial, node: Candidate) -> Iterator[Way]:
    """The pairs of changes that do, where one does not."""
    refusal = trial.refusal(node)
    assert refusal is not None, "nobody asks for remedies where it fits"
    left = PAIRS_MAX
    for first in fixes.of(trial, node, refusal):
        trial.go(first.step)
        if trial.refusal(node) is not None:
            for (second,) in _single(trial, node):
                yield first, second
                left -= 1
        trial.back()
        if left <= 0:
            return


def _tried(trial: Trial, found: Iterable[Found]) -> Iterator[Remedy]:
    """Those that come off as a whole, one of each sort."""
    sorts: set[tuple[str, ...]] = set()
    tries = 0
    for way, _ in sorted(found, key=_order):
        sort = tuple(sorted(fix.sort for fix in way))
        if sort in sorts:
            continue
        if len(sorts) == REMEDIES_MAX or tries == OUTCOMES_MAX:
            return
        tries += 1
        outcome = trial.outcome([fix.step for fix in way])
        if outcome is not None:
            sorts.add(sort)
            yield _remedy(trial.ask, way, *outcome)


def _order(found: Found) -> tuple[object, ...]:
    way, node = found
    sizes = sorted((fix.size for fix in way), reverse=True)
    harms = [fix.harm for fix in way]
    return (_size(way), len(way), sizes, harms, node.name if node is not None else "")


def _size(way: Way) -> Size:
    return max(fix.size for fix in way)


def _remedy(ask: Ask, way: Way, node: Candidate, moved: list[Candidate]) -> Remedy:
    """In words; `moved`: where those go that are placed anew, in the order of the way."""
    targets = iter(moved)
    clauses = [f"{fix.says} to {next(targets).name}" if _moves(fix) else fix.says for fix in way]
    commands = [command for fix in way for command in fix.commands]
    if afterwards := [command for fix in way for command in fix.afterwards]:
        commands.append(f"homeport wait {shlex.quote(ask.name)} --timeout {WAIT_SECONDS}")
        commands += afterwards
    if not all(fix.commands for fix in way):
        # The file has to change too: whoever runs the commands alone would do half of it.
        clauses = [
            f"{clause} ({'; '.join((*fix.commands, *fix.afterwards))})" if fix.commands else clause
            for clause, fix in zip(clauses, way, strict=True)
        ]
        commands = []
    message = ", and ".join(clauses)
    is_named = any(_names(fix, node) for fix in way)
    return Remedy(
        kind=max(way, key=lambda fix: fix.size).kind,
        node=node.name,
        message=message if is_named else f"{message}; then it fits {node.name}",
        commands=tuple(commands),
        steps=tuple(fix.step for fix in way),
    )


def _moves(fix: Fix) -> bool:
    return isinstance(fix.step, Leave) and fix.step.again is not None


def _names(fix: Fix, node: Candidate) -> bool:
    """Whether the clause says already where the task will be."""
    match fix.step:
        case Renode(node=changed):
            return changed.id == node.id
        case Leave():
            return fix.says.endswith(f" {node.name}")  # the node that is left
        case _:
            return False
