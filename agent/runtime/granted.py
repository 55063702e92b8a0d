"""From the devices that a task was given to what its container is to see of them.

A decider. The scheduler says which devices; where they are now is the machine's to say, for a
stick that was /dev/ttyUSB0 may be /dev/ttyUSB1 since the last boot. A newcomer's mistake: mapping
what a request asks for instead of what was given, so that two tasks get the same GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from homeport import devices
from homeport.model import Assignment, Grant, MachineDevice
from homeport.spec import Device, DeviceNeed, DeviceRequest, ServiceSpec

NVIDIA = "nvidia"
KFD = "/dev/kfd"
"""Beside its render node, what a program needs to compute on a GPU of AMD's."""
_LINKS = ("/by-id/", "/by-path/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What the container sees, and what is wrong with that, in sentences."""

    devices: tuple[Device, ...] = ()
    requests: tuple[DeviceRequest, ...] = ()
    objections: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def granted(spec: ServiceSpec, assignment: Assignment, machine: Sequence[MachineDevice]) -> Granted:
    """All devices of the container, those of `container.devices` and requests included.

    `machine`: what it has now. A request without a grant goes to the engine as it is.
    """
    known = {device.id: device for device in machine}
    sources = devices.sources(spec)
    given: dict[int, list[Grant]] = {}
    for grant in assignment.grants:
        given.setdefault(grant.need, []).append(grant)
    missing: list[str] = []
    mapped = {device.source for device in spec.container.devices}
    ids: dict[DeviceRequest, list[str]] = {}
    nodes: list[Device] = [*spec.container.devices]
    requests: list[DeviceRequest] = []
    without: list[str] = []
    for index, (source, need) in enumerate(sources):
        grants = given.get(index, [])
        if isinstance(source, DeviceRequest):
            ids.setdefault(source, []).extend(each.device for each in grants)
        elif isinstance(source, DeviceNeed) and need.name not in mapped:
            here = [known[each.device] for each in grants if each.device in known]
            missing += [each.device for each in grants if each.device not in known]
            gpus = [each.id for each in here if _is_nvidia(each)]
            if gpus:
                requests.append(_request(gpus))
            nodes += _nodes(need, [each for each in here if not _is_nvidia(each)], known)
            if not grants and not need.name.startswith("/"):
                without.append(need.name or need.kind or need.vendor or ", ".join(need.models))
            elif not grants:
                nodes.append(Device(source=need.name, target=need.target or need.name))
    return Granted(
        devices=tuple(dict.fromkeys(nodes)),
        requests=(*_settled(spec, ids), *requests),
        objections=tuple(
            f"device {each}, which this task was given, is not on this machine any more"
            for each in missing
        ),
        notices=tuple(f"no device was given for x-homeport.device {each}" for each in without),
    )


def _settled(
    spec: ServiceSpec, ids: Mapping[DeviceRequest, Sequence[str]]
) -> Iterator[DeviceRequest]:
    """The requests of the spec, with the very devices where some were given."""
    for request in spec.container.device_requests:
        given = ids.get(request, ())
        yield replace(request, count=0, device_ids=tuple(given)) if given else request


def _request(gpus: Sequence[str]) -> DeviceRequest:
    return DeviceRequest(driver=NVIDIA, device_ids=tuple(gpus), capabilities=(devices.GPU,))


def _nodes(
    need: DeviceNeed, here: Sequence[MachineDevice], known: Mapping[str, MachineDevice]
) -> Iterator[Device]:
    for device in here:
        paths = [name for name in device.names if name.startswith("/")]
        nodes = [path for path in paths if not any(link in path for link in _LINKS)]
        if need.name in paths:
            yield Device(source=need.name, target=need.target or need.name)
        elif need.target and nodes:
            yield Device(source=nodes[0], target=need.target)
        else:
            yield from (Device(source=path, target=path) for path in nodes)
        if device.kind == devices.GPU and device.vendor == "amd" and KFD in known:
            yield Device(source=KFD, target=KFD)


def _is_nvidia(device: MachineDevice) -> bool:
    return device.kind == devices.GPU and device.vendor == NVIDIA
