"""What a scheduler may act with while it leads, and not a moment longer.

Made at the beginning of an epoch and dropped whole at its end: nothing of it outlives the
leadership, so a scheduler that leads again starts from what the store and the agents say.
Dispatch and API share it and do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from homeport.model import Event, OrderId
from homeport.seams import Clock, Randomness
from scheduler.cluster.changes import Change
from scheduler.cluster.observed import Dirt, Doubt, Observed, doubt_of
from scheduler.cluster.snapshot import Snapshot
from scheduler.config import Timers
from scheduler.store.base import Fence
from scheduler.store.commit import Committer
from scheduler.store.mirror import Mirror


class NotLeading(Exception):
    """This scheduler does not lead; `leader` is the address of the one that does, if known."""

    def __init__(self, leader: str, detail: str = "") -> None:
        """`leader` may be empty; `detail` then says who and what was looked at."""
        self.leader = leader
        super().__init__(
            f"this scheduler does not lead; the leader is {leader}"
            if leader
            else "no scheduler leads at the moment" + (f" ({detail})" if detail else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One epoch's view of the cluster and right to change it."""

    mirror: Mirror
    committer: Committer
    observed: Observed
    dirt: Dirt
    wake: Callable[[], None]  # have the controller look
    clock: Clock
    randomness: Randomness
    timers: Timers
    fence: Fence
    lead_until: Callable[[], float]  # boot time up to which the leadership is proven

    @property
    def epoch(self) -> int:
        """The create-revision of the leader key."""
        return self.fence.epoch

    @property
    def is_proven(self) -> bool:
        """Whether this scheduler certainly leads now; asked before every grant of a lease."""
        return self.clock.boottime() < self.lead_until()

    @property
    def doubt(self) -> Doubt | None:
        """Why nothing may be changed or ordered now: the store is behind what agents have seen."""
        return doubt_of(self.mirror.tables, self.observed)

    def snapshot(self) -> Snapshot:
        """The cluster as it is known now; valid until the next await."""
        return Snapshot(
            self.mirror.tables, self.observed, self.clock.boottime(), self.clock.wall_ms()
        )

    def order(self) -> OrderId:
        """What an order that is given now is compared by."""
        cluster = self.mirror.tables.cluster
        assert cluster is not None, "the cluster's record is made before anything is served"
        return OrderId(
            cluster=cluster.id,
            incarnation=cluster.incarnation,
            epoch=self.epoch,
            revision=self.mirror.newest,
        )

    async def commit(self, changes: Sequence[Change]) -> int:
        """Make all changes or none under this epoch's fence. Raises StoreError."""
        return await self.committer.commit(changes, self.fence)

    def tell(self, kind: str, name: str, reason: str, message: str, *, node: str = "") -> None:
        """Add an event of now; `reason` is CamelCase, `message` a sentence."""
        self.observed.add_event(
            Event(
                at_ms=self.clock.wall_ms(),
                kind=kind,
                object=name,
                reason=reason,
                message=message,
                node=node,
            )
        )
