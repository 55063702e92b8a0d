"""Where a service's tasks are, of which kinds, and who listens to that."""

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

    __slots__ = ("_kinds", "listeners", "nodes")

    def __init__(self) -> None:
        """Nowhere."""
        self.nodes: dict[NodeId, int] = {}
        self.listeners: list[Listener] = []
        self._kinds: dict[tuple[str, bool], _Kind] = {}  # by class, and if it fixes volumes

    def count(self, entry: Held, row: int, times: int) -> None:
        """So many tasks more, or fewer, of this kind on its node, which has this row."""
        node, kind = entry.node, self._of_kind(entry)
        count = _count(kind.tasks, node, times)
        if not kind.tasks:
            del self._kinds[entry.needs.text, entry.fixes_volumes]
        if kind.tasks is not self.nodes:
            count = _count(self.nodes, node, times)
        for listener in self.listeners:
            listener.counted(row, count, times)

    def add(self, entry: Held, nodes: list[NodeId], rows: list[int], times: list[int]) -> None:
        """So many tasks more of one kind on each of these nodes, all different.

        Of `entry` the node does not matter.
        """
        kind = self._of_kind(entry)
        counts = _count_all(kind.tasks, nodes, times)
        if kind.tasks is not self.nodes:
            counts = _count_all(self.nodes, nodes, times)
        for listener in self.listeners:
            listener.counted_all(rows, counts, times)

    def entries(self) -> Iterator[tuple[Held, int]]:
        """What is there: what a task of each kind takes on each node, and how many do."""
        for kind in self._kinds.values():
            for node, tasks in kind.tasks.items():
                yield kind.entry.on(node), tasks

    def copy(self) -> Presence:
        """The same, to try things on; nobody listens."""
        other = Presence()
        other.nodes = dict(self.nodes)
        for key, kind in self._kinds.items():
            tasks = other.nodes if kind.tasks is self.nodes else dict(kind.tasks)
            other._kinds[key] = _Kind(kind.entry, tasks)
        return other

    def _of_kind(self, entry: Held) -> _Kind:
        key = (entry.needs.text, entry.fixes_volumes)
        kind = self._kinds.get(key)
        if kind is None:
            if self._kinds:
                self.nodes = dict(self.nodes)  # no longer those of one kind
                kind = _Kind(entry, {})
            else:
                kind = _Kind(entry, self.nodes)
            self._kinds[key] = kind
        return kind


class _Kind:
    """What a task of one kind takes, on whichever node, and how many there are on each.

    While a service has tasks of one kind only, `tasks` is the very dictionary of the service's:
    there may be a hundred thousand of them, and each is counted once.
    """

    __slots__ = ("entry", "tasks")

    def __init__(self, entry: Held, tasks: dict[NodeId, int]) -> None:
        """By node."""
        self.entry = entry
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
