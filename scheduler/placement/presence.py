"""Where a service's tasks are, and what of that is shared or listened to."""

from __future__ import annotations

from collections.abc import Iterator
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
        # By class and whether it fixes volumes: node -> what its tasks share, and how many do.
        self._shares: dict[tuple[str, bool], dict[NodeId, tuple[Held, int]]] = {}

    def share(self, entry: Held, times: int = 1) -> Held:
        """So many tasks more of this kind: the value that all of them share."""
        kind = (entry.needs.text, entry.fixes_volumes)
        shares = self._shares.get(kind)
        if shares is None:
            shares = self._shares[kind] = {}
        known = shares.get(entry.node)
        shared, tasks = known if known is not None else (entry, 0)
        shares[entry.node] = (shared, tasks + times)
        return shared

    def add(self, kind: Held, nodes: list[NodeId], rows: list[int], times: list[int]) -> list[Held]:
        """So many tasks more of one kind on each of these nodes: what those on each share.

        Of `kind` the node does not matter.
        """
        service, _, needs, fixes_volumes, name = kind
        shares = self._shares.setdefault((needs.text, fixes_volumes), {})
        here, result, counts = self.nodes, [], []
        for node, more in zip(nodes, times, strict=True):
            known = shares.get(node)
            if known is None:
                shared = Held(service, node, needs, fixes_volumes, name)
                shares[node] = (shared, more)
            else:
                shared = known[0]
                shares[node] = (shared, known[1] + more)
            result.append(shared)
            count = here[node] = here.get(node, 0) + more
            counts.append(count)
        for listener in self.listeners:
            listener.counted_all(rows, counts, times)
        return result

    def unshare(self, entry: Held) -> None:
        """One task fewer of this kind."""
        kind = (entry.needs.text, entry.fixes_volumes)
        shares = self._shares[kind]
        shared, tasks = shares[entry.node]
        if tasks > 1:
            shares[entry.node] = (shared, tasks - 1)
            return
        del shares[entry.node]
        if not shares:
            del self._shares[kind]

    def entries(self) -> Iterator[tuple[Held, int]]:
        """What is there: each value that tasks share, and how many do."""
        for shares in self._shares.values():
            yield from shares.values()

    def count(self, node: NodeId, row: int, times: int) -> None:
        """So many tasks more, or fewer, on this node."""
        count = self.nodes.get(node, 0) + times
        if count:
            self.nodes[node] = count
        else:
            del self.nodes[node]
        for listener in self.listeners:
            listener.counted(row, count, times)

    def copy(self) -> Presence:
        """The same, to try things on; nobody listens."""
        other = Presence()
        other.nodes = dict(self.nodes)
        other._shares = {kind: dict(shares) for kind, shares in self._shares.items()}
        return other
