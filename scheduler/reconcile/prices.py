"""What a move costs: what has to start and to be carried, and how long nobody serves.

Of images only those are known that a node's tasks use, and the sizes of those that were built and
handed to the scheduler. Local data is never carried: what has any does not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeport.lifecycle import TaskState
from homeport.model import NodeId
from homeport.spec import ServiceSpec
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import requirements_of

START_MS = 5_000
"""How long a container takes to start, for want of anything better."""
IMAGE_BYTES_PER_RESTART = 512 << 20
DOWNTIME_MS_PER_RESTART = 10_000
"""To carry so many bytes, or to be away for so long, weighs as much as a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one move."""

    restarts: int = 1
    image_bytes: int = 0
    volume_bytes: int = 0
    downtime_ms: int = 0
    carries_image: bool = False  # the node is not known to have it
    is_known: bool = True  # how large that is

    @property
    def weight_millis(self) -> int:
        """All of it as thousandths of a restart."""
        return (
            1000 * self.restarts
            + 1000 * (self.image_bytes + self.volume_bytes) // IMAGE_BYTES_PER_RESTART
            + 1000 * self.downtime_ms // DOWNTIME_MS_PER_RESTART
        )


class Prices:
    """Of the moves of one plan."""

    def __init__(self, snapshot: Snapshot, image_bytes: Mapping[str, int]) -> None:
        """`image_bytes`: the sizes of images, as far as they are known."""
        self._snapshot = snapshot
        self._image_bytes = image_bytes
        self._images: dict[NodeId, dict[str, None]] = {}

    def of(self, spec: ServiceSpec, ask: Ask, target: NodeId) -> Price:
        """The price of a task's move to a node.

        A successor that may run beside the old task is started first.
        """
        image = ask.needs.image
        carries = image not in self._there(target)
        downtime_ms = spec.container.stop_grace_ms + START_MS if ask.needs_lease else 0
        return Price(
            image_bytes=self._image_bytes.get(image, 0) if carries else 0,
            downtime_ms=downtime_ms,
            carries_image=carries,
            is_known=image in self._image_bytes,
        )

    def carried(self, node: NodeId, image: str) -> None:
        """The node has this image from now on."""
        self._there(node)[image] = None

    def _there(self, node: NodeId) -> dict[str, None]:
        """The images of the node's tasks that came to run there."""
        found = self._images.get(node)
        if found is None:
            found = self._images[node] = {}
            stored = self._snapshot.stored
            for task in stored.tasks_of_node(node):
                status = self._snapshot.observed.status(task.id)
                if status is not None and status.state.value >= TaskState.READY.value:
                    needs = requirements_of(stored, task.service, task.generation)
                    if status.state not in (TaskState.REJECTED, TaskState.REMOVED):
                        found[needs.image] = None
        return found
