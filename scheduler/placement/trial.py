"""A fleet and an ask on which changes are tried and taken back.

Each step is what the scheduler would be told by the event that carries it out, so what fits here
fits there. `back` undoes the last step exactly: the fleet afterwards equals that of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from homeport.model import Node, NodeId
from scheduler.cluster.observed import Refusal
from scheduler.placement import engine, filters
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Candidate, Fleet
from scheduler.placement.remedy import Leave, Renode, Respec, Step, Surroundings

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

    def go(self, step: Step) -> None:
        """Let it be so."""
        match step:
            case Respec(ask):
                before = self.ask
                self.ask = ask
                self._undo.append(lambda: setattr(self, "ask", before))
            case Renode():
                self._undo.append(self._renode(step))
            case Leave(task):
                entry, grants = self.fleet.held[task], self.fleet.grants.get(task, ())
                self.fleet.task_removed(task)
                self._undo.append(lambda: self.fleet.task_added(task, entry, grants))

    def back(self) -> None:
        """Take the last step back."""
        self._undo.pop()()

    def outcome(self, steps: Iterable[Step]) -> tuple[Candidate, list[Candidate]] | None:
        """Take all steps as their commands would: (who takes the task, who the ones that move).

        None: it does not come off. Everything is taken back before this returns.
        """
        taken, placed = 0, list[Placed]()
        again = list[Ask]()
        try:
            for step in steps:
                self.go(step)
                taken += 1
                if isinstance(step, Leave) and step.again is not None:
                    again.append(step.again)
            where = list[Candidate]()
            for batch in ([self.ask, *self._before()], *([each] for each in again)):
                answers = engine.place(self.fleet, batch)
                placed += [each for each in answers if isinstance(each, Placed)]
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

    def _before(self) -> list[Ask]:
        """What waits, too, and is decided before it. Tasks of its own service are as good as it."""
        rivals = (each for each in self.around.rivals if each.service != self.ask.service)
        return [each for each in rivals if each.order < self.ask.order][:RIVALS_MAX]

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
