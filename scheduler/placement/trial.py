"""A fleet and an ask on which changes are tried and taken back.

Each step is what the scheduler would be told by the event that carries it out, so what fits here
fits there. `back` undoes the last step exactly: the fleet afterwards equals that of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations

from homeport.model import Availability, Node, NodeId, TaskId
from scheduler.cluster.observed import Refusal
from scheduler.placement import engine, filters
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.placement.remedy import Drain, Leave, Leaver, Renode, Respec, Step, Surroundings

PERMUTED_MAX, ORDERS_MAX = 4, 12
"""Tasks of which each order is tried, and the orders of more, forwards and backwards."""
RIVALS_MAX = 20
"""Other waiting tasks that are placed with it; there are more only where nothing fits anyway."""


class Trial:
    """Has the only reference to its fleet while it is used."""

    def __init__(self, fleet: Fleet, ask: Ask, around: Surroundings) -> None:
        """Nothing is tried yet."""
        self.fleet = fleet
        self.ask = ask
        self.around = around
        self._records: dict[NodeId, Node] = {}  # of nodes that were changed
        self._undo: list[Callable[[], None]] = []

    def refusal(self, node: Candidate) -> Refusal | None:
        """The first rule that still keeps the task from this node."""
        return filters.first_refusal(self.fleet, self.ask, node)

    def record(self, node: NodeId) -> Node:
        """What is stored of a node, with what was tried."""
        return self._records.get(node) or self.around.nodes[node]

    def go(self, step: Step) -> bool:
        """Let it be so; False: it does not come off, and nothing is changed."""
        match step:
            case Respec(ask):
                before = self.ask
                self.ask = ask
                self._undo.append(lambda: setattr(self, "ask", before))
            case Renode():
                self._undo.append(self._renode(step))
            case Leave(task):
                self._undo.append(self._leave(task))
            case Drain():
                if (undo := self._drain(step)) is None:
                    return False
                self._undo.append(undo)
        return True

    def back(self) -> None:
        """Take the last step back."""
        self._undo.pop()()

    def outcome(self, steps: Sequence[Step]) -> tuple[Candidate, list[Candidate]] | None:
        """Take all steps as their commands would: (who takes the task, who the ones that move).

        None: it does not come off. Everything is taken back before this returns.
        """
        if len(steps) > 1 and self._is_forestalled(steps):
            return None
        taken, placed = 0, list[Placed]()
        again = [each.again for each in steps if isinstance(each, Leave) and each.again is not None]
        try:
            for step in steps:
                if not self.go(step):
                    return None
                taken += 1
            before, after = self._rivals()
            batches = [[self.ask, *before], *([each] for each in again)]
            if again and after:
                batches.insert(1, after)  # what is left over is theirs before anybody comes back
            where = list[Candidate]()
            for batch in batches:
                answers = engine.place(self.fleet, batch)
                placed += [each for each in answers if isinstance(each, Placed)]
                if batch is after:
                    continue
                mine = next(each for each in answers if each.ask is batch[0])
                if not isinstance(mine, Placed):
                    return None
                where.append(self.fleet.candidates[mine.node])
            return where[0], where[1:]
        finally:
            for each in reversed(placed):
                engine.undo(self.fleet, each)
            for _ in range(taken):
                self.back()

    def _is_forestalled(self, steps: Sequence[Step]) -> bool:
        """Whether others that wait would take the room before the last step has made enough.

        Nobody knows which of the tasks that are told to leave is gone first.
        """
        before, after = self._rivals()
        rivals = list({each.kind: each for each in (*before, *after)}.values())
        late = [each for each in steps if isinstance(each, Leave)]
        states = [steps[:-1], *([each for each in steps if each is not last] for last in late)]
        return bool(rivals) and any(self._fits_any(rivals, each) for each in states)

    def _fits_any(self, asks: Iterable[Ask], steps: Iterable[Step]) -> bool:
        """Whether a node takes one of these once the steps are taken."""
        taken = sum([self.go(each) for each in steps])  # all of them, whoever comes off
        fits = any(engine.is_placeable(self.fleet, each) for each in asks)
        for _ in range(taken):
            self.back()
        return fits

    def _rivals(self) -> tuple[list[Ask], list[Ask]]:
        """What waits, too: what is decided before it, and after it.

        Tasks of its own service are as good as it.
        """
        rivals = [each for each in self.around.rivals if each.service != self.ask.service]
        before = [each for each in rivals if each.order < self.ask.order]
        after = [each for each in rivals if each.order >= self.ask.order]
        return before[:RIVALS_MAX], after[:RIVALS_MAX]

    def _leave(self, task: TaskId) -> Callable[[], None]:
        fleet = self.fleet
        entry, grants = fleet.held[task], fleet.grants.get(task, ())
        fleet.task_removed(task)
        return lambda: fleet.task_added(task, entry, grants)

    def _drain(self, step: Drain) -> Callable[[], None] | None:
        """Have the node empty and open; how to undo it, None: somebody finds no other node."""
        node = self.fleet.candidates[step.node]
        drained = replace(self.record(step.node), availability=Availability.DRAIN)
        reopen = self._renode(
            Renode(node=drained, ready=node.ready, unfit=node.unfit, unfenced=node.unfenced)
        )
        undo: Callable[[], None] | None = None
        for order in _orders(step.leaving):
            if undo is not None:
                undo()
            if (undo := self._resettle(order)) is None:
                break
        reopen()
        return undo

    def _resettle(self, order: Iterable[Leaver]) -> Callable[[], None] | None:
        """Have tasks leave and start elsewhere, one after the other; None: one found no node."""
        undo: list[Callable[[], None]] = []

        def back() -> None:
            for each in reversed(undo):
                each()

        for task, again in order:
            undo.append(self._leave(task))
            (answer,) = engine.place(self.fleet, [again])
            if not isinstance(answer, Placed):
                back()
                return None
            undo.append(partial(engine.undo, self.fleet, answer))
        return back

    def _renode(self, step: Renode) -> Callable[[], None]:
        fleet, node = self.fleet, step.node
        known = fleet.candidates.get(node.id)
        if known is None:
            fleet.node_changed(node, ready=step.ready, unfit=step.unfit, unfenced=step.unfenced)
            return lambda: fleet.node_removed(node.id)
        old, (ready, unfit, unfenced) = (
            self.record(node.id),
            (known.ready, known.unfit, known.unfenced),
        )
        self._records[node.id] = node
        fleet.node_changed(node, ready=step.ready, unfit=step.unfit, unfenced=step.unfenced)

        def restore() -> None:
            self._records[node.id] = old
            fleet.node_changed(old, ready=ready, unfit=unfit, unfenced=unfenced)

        return restore


def _orders(leaving: Sequence[Leaver]) -> Iterator[Sequence[Leaver]]:
    """Of few tasks all orders, of many some; the last one is that of the asks.

    Those of different services leave a drained node together, and whoever stops sooner is placed
    sooner: it must come off whoever that is.
    """
    usual = sorted(leaving, key=lambda each: each[1].order)
    if len(usual) <= PERMUTED_MAX:
        yield from permutations(usual)
    else:
        for first in range(0, len(usual), -(-len(usual) // ORDERS_MAX)):
            turned = [*usual[first:], *usual[:first]]
            yield from (turned, turned[::-1])
    yield usual
