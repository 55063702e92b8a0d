"""GPUs of one node, what is left of them, and what a class asks of them.

A GPU has 1000 thousandths. A need takes either all of some GPUs or the same share of each. Only
what a task may have by its kind, vendor and model is looked at here; a need that names one device
by path or number takes that very one, and says nothing of what others will ask.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from homeport import devices
from homeport.model import MachineDevice
from homeport.spec import DeviceNeed
from scheduler.placement.requirements import Requirements

Look = tuple[str, str]
"""(vendor, model) of a GPU: needs without a name cannot tell GPUs of one look apart."""
Option = tuple[int, ...]
"""The GPUs that a task would get: their places in `Room.free`."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of a node with GPUs."""

    cpu_millis: int
    memory_bytes: int
    looks: tuple[Look, ...] = ()  # of each GPU
    free: tuple[int, ...] = ()  # thousandths that are left of each

    def without(self, needs: Requirements, option: Option, share: int) -> Room:
        """What is left once a task has got these GPUs."""
        free = list(self.free)
        for place in option:
            free[place] -= share
        return Room(
            self.cpu_millis - needs.cpu_millis,
            self.memory_bytes - needs.memory_bytes,
            self.looks,
            tuple(free),
        )


@functools.lru_cache(maxsize=4096)
def need_of(needs: Requirements) -> DeviceNeed | None:
    """The one need of GPUs by kind that a class has; None: none, several, or a named device."""
    found = [need for need in needs.devices if need.kind == devices.GPU and need.share_millis > 0]
    return found[0] if len(found) == 1 and not found[0].name else None


@functools.lru_cache(maxsize=4096)
def accepts(need: DeviceNeed, look: Look) -> bool:
    """Whether GPUs of this look will do."""
    vendor, model = look
    return devices.matches(need, MachineDevice(id="", kind=devices.GPU, vendor=vendor, model=model))


@functools.lru_cache(maxsize=4096)
def accepted(need: DeviceNeed, looks: tuple[Look, ...]) -> tuple[bool, ...]:
    """Of each GPU of a node, whether it will do."""
    return tuple(accepts(need, look) for look in looks)


def options(need: DeviceNeed, room: Room) -> tuple[Option, ...]:
    """The choices worth thinking about; none: the node has not enough left.

    A share of one GPU: the first of each different one, the fullest first. Otherwise there is one
    choice, of the fullest GPUs that have enough left, the lowest numbers first.
    """
    usable = [
        place
        for place, will_do in enumerate(accepted(need, room.looks))
        if will_do and room.free[place] >= need.share_millis
    ]
    if need.count == 1 and need.share_millis < devices.WHOLE_MILLIS:
        first: dict[tuple[Look, int], int] = {}
        for place in usable:
            first.setdefault((room.looks[place], room.free[place]), place)
        return tuple((place,) for place in sorted(first.values(), key=lambda each: room.free[each]))
    if need.count < 0:
        there = sum(accepted(need, room.looks))
        return (tuple(usable),) if there and len(usable) == there else ()
    if len(usable) < need.count:
        return ()
    usable.sort(key=lambda place: (room.free[place], place))
    return (tuple(sorted(usable[: need.count])),)
