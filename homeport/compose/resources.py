"""Limits, reservations and devices: `deploy.resources` and the older keys beside it.

Compose has two places for the same thing. Both may be given when they agree; when they differ it
is an error, there and here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from homeport.compose import quantities
from homeport.compose.view import View
from homeport.spec import (
    BlockIO,
    CpuTuning,
    Device,
    DeviceRequest,
    Resources,
    ThrottleDevice,
    pairs,
)

MEMORY_MIN = 6 << 20  # Docker's own
PIDS_MAX = 4_194_304
COUNT_MAX = 10_000

_CPUSET = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
_CDI = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*=\S+")
_KIND = re.compile(r"[A-Za-z0-9][\w./-]{0,62}")


def _under(service: View, *keys: str) -> View | None:
    found: View | None = service
    for key in keys:
        if found is None:
            return None
        if not found.is_map:
            found.items() if found.is_list else found.refuse("must be a map")
            return None
        found = found.at(key)
    return found


def _either(
    service: View, legacy: str, section: str, key: str, parse: Callable[[str], int]
) -> tuple[int, View | None]:
    """The value of two keys that mean the same, and where it stands."""
    old = service.at(legacy)
    new = _under(service, "deploy", "resources", section, key)
    first = old.read(parse, 0) if old is not None else 0
    second = new.read(parse, 0) if new is not None else 0
    if old is not None and new is not None and first != second:
        old.refuse(f"differs from deploy.resources.{section}.{key}", "Remove one of the two")
    return (second, new) if new is not None else (first, old)


def limits(service: View) -> Resources:
    """What a container may use at most; 0 is no limit."""
    cpu, _ = _either(service, "cpus", "limits", "cpus", quantities.cpu_millis)
    memory, where = _either(service, "mem_limit", "limits", "memory", quantities.size_bytes)
    pids, _ = _either(
        service, "pids_limit", "limits", "pids",
        lambda text: quantities.whole(text, -1, PIDS_MAX),
    )  # fmt: skip
    if where is not None and 0 < memory < MEMORY_MIN:
        where.refuse("is less than the 6 MiB that Docker needs for a container")
    return Resources(cpu_millis=cpu, memory_bytes=memory, pids=pids)


def reservations(service: View, limit: Resources) -> Resources:
    """What a node must have free for a task."""
    memory, where = _either(
        service, "mem_reservation", "reservations", "memory", quantities.size_bytes
    )
    if where is not None and limit.memory_bytes and memory > limit.memory_bytes:
        where.refuse("is more than the memory limit")
    section = _under(service, "deploy", "resources", "reservations")
    if section is None:
        return Resources(memory_bytes=memory)
    cpus = section.at("cpus")
    cpu = cpus.read(quantities.cpu_millis, 0) if cpus is not None else 0
    if cpus is not None and limit.cpu_millis and cpu > limit.cpu_millis:
        cpus.refuse("is more than the cpu limit")
    generic: dict[str, str] = {}
    for item in section.listed("generic_resources"):
        spec = item.at("discrete_resource_spec")
        if spec is None:
            item.refuse("needs `discrete_resource_spec` with `kind` and `value`")
            continue
        kind = spec.text("kind")
        if not _KIND.fullmatch(kind):
            spec.refuse("needs a `kind`, the resource's name")
        elif kind in generic:
            spec.refuse(f"reserves {kind} a second time")
        else:
            generic[kind] = str(spec.whole("value", 0, 1_000_000, 1))
    return Resources(cpu_millis=cpu, memory_bytes=memory, generic=pairs(generic))


def memory_swap_bytes(service: View, limit: Resources) -> int:
    """`memswap_limit`: memory plus swap; -1 is unlimited."""
    found = service.at("memswap_limit")
    if found is None:
        return 0
    total = found.read(lambda text: -1 if text == "-1" else quantities.size_bytes(text), 0)
    if total > 0 and not limit.memory_bytes:
        found.refuse("needs a memory limit, of which it is the total with swap", "Set `mem_limit`")
    elif 0 < total < limit.memory_bytes:
        found.refuse("is less than the memory limit, of which it is the total with swap")
    return total


def cpu_tuning(service: View, limit: Resources) -> CpuTuning:
    """The engine's finer CPU options."""
    cpuset = service.at("cpuset")
    text = cpuset.as_text() if cpuset is not None else ""
    if cpuset is not None and text and not _CPUSET.fullmatch(text):
        cpuset.refuse(f"{text[:40]!r} is not a list of cores such as 0-3,5")
    quota = service.at("cpu_quota")
    if limit.cpu_millis and (quota is not None or service.at("cpu_period") is not None):
        service.refuse("`cpus` and `cpu_quota`/`cpu_period` say the same twice", "Keep `cpus`")
    return CpuTuning(
        shares=service.whole("cpu_shares", 0, 262_144),
        period_us=_microseconds(service, "cpu_period"),
        quota_us=_microseconds(service, "cpu_quota"),
        rt_period_us=_microseconds(service, "cpu_rt_period"),
        rt_runtime_us=_microseconds(service, "cpu_rt_runtime"),
        cpuset=text,
    )


def _microseconds(service: View, key: str) -> int:
    """Microseconds as a number, or as a duration."""

    def parse(text: str) -> int:
        if text.lstrip("-").isdigit():
            return quantities.whole(text, -1, 10**9)
        return quantities.duration_us(text)

    found = service.at(key)
    return found.read(parse, 0) if found is not None else 0


def block_io(service: View) -> BlockIO:
    """`blkio_config`."""
    section = service.at("blkio_config")
    if section is None:
        return BlockIO()
    if not section.is_map:
        section.refuse("must be a map")
        return BlockIO()
    return BlockIO(
        weight=section.whole("weight", 10, 1_000),
        weight_devices=_throttles(section, "weight_device", "weight"),
        read_bps=_throttles(section, "device_read_bps", "rate"),
        write_bps=_throttles(section, "device_write_bps", "rate"),
        read_iops=_throttles(section, "device_read_iops", "rate"),
        write_iops=_throttles(section, "device_write_iops", "rate"),
    )


def _throttles(section: View, key: str, amount: str) -> tuple[ThrottleDevice, ...]:
    found = []
    for item in section.listed(key):
        path = item.text("path")
        if not path.startswith("/"):
            item.refuse("needs a `path` of a device, such as /dev/sda")
            continue
        is_weight = amount == "weight"
        rate = item.whole(amount, 10, 1_000) if is_weight else item.size_bytes(amount)
        found.append(ThrottleDevice(path=path, rate=rate))
    return tuple(found)


def devices(service: View) -> tuple[tuple[Device, ...], tuple[DeviceRequest, ...]]:
    """`devices:`: device nodes, and devices that a CDI name asks for."""
    nodes: list[Device] = []
    requests: list[DeviceRequest] = []
    for item in service.listed("devices"):
        if item.is_map:
            source, target = item.text("source"), item.text("target")
            permissions = item.text("permissions", "rwm")
        else:
            text = item.as_text()
            if _CDI.fullmatch(text):
                requests.append(DeviceRequest(driver="cdi", device_ids=(text,)))
                continue
            source, _, rest = text.partition(":")
            target, _, permissions = rest.partition(":")
            if not permissions and target and set(target) <= set("rwm"):
                target, permissions = "", target
        permissions = permissions or "rwm"
        if not source.startswith("/"):
            item.refuse(f"{source[:60]!r} is not the path of a device, such as /dev/ttyUSB0")
        elif target and not target.startswith("/"):
            item.refuse(f"{target[:60]!r} is not an absolute path in the container")
        elif not set(permissions) <= set("rwm"):
            item.refuse(f"{permissions[:20]!r} are not permissions of r, w and m")
        else:
            nodes.append(Device(source=source, target=target or source, permissions=permissions))
    return tuple(nodes), tuple(requests)


def device_requests(service: View) -> tuple[DeviceRequest, ...]:
    """`gpus:` and `deploy.resources.reservations.devices`."""
    found: list[DeviceRequest] = []
    gpus = service.at("gpus")
    if gpus is not None and not gpus.is_list:
        if gpus.as_text() == "all":
            found.append(DeviceRequest(count=-1, capabilities=("gpu",)))
        else:
            gpus.refuse("must be `all`, or a list of requests")
    elif gpus is not None:
        found.extend(_request(item, ("gpu",)) for item in gpus.items())
    section = _under(service, "deploy", "resources", "reservations")
    for item in section.listed("devices") if section is not None else ():
        request = _request(item, ())
        if not request.capabilities and not request.driver:
            item.refuse("needs `capabilities`, such as [gpu], or a `driver`")
        found.append(request)
    return tuple(found)


def _request(item: View, capabilities: tuple[str, ...]) -> DeviceRequest:
    if not item.is_map:
        item.refuse("must be a map")
        return DeviceRequest()
    ids = item.texts("device_ids")
    count = item.at("count")
    if count is not None and ids:
        count.refuse("cannot be given together with `device_ids`", "Remove one of the two")
    number = 0 if ids else -1
    if count is not None and count.as_printed() != "all":
        number = count.read(lambda text: quantities.whole(text, -1, COUNT_MAX), number)
    given = item.texts("capabilities")
    return DeviceRequest(
        driver=item.text("driver"),
        count=number,
        device_ids=ids,
        capabilities=tuple(dict.fromkeys((*capabilities, *given))),
        options=item.pairs("options"),
    )
