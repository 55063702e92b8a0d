"""Which devices of a machine a service's tasks take, from all places where a spec can say so.

Scheduler and agent list a service's needs in the same order, so that a grant of the one is
understood by the other. A newcomer's mistake: taking a device that a node does not list for one
that it does not have. Agents list devices of certain patterns; see `homeport.paths`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from fnmatch import fnmatchcase

from homeport import paths
from homeport.model import MachineDevice
from homeport.spec import Device, DeviceNeed, DeviceRequest, ServiceSpec

WHOLE_MILLIS = 1000
"""The share that is all of a device; `DeviceNeed.share_millis` and `Grant.share_millis`."""
GPU = "gpu"
Source = Device | DeviceRequest | DeviceNeed
CDI = "cdi"
"""Driver of requests by a Container Device Interface name: the engine alone knows what it means."""

ONE_USER = (
    "/dev/ttyUSB*",
    "/dev/ttyACM*",
    "/dev/ttyAMA*",
    "/dev/ttyS*",
    "/dev/serial/by-id/*",
    "/dev/serial/by-path/*",
    "/dev/apex_*",
    "/dev/hailo*",
)
"""Devices that a plain `devices:` entry takes alone: with two readers neither reads anything."""


@functools.lru_cache(maxsize=1024)
def needs(spec: ServiceSpec) -> tuple[DeviceNeed, ...]:
    """All devices that a task of this spec takes; `Grant.need` counts along this list."""
    return tuple(need for _, need in sources(spec))


def sources(spec: ServiceSpec) -> tuple[tuple[Source, DeviceNeed], ...]:
    """(what says so, what is needed) in the order of `needs`."""
    said = {need.name for need in spec.devices if need.name}
    mapped = (
        (device, _of_mapping(device))
        for device in spec.container.devices
        if device.source.startswith("/") and device.source not in said
    )
    requested = (
        (request, need) for request in spec.container.device_requests for need in requests(request)
    )
    return (*mapped, *requested, *((need, need) for need in spec.devices))


def _of_mapping(device: Device) -> DeviceNeed:
    share_millis = WHOLE_MILLIS if paths.covers(ONE_USER, device.source) else 0
    return DeviceNeed(name=device.source, share_millis=share_millis, target=device.target)


def requests(request: DeviceRequest) -> tuple[DeviceNeed, ...]:
    """What a request of Docker's kind takes; nothing where only the engine knows what it means."""
    if request.driver == CDI or GPU not in request.capabilities:
        return ()
    # An engine has one driver of this capability, and it is nvidia's unless another is named.
    vendor = request.driver or "nvidia"
    if request.device_ids:
        return tuple(DeviceNeed(name=each, kind=GPU, vendor=vendor) for each in request.device_ids)
    return (DeviceNeed(kind=GPU, vendor=vendor, count=request.count),) if request.count else ()


def matches(need: DeviceNeed, device: MachineDevice) -> bool:
    """Whether this is a device of the kind that is needed, taken or not."""
    return (
        (not need.name or need.name in device.names)
        and (not need.kind or need.kind == device.kind)
        and (not need.vendor or need.vendor == device.vendor)
        and (not need.models or any(_is_model(model, device.model) for model in need.models))
    )


def may_be_unlisted(need: DeviceNeed, patterns: Collection[str]) -> bool:
    """Whether a node that lists the devices of these patterns may have it all the same.

    Only a path alone can be: then its agent finds out, and no grant is made.
    """
    is_path = need.name.startswith("/")
    is_path_alone = is_path and not (need.kind or need.vendor or need.models)
    return is_path_alone and not paths.covers(patterns, need.name)


def _is_model(wanted: str, had: str) -> bool:
    return fnmatchcase(had.lower(), wanted.lower())
