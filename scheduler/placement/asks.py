"""What placement is asked, and what it answers.

An Ask is one slot that wants a task; it names the task that would be made, so that a
placement is assumed under its final id and the record's echo changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple, cast

from homeport.model import Grant, NodeId, ServiceId, TaskId, task_id
from scheduler.cluster.observed import Refusal
from scheduler.placement.fleet import Held
from scheduler.placement.requirements import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One task to be placed."""

    service: ServiceId
    slot: int
    n: int
    generation: int
    needs: Requirements  # its requirement class
    priority: int = 0
    only: NodeId | None = None  # a global service's node, or where its data is
    excluded: tuple[NodeId, ...] = ()  # where it failed because of the node
    fixes_volumes: bool = True
    name: str = ""  # STACK/SERVICE
    needs_lease: bool = False  # exclusive, and another node may get it: see Task.needs_lease
    preempts: bool = False  # tasks of lower priority may be ended for it

    @property
    def task(self) -> TaskId:
        """The id of the task that would be made."""
        return task_id(self.service, self.slot, self.n)

    @property
    def kind(self) -> tuple[object, ...]:
        """Asks of one kind find the same nodes feasible."""
        return (
            self.needs.text,
            self.service,
            self.only,
            self.excluded,
            self.fixes_volumes,
            self.needs_lease,
        )

    @property
    def order(self) -> tuple[object, ...]:
        """The defined order of decisions: priority, class, service, slot."""
        return (-self.priority, self.needs.order, self.service, self.slot, self.n)

    def on(self, node: NodeId) -> Held:
        """What the task would take on this node."""
        return Held(self.service, node, self.needs, self.fixes_volumes, self.name)


class Placed(NamedTuple):
    """The chosen node; the fleet already counts the task there."""

    ask: Ask
    node: NodeId
    grants: tuple[Grant, ...] = ()  # the devices that it gets there


def placed_all(asks: list[Ask], nodes: list[NodeId]) -> list[Placed]:
    """Each of these asks on its node, without devices.

    A named tuple's own constructor is a Python function; for a thousand of them it is what counts.
    """
    return list(map(_placed, zip(asks, nodes, repeat(()))))


_placed = cast(
    Callable[[tuple[Ask, NodeId, tuple[Grant, ...]]], Placed], partial(tuple.__new__, Placed)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """No node will do; why not, node by node in the order of names."""

    ask: Ask
    refusals: Sequence[Refusal]
