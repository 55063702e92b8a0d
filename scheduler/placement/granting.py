"""Which devices of a node a task gets: each need in turn, so that all of them are met.

Of equal devices the one that is used most comes first, then the one that the node lists first;
the choice of a part of a GPU is `fragmentation`'s. A path that the node's agent does not list
may be there all the same: then nothing is granted, and the agent finds out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from homeport import devices
from homeport.model import Grant
from homeport.spec import DeviceNeed
from scheduler.placement import fragmentation, gpus
from scheduler.placement.candidates import Candidate
from scheduler.placement.fragmentation import Mix
from scheduler.placement.gpus import Room
from scheduler.placement.requirements import Requirements


def grants(needs: Requirements, node: Candidate, typical: Mix = ()) -> tuple[Grant, ...] | None:
    """What a task of this class gets here; None: the node has not enough left."""
    taken = dict(node.granted)
    order = list(range(len(needs.devices)))
    if len(order) > 1:
        order.sort(key=lambda which: _matching(needs, node, which))
    need = gpus.need_of(needs)
    if need is not None and node.gpus:
        room = room_of(node)
        found_options = gpus.options(need, room)
        if len(found_options) > 1:
            found_options = (fragmentation.best(typical, room, needs)[1],)
        for option in found_options:
            which = needs.devices.index(need)
            first = tuple(
                Grant(device=node.gpus[place].id, need=which, share_millis=need.share_millis)
                for place in option
            )
            others = [each for each in order if each != which]
            found = _met(needs, node, others, _with(taken, first))
            if found is not None:
                return tuple(sorted((*first, *found), key=_need))
    found = _met(needs, node, order, taken)
    return None if found is None else tuple(sorted(found, key=_need))


def missing(needs: Requirements, node: Candidate) -> tuple[str, str] | None:
    """The need for which the node has no devices, or too few, were they all free; and how many."""
    for need in needs.devices:
        there = sum(devices.matches(need, each) for each in node.devices)
        unlisted = not there and devices.may_be_unlisted(need, node.device_patterns)
        if there < max(need.count, 1) and not unlisted:
            return shown(need), str(there)
    return None


def lacking(needs: Requirements, node: Candidate) -> tuple[str, str] | None:
    """The need that cannot be met, and how many such devices are free; None: all can."""
    if not needs.devices:
        return None
    alone = gpus.need_of(needs) if len(needs.devices) == 1 else None
    if alone is not None and gpus.options(alone, room_of(node)):
        return None
    if alone is None and grants(needs, node) is not None:
        return None
    for need in needs.devices:
        free = _usable(need, node, node.granted)
        if not free or len(free) < need.count:
            return shown(need), str(len(free))
    return ", ".join(shown(need) for need in needs.devices), "not all at once"


def shown(need: DeviceNeed) -> str:
    """A need as a user would say it: `2 nvidia gpu`, `300/1000 of gpu T4`, `/dev/ttyUSB0`."""
    what = " ".join(
        word for word in (need.vendor, need.kind, "|".join(need.models), need.name) if word
    )
    share = ""
    if 0 < need.share_millis < devices.WHOLE_MILLIS:
        share = f"{need.share_millis}/{devices.WHOLE_MILLIS} of "
    count = "all " if need.count < 0 else f"{need.count} " if need.count > 1 else ""
    return f"{share}{count}{what or 'device'}"


def room_of(node: Candidate) -> Room:
    """A node with GPUs, as `fragmentation` sees it."""
    return Room(
        max(node.cpu_capacity - node.cpu_reserved, 0),
        max(node.memory_capacity - node.memory_reserved, 0),
        tuple((gpu.vendor, gpu.model) for gpu in node.gpus),
        tuple(max(devices.WHOLE_MILLIS - node.granted.get(gpu.id, 0), 0) for gpu in node.gpus),
    )


def _met(
    needs: Requirements, node: Candidate, order: list[int], taken: Mapping[str, int]
) -> tuple[Grant, ...] | None:
    if not order:
        return ()
    which, *others = order
    for choice in _choices(needs.devices[which], node, taken):
        share = needs.devices[which].share_millis
        given = tuple(Grant(device=each, need=which, share_millis=share) for each in choice)
        rest = _met(needs, node, others, _with(taken, given))
        if rest is not None:
            return (*given, *rest)
    return None


def _choices(
    need: DeviceNeed, node: Candidate, taken: Mapping[str, int]
) -> Iterator[tuple[str, ...]]:
    there = [each for each in node.devices if devices.matches(need, each)]
    if not there:
        if devices.may_be_unlisted(need, node.device_patterns):
            yield ()
        return
    usable = _usable(need, node, taken)
    if need.count < 0:
        if len(usable) == len(there):
            yield tuple(usable)
        return
    yield from combinations(usable, need.count)


def _usable(need: DeviceNeed, node: Candidate, taken: Mapping[str, int]) -> list[str]:
    """Ids of the devices with enough left, the most used first."""
    most = devices.WHOLE_MILLIS - need.share_millis
    found = [
        each.id
        for each in node.devices
        if devices.matches(need, each) and (not need.share_millis or taken.get(each.id, 0) <= most)
    ]
    if need.share_millis:
        found.sort(key=lambda each: -taken.get(each, 0))
    return found


def _with(taken: Mapping[str, int], more: tuple[Grant, ...]) -> dict[str, int]:
    result = dict(taken)
    for grant in more:
        result[grant.device] = result.get(grant.device, 0) + grant.share_millis
    return result


def _matching(needs: Requirements, node: Candidate, which: int) -> int:
    need = needs.devices[which]
    return sum(devices.matches(need, each) for each in node.devices)


def _need(grant: Grant) -> int:
    return grant.need
