"""Keeps the figures of what each node's loss would cost, for whoever scrapes.

Worked out when somebody asks and something has changed since, one node after the other; between
two the event loop is free. An idle cluster costs one comparison per scrape, one in turmoil a tenth
of the time. A newcomer's mistake: keeping the snapshot over an await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from homeport.model import NodeId
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import losses
from scheduler.reconcile.losses import Loss

PAUSE_FACTOR = 9
"""So many times as long as a round took the next one waits: a tenth of the time at most."""

Mark = tuple[object, ...]


class Losses:
    """What the last scrapes found, by node."""

    def __init__(
        self, snapshot: Callable[[], Snapshot | None], revision: Callable[[], int]
    ) -> None:
        """`snapshot`: None while this scheduler does not lead."""
        self.found: dict[NodeId, Loss] = {}
        self.looked = 0  # nodes whose loss was worked out, ever
        self._snapshot = snapshot
        self._revision = revision
        self._known: Mark | None = None  # the state that all of `found` is of
        self._not_before = 0.0  # of the loop's time
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Bring the figures up to date, if anything has changed."""
        async with self._turn:
            snapshot = self._snapshot()
            if snapshot is None:
                self.found, self._known = {}, None
                return
            began = self._mark(snapshot)
            now = asyncio.get_running_loop().time()
            if began == self._known or now < self._not_before:
                return
            found: dict[NodeId, Loss] = {}
            if not losses.are_told(snapshot):
                self.found, self._known = found, began
                return
            mark, fleet = began, Fleet.from_snapshot(snapshot)
            for node in [each.id for each in snapshot.stored.nodes()]:
                await asyncio.sleep(0)
                if (snapshot := self._snapshot()) is None:
                    return
                if (newer := self._mark(snapshot)) != mark:
                    mark, fleet = newer, Fleet.from_snapshot(snapshot)
                if (loss := losses.of_node(snapshot, fleet, node)) is not None:
                    found[node] = loss
                self.looked += 1
            # Of a cluster that changed meanwhile each figure is right for its moment; the next
            # scrape looks again.
            self.found, self._known = found, began if mark == began else None
            ended = asyncio.get_running_loop().time()
            self._not_before = ended + PAUSE_FACTOR * (ended - now)

    def _mark(self, snapshot: Snapshot) -> Mark:
        nodes = [each.id for each in snapshot.stored.nodes()]
        states = (losses.state_of(snapshot, node) for node in nodes)
        return (self._revision(), *zip(nodes, states, strict=True))
