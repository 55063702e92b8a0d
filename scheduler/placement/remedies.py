"""What is the smallest change that makes a waiting task fit?

For the nodes that fail by the fewest rules, each way to be rid of the first objection is tried on
the fleet (`trial`), alone and then, where no small one suffices, several together (`together`).
What is answered has been tried as a whole, with the engine: the task gets a node, and so does each
that moves for it. The order is that of `remedy.Size`: what disturbs nobody comes first.

Asked only for `explain` and `plan`: it costs a look at all nodes and some hundred trials.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from scheduler.placement import addition, filters, fixes, grouping, together
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.placement.remedy import (
    Drain,
    Fix,
    Leave,
    Remedy,
    Renode,
    Size,
    Surroundings,
    Way,
)
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
TOGETHER_FROM = Size.RELAX
"""Where no smaller change does, it is asked whether several tasks could make way together: what
the service's file says, or what its nodes may bear, was perhaps meant so."""
OUTCOMES_MAX, SORT_MAX = 60, 20
"""Remedies that are tried as a whole at once, and of one sort; most are found at the first try."""
WAIT_SECONDS = 60
"""How long the commands of a move wait for the task that gets the room."""

Found = tuple[Way, Candidate | None]
"""What is to be done, and the node for which it was found; None: one that is not there."""
Outcome = tuple[Candidate, list[Candidate]]
"""Who takes the task, and who those that move."""


def find(fleet: Fleet, ask: Ask, around: Surroundings) -> tuple[Remedy, ...]:
    """The smallest changes that make it fit, the smallest first; none where it fits as it is.

    The fleet is tried things on, and is afterwards as it was.
    """
    trial = Trial(fleet, ask, around)
    nodes = _promising(fleet, ask)
    if nodes is None:
        return ()
    tried = _Tried(trial)
    tried.add((way, node) for node in nodes for way in _single(trial, node))
    single = tried.smallest
    if tried.smallest >= TOGETHER_FROM:
        effort = together.Effort()
        tried.add((way, node) for node in nodes for way in together.sets(trial, node, effort))
        tried.add(
            (way, node) for node in nodes for way in together.chains(trial, node, nodes, effort)
        )
    if tried.smallest >= TOGETHER_FROM:
        tried.add(
            ((fix,), node) for node in nodes if (fix := together.drain(trial, node)) is not None
        )
    if single > SINGLE_MAX:
        tried.add((way, node) for node in nodes for way in _pairs(trial, node))
    if (added := addition.of(fleet, ask)) is not None:
        tried.add([((added,), None)])
    return tried.remedies()


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


class _Tried:
    """What came off when it was tried as a whole: of each sort the smallest."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._found: dict[tuple[str, ...], tuple[Found, Outcome]] = {}

    @property
    def smallest(self) -> int:
        """The size of the smallest so far; more than all sizes: there is none."""
        sizes = (_size(way) for (way, _), _ in self._found.values())
        return min(sizes, default=max(Size) + 1)

    def add(self, found: Iterable[Found]) -> None:
        """Try these, the smallest first."""
        tries: dict[tuple[str, ...], int] = {}
        done: set[tuple[str, ...]] = set()
        for each in sorted(found, key=_order):
            way, _ = each
            sort = tuple(sorted(fix.sort for fix in way))
            if sort in done or tries.get(sort, 0) == SORT_MAX:
                continue
            if len(done) == REMEDIES_MAX or sum(tries.values()) >= OUTCOMES_MAX:
                return
            tries[sort] = tries.get(sort, 0) + 1
            outcome = self._trial.outcome([fix.step for fix in way])
            if outcome is None:
                continue
            done.add(sort)
            known = self._found.get(sort)
            if known is None or _order(each) < _order(known[0]):
                self._found[sort] = (each, outcome)

    def remedies(self) -> tuple[Remedy, ...]:
        """The smallest of them, in words."""
        best = sorted(self._found.values(), key=lambda each: _order(each[0]))[:REMEDIES_MAX]
        return tuple(_remedy(self._trial.ask, way, *outcome) for (way, _), outcome in best)


def _order(found: Found) -> tuple[object, ...]:
    way, node = found
    worst = sorted(way, key=lambda fix: (-fix.size, fix.harm))
    sizes, harms = [fix.size for fix in worst], [fix.harm for fix in worst]
    return (_size(way), len(way), sizes, harms, node.name if node is not None else "")


def _size(way: Way) -> Size:
    return max(fix.size for fix in way)


def _remedy(ask: Ask, way: Way, node: Candidate, moved: list[Candidate]) -> Remedy:
    """In words; `moved`: where those go that are placed anew, in the order of the way."""
    targets = iter(moved)
    clauses = [f"{fix.says} to {next(targets).name}" if fix.moves else fix.says for fix in way]
    commands = [command for fix in way for command in fix.commands]
    runs = ask.name
    for fix in way:
        if fix.afterwards:
            # Each comes back alone, as it was tried: the next one might take its place.
            commands.append(f"homeport wait {shlex.quote(runs)} --timeout {WAIT_SECONDS}")
            commands += fix.afterwards
            runs = fix.step.again.name if isinstance(fix.step, Leave) and fix.step.again else runs
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


def _names(fix: Fix, node: Candidate) -> bool:
    """Whether the clause says already where the task will be."""
    match fix.step:
        case Renode(node=changed):
            return changed.id == node.id
        case Drain(node=drained):
            return drained == node.id
        case Leave():
            return fix.says.endswith(f" {node.name}")  # the node that is left
        case _:
            return False
