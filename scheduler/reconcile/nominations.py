"""Which slots wait for room that is being made for them, and on which nodes.

Kept in the leader's memory alone: whoever leads next sees from the records what is ending.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeport.model import Grant, NodeId, ServiceId, TaskId
from scheduler.placement.asks import Ask
from scheduler.reconcile.slots import Vacancy

SlotKey = tuple[ServiceId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nominated:
    """A slot whose room on a node comes."""

    ask: Ask
    node: NodeId
    grants: tuple[Grant, ...] = ()  # the devices that it is to get
    victims: frozenset[TaskId] = frozenset()  # what ends for it, all in all


class Nominations:
    """All that stand, for one term. Owned by the controller."""

    def __init__(self) -> None:
        """None."""
        self._of: dict[SlotKey, Nominated] = {}

    def standing(
        self, looked: Collection[ServiceId], vacancies: Sequence[Vacancy]
    ) -> dict[SlotKey, Nominated]:
        """Those that count in a look at these services, whose slots want these tasks."""
        if not self._of:
            return {}
        wanted = {(each.service, each.slot) for each in vacancies if not each.blocked}
        return {
            slot: each for slot, each in self._of.items() if slot in wanted or slot[0] not in looked
        }

    def replace(
        self, looked: Collection[ServiceId], nominated: Mapping[SlotKey, Nominated]
    ) -> list[NodeId]:
        """These are the nominations of the services that were looked at.

        Returns the nodes on which room may be for others now.
        """
        if not (self._of or nominated):
            return []
        released: list[NodeId] = []
        for slot, each in list(self._of.items()):
            if slot[0] in looked:
                after = nominated.get(slot)
                if after is None or after.node != each.node:
                    released.append(each.node)
                del self._of[slot]
        self._of |= nominated
        return released
