"""How evenly the nodes are filled: numbers that a move makes better or worse.

The *load* of a node is what placement counts as room that is taken (`points`): the mean of the
reserved shares of cpu and memory, and a little for each task, because most tasks at home reserve
nothing. *Unevenness* is the standard deviation of the loads of the nodes that take tasks, in
thousandths of a node. All of it is whole numbers and follows from the fleet alone, so that a
move either makes a cluster more even or does not, on every scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

from homeport.model import NodeId
from homeport.spec import Strategy
from scheduler.placement.candidates import Candidate
from scheduler.placement.fleet import Fleet
from scheduler.placement.points import ROOM_UNIT, TASK_COST
from scheduler.placement.requirements import Requirements


def load(node: Candidate) -> int:
    """What is taken of a node, in units of room."""
    taken = _share(node.cpu_reserved, node.cpu_capacity) + _share(
        node.memory_reserved, node.memory_capacity
    )
    return taken // 2 + node.tasks * TASK_COST


def weight(needs: Requirements, node: Candidate) -> int:
    """What one task takes of a node, in units of room."""
    taken = _share(needs.cpu_millis, node.cpu_capacity) + _share(
        needs.memory_bytes, node.memory_capacity
    )
    return taken // 2 + TASK_COST


def _share(reserved: int, capacity: int) -> int:
    return reserved * ROOM_UNIT // capacity if capacity > 0 else 0


class Evenness:
    """The loads of a fleet's nodes; kept up by whoever moves tasks on that fleet."""

    def __init__(self, fleet: Fleet) -> None:
        """As the fleet is now. Nodes that take no tasks do not count."""
        self._fleet = fleet
        self._loads = {each.id: load(each) for each in fleet.candidates.values() if each.is_open}
        self._sum = sum(self._loads.values())
        self._squares = sum(each * each for each in self._loads.values())
        # Of tasks that are to be packed: how much of each node they take.
        self._packed: dict[NodeId, int] = {}
        for entry, tasks in fleet.entries():
            packs = (entry.needs.strategy or fleet.strategy) is Strategy.BINPACK
            if packs and (node := fleet.candidates.get(entry.node)) is not None:
                taken = tasks * weight(entry.needs, node)
                self._packed[node.id] = self._packed.get(node.id, 0) + taken

    @property
    def unevenness(self) -> int:
        """In thousandths of a node; 0 is even."""
        if not self._loads:
            return 0
        return isqrt(self._deviation(self._sum, self._squares)) * 1000 // self._scale

    @property
    def mean_load(self) -> int:
        """In units of room."""
        return self._sum // len(self._loads) if self._loads else 0

    def loads(self, *nodes: NodeId) -> dict[NodeId, int]:
        """What these nodes would have now: the fleet may hold a trial."""
        return {node: load(self._fleet.candidates[node]) for node in nodes}

    def fullest_first(self) -> list[NodeId]:
        """The nodes that take tasks; of equal ones the lowest name first."""
        nodes = [each for each in self._fleet.by_name() if each.id in self._loads]
        return [each.id for each in sorted(nodes, key=lambda each: -self._loads[each.id])]

    def change(self, after: Mapping[NodeId, int]) -> int:
        """Below 0: the cluster would be more even if these nodes had these loads; above: less."""
        total, squares = self._with(after)
        return self._deviation(total, squares) - self._deviation(self._sum, self._squares)

    def packs_better(self, needs: Requirements, source: NodeId, target: NodeId) -> bool:
        """Whether a task that is to be packed joins more of its like than it leaves."""
        nodes = self._fleet.candidates
        leaves = self._packed.get(source, 0) - weight(needs, nodes[source])
        joins, more = self._packed.get(target, 0), weight(needs, nodes[target])
        before = (leaves + weight(needs, nodes[source])) ** 2 + joins**2
        return leaves**2 + (joins + more) ** 2 > before

    def moved(
        self, needs: Requirements, source: NodeId, target: NodeId, after: Mapping[NodeId, int]
    ) -> None:
        """A task moved; `after` are the loads of both nodes now."""
        self._sum, self._squares = self._with(after)
        self._loads.update(after)
        if (needs.strategy or self._fleet.strategy) is Strategy.BINPACK:
            for node, times in ((source, -1), (target, 1)):
                more = times * weight(needs, self._fleet.candidates[node])
                self._packed[node] = self._packed.get(node, 0) + more

    @property
    def _scale(self) -> int:
        return len(self._loads) * ROOM_UNIT

    def _with(self, after: Mapping[NodeId, int]) -> tuple[int, int]:
        total, squares = self._sum, self._squares
        for node, new in after.items():
            old = self._loads[node]
            total += new - old
            squares += new * new - old * old
        return total, squares

    def _deviation(self, total: int, squares: int) -> int:
        """The variance, times the square of how many nodes there are."""
        return len(self._loads) * squares - total * total
