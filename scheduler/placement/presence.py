"""Where a service's tasks are, and what of that is shared or listened to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from operator import add
from typing import Protocol

from homeport.model import NodeId
from scheduler.placement.candidates import Held


class Listener(Protocol):
    """What keeps something that depends on how many tasks of a service a node has."""

    def counted(self, row: int, count: int, times: int) -> None:
        """The node in this row of the columns has `count` now, `times` more than before.

        Row -1: the node has no record.
        """
        ...

    def counted_all(self, rows: list[int], counts: list[int], times: list[int]) -> None:
        """The same of many nodes, all of which have records."""
        ...


class Presence:
    """The nodes that have tasks of one service."""

    __slots__ = ("_shares", "listeners", "nodes")

    def __init__(self) -> None:
        """Nowhere."""
        self.nodes: dict[NodeId, int] = {}
        self.listeners: list[Listener] = []
        self._shares: dict[tuple[str, bool], _Shares] = {}  # by class, and if it fixes volumes

    def count(self, entry: Held, row: int, times: int) -> Held:
        """So many tasks more, or fewer, of this kind on its node, which has this row.

        Returns the value that they share.
        """
        node, shares = entry.node, self._of_kind(entry)
        shared = shares.held.setdefault(node, entry)
        count = _count(shares.tasks, node, times)
        if not count:
            del shares.held[node]
            if not shares.held:
                del self._shares[entry.needs.text, entry.fixes_volumes]
        if shares.tasks is not self.nodes:
            count = _count(self.nodes, node, times)
        for listener in self.listeners:
            listener.counted(row, count, times)
        return shared

    def add(self, kind: Held, nodes: list[NodeId], rows: list[int], times: list[int]) -> list[Held]:
        """So many tasks more of one kind on each of these nodes, all different: what they share.

        Of `kind` the node does not matter.
        """
        shares = self._of_kind(kind)
        if missing := [node for node in nodes if node not in shares.held]:
            shares.held.update(zip(missing, kind.on_each(missing), strict=True))
        counts = _count_all(shares.tasks, nodes, times)
        if shares.tasks is not self.nodes:
            counts = _count_all(self.nodes, nodes, times)
        for listener in self.listeners:
            listener.counted_all(rows, counts, times)
        return list(map(shares.held.__getitem__, nodes))

    def entries(self) -> Iterator[tuple[Held, int]]:
        """What is there: each value that tasks share, and how many do."""
        for shares in self._shares.values():
            for node, entry in shares.held.items():
                yield entry, shares.tasks[node]

    def copy(self) -> Presence:
        """The same, to try things on; nobody listens."""
        other = Presence()
        other.nodes = dict(self.nodes)
        for kind, shares in self._shares.items():
            tasks = other.nodes if shares.tasks is self.nodes else dict(shares.tasks)
            other._shares[kind] = _Shares(dict(shares.held), tasks)
        return other

    def _of_kind(self, entry: Held) -> _Shares:
        kind = (entry.needs.text, entry.fixes_volumes)
        shares = self._shares.get(kind)
        if shares is None:
            if self._shares:
                self.nodes = dict(self.nodes)  # no longer those of one kind
                shares = _Shares({}, {})
            else:
                shares = _Shares({}, self.nodes)
            self._shares[kind] = shares
        return shares


class _Shares:
    """What the tasks of one kind share on each node, and how many do.

    While a service has tasks of one kind only, `tasks` is the very dictionary of the service's:
    there may be a hundred thousand of them, and each is counted once.
    """

    __slots__ = ("held", "tasks")

    def __init__(self, held: dict[NodeId, Held], tasks: dict[NodeId, int]) -> None:
        """By node."""
        self.held = held
        self.tasks = tasks


def _count(counts: dict[NodeId, int], node: NodeId, times: int) -> int:
    count = counts.get(node, 0) + times
    if count:
        counts[node] = count
    else:
        del counts[node]
    return count


def _count_all(counts: dict[NodeId, int], nodes: list[NodeId], more: list[int]) -> list[int]:
    """Add to the counts of some nodes; returns what they are now."""
    result = list(map(add, map(counts.get, nodes, repeat(0)), more))
    counts.update(zip(nodes, result, strict=True))
    return result
