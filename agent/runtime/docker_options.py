"""From a task's spec to the body of the engine's "create a container" call.

A decider: no engine is asked. The body is the Engine API's own JSON, so that a reader can
hold it against Docker's reference, and every key of it comes from one field of the spec.
A newcomer's mistake: an engine ignores what it does not know. So whatever the engine's API
version lacks is an objection (the task is refused in words) or, where nothing depends on
it, a notice; nothing is left out in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.runtime import docker_mounts, docker_networking
from agent.runtime.base import Work
from agent.runtime.granted import Granted, granted
from agent.runtime.labels import WATCHTOWER, container_labels, container_name, reserved
from homeport.spec import (
    Argv,
    BlockIO,
    ContainerSpec,
    Device,
    HealthCheck,
    Pairs,
    ThrottleDevice,
)

Body = dict[str, Any]

OLDEST_API = (1, 41)
"""Docker Engine 20.10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """One "create a container" call, and what must be connected after it."""

    name: str
    platform: str
    body: Mapping[str, Any]
    connects: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """(network of the engine, endpoint): of engines that take one network at creation."""


def creation(
    work: Work,
    *,
    cluster: str,
    api: tuple[int, int],
    file_paths: Sequence[str] = (),
    node: str = "",
) -> Creation:
    """How to create the container of `work`.

    `file_paths` are where the spec's `files` lie on this node, in their order. What
    `objections` names must have been refused before.
    """
    spec = _with_grants(work)
    networking = docker_networking.networking(work, api)
    binds, mounts = docker_mounts.mounts(work, file_paths)
    body: Body = {
        "Image": spec.image_id or spec.image,
        "Cmd": _argv(spec.command),
        "Entrypoint": _argv(spec.entrypoint),
        "Env": [f"{key}={value}" for key, value in work.env],
        "Labels": {
            WATCHTOWER: "false",
            **dict(spec.labels),
            **container_labels(cluster, work, node),
        },
        "WorkingDir": spec.working_dir or None,
        "User": spec.user or None,
        "Hostname": spec.hostname or None,
        "Domainname": spec.domainname or None,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "StopSignal": spec.stop_signal or None,
        # Ours is the agent's to keep; this is for a shutdown of the engine itself.
        "StopTimeout": math.ceil(spec.stop_grace_ms / 1000),
        "Healthcheck": _health_check(spec.health_check),
        "ExposedPorts": networking.exposed,
        "MacAddress": networking.mac_address or None,
        "HostConfig": {
            **_host_config(spec),
            "NetworkMode": networking.mode,
            "PortBindings": networking.bindings,
            "Binds": binds,
            "Mounts": mounts,
            "Tmpfs": docker_mounts.tmpfs(work),
        },
        "NetworkingConfig": {"EndpointsConfig": dict(networking.at_creation)},
    }
    return Creation(
        name=container_name(work.task),
        platform=spec.platform,
        body={key: value for key, value in body.items() if value is not None},
        connects=networking.afterwards,
    )


def objections(work: Work, api: tuple[int, int]) -> list[str]:
    """Why an engine of this API version cannot run this spec; a sentence for each reason."""
    spec = work.generation.spec.container
    return [
        *_own_objections(spec, api),
        *_granted(work).objections,
        *docker_mounts.objections(work, api),
        *docker_networking.objections(work, api),
    ]


def notices(work: Work, api: tuple[int, int]) -> list[str]:
    """What the engine will do otherwise than written, without harm."""
    said = list(_granted(work).notices)
    check = work.generation.spec.container.health_check
    if check is not None and check.start_interval_ms and api < (1, 44):
        said.append(
            "healthcheck.start_interval needs Docker Engine 25 (this one speaks API"
            f" {api[0]}.{api[1]}): the usual interval applies from the start"
        )
    return said


def _granted(work: Work) -> Granted:
    return granted(work.generation.spec, work.assignment, work.devices)


def _with_grants(work: Work) -> ContainerSpec:
    """The container's spec with the devices that this very task was given."""
    spec = work.generation.spec.container
    if not (spec.device_requests or work.generation.spec.devices):
        return spec
    given = _granted(work)
    return replace(spec, devices=given.devices, device_requests=given.requests)


def too_old(api: tuple[int, int], what: str, release: str, needed: tuple[int, int]) -> str:
    """The sentence for something that this engine's API lacks."""
    return (
        f"{what} needs Docker Engine {release} (API {needed[0]}.{needed[1]}); the engine of this"
        f" node speaks API {api[0]}.{api[1]}: upgrade it, or leave the key out"
    )


def _own_objections(spec: ContainerSpec, api: tuple[int, int]) -> Iterator[str]:
    for key in reserved(spec.labels):
        yield f"label {key}: labels that begin with dev.homeport. are Homeport's own"
    if not spec.image and not spec.image_id:
        yield "the service names no image"
    if spec.annotations and api < (1, 43):
        yield too_old(api, "annotations", "24", (1, 43))
    if any(_is_cdi(device) for device in spec.devices) and api < (1, 44):
        yield too_old(api, "a device by its CDI name", "25", (1, 44))
    if spec.cpu.count or spec.cpu.percent:
        yield "cpu_count and cpu_percent exist for Windows containers only: use cpus"
    if spec.isolation not in ("", "default"):
        yield f"isolation: {spec.isolation} exists for Windows containers only: leave it out"
    if spec.limits.disk_bytes:
        yield "Docker cannot limit a container's disk space by itself: use storage_opt: {size: …}"
    for key, mode in (
        ("ipc", spec.ipc_mode),
        ("pid", spec.pid_mode),
        ("uts", spec.uts_mode),
        ("network_mode", spec.network_mode),
    ):
        if mode.startswith("service:"):
            yield (
                f"{key}: {mode} joins two containers, and Homeport may place them on two nodes:"
                " it is not supported"
            )


def _host_config(spec: ContainerSpec) -> Body:
    config: Body = {
        # The agent alone restarts anything: it knows the policy, the engine does not.
        "RestartPolicy": {"Name": "no"},
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "SecurityOpt": list(spec.security_opt),
        "GroupAdd": list(spec.group_add),
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target or device.source,
                "CgroupPermissions": device.permissions,
            }
            for device in spec.devices
            if not _is_cdi(device)
        ],
        "DeviceCgroupRules": list(spec.device_cgroup_rules),
        "DeviceRequests": _device_requests(spec),
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts),
        "Sysctls": dict(spec.sysctls),
        "Ulimits": [
            {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits
        ],
        "ShmSize": spec.shm_size_bytes or None,
        "StorageOpt": dict(spec.storage_opt) or None,
        "Annotations": dict(spec.annotations) or None,
        "IpcMode": spec.ipc_mode or None,
        "PidMode": spec.pid_mode or None,
        "UTSMode": spec.uts_mode or None,
        "CgroupnsMode": spec.cgroupns_mode or None,
        "UsernsMode": spec.userns_mode or None,
        "Isolation": spec.isolation or None,
        "CgroupParent": spec.cgroup_parent or None,
        "Runtime": spec.oci_runtime or None,
        "OomScoreAdj": spec.oom_score_adj or None,
        "OomKillDisable": spec.oom_kill_disable or None,
        "LogConfig": {"Type": spec.logging.driver, "Config": dict(spec.logging.options)},
        **_limits(spec),
        **_block_io(spec.block_io),
    }
    return {key: value for key, value in config.items() if value is not None}


def _limits(spec: ContainerSpec) -> Body:
    return {
        "NanoCpus": spec.limits.cpu_millis * 1_000_000 or None,
        "Memory": spec.limits.memory_bytes or None,
        "PidsLimit": spec.limits.pids or None,
        "MemorySwap": spec.memory_swap_bytes or None,
        "MemorySwappiness": spec.memory_swappiness,
        "MemoryReservation": spec.memory_reservation_bytes or None,
        "CpuShares": spec.cpu.shares or None,
        "CpuPeriod": spec.cpu.period_us or None,
        "CpuQuota": spec.cpu.quota_us or None,
        "CpuRealtimePeriod": spec.cpu.rt_period_us or None,
        "CpuRealtimeRuntime": spec.cpu.rt_runtime_us or None,
        "CpusetCpus": spec.cpu.cpuset or None,
    }


def _block_io(block: BlockIO) -> Body:
    def rates(devices: tuple[ThrottleDevice, ...], word: str = "Rate") -> list[Body] | None:
        return [{"Path": device.path, word: device.rate} for device in devices] or None

    return {
        "BlkioWeight": block.weight or None,
        "BlkioWeightDevice": rates(block.weight_devices, "Weight"),
        "BlkioDeviceReadBps": rates(block.read_bps),
        "BlkioDeviceWriteBps": rates(block.write_bps),
        "BlkioDeviceReadIOps": rates(block.read_iops),
        "BlkioDeviceWriteIOps": rates(block.write_iops),
    }


def _device_requests(spec: ContainerSpec) -> list[Body]:
    requests = [
        {
            "Driver": request.driver,
            "Count": request.count,
            "DeviceIDs": list(request.device_ids),
            "Capabilities": [list(request.capabilities)],
            "Options": dict(request.options),
        }
        for request in spec.device_requests
    ]
    cdi = [device.source for device in spec.devices if _is_cdi(device)]
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    return requests


def _is_cdi(device: Device) -> bool:
    """A device named `vendor.com/class=name` instead of by a path."""
    return not device.source.startswith("/")


def _argv(argv: Argv | None) -> list[str] | None:
    return None if argv is None else list(argv.args)


def _health_check(check: HealthCheck | None) -> Body | None:
    if check is None:
        return None
    nanoseconds = 1_000_000
    return {
        "Test": list(check.test),
        "Interval": check.interval_ms * nanoseconds,
        "Timeout": check.timeout_ms * nanoseconds,
        "StartPeriod": check.start_period_ms * nanoseconds,
        "StartInterval": check.start_interval_ms * nanoseconds,
        "Retries": check.retries,
    }


def environment(items: Pairs) -> list[str]:
    """Variables as the engine takes them."""
    return [f"{key}={value}" for key, value in items]
