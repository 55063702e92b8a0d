"""Everything that can be wrong with a stack's spec, said all at once.

The gRPC API takes specs from any program, so nothing that the Compose reader promises is
relied upon here. Each problem is a pair of field path and sentence. A newcomer's mistake:
checking only what users get wrong. A name becomes part of a key, a path and an engine's
argument, and a number becomes a kernel's limit; both are checked here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from homeport.spec import (
    ContainerSpec,
    Driver,
    FileSpec,
    HealthCheck,
    MountKind,
    NetworkSpec,
    Pairs,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
    VolumeSpec,
)
from scheduler.api import placing
from scheduler.api.checks import Problem, shown as _shown, within as _range

RESERVED_LABELS = "dev.homeport."
SERVICES_MAX = 500
REPLICAS_MAX = 10_000
PORTS_MAX = 1_000
PAIRS_MAX = 2_000
ITEMS_MAX = 4_000
TEXT_MAX = 131_072  # bytes; the kernel's limit of one argument
ENVIRONMENT_MAX = 1_048_576
FILE_MAX = 1_048_576
DAY_MS = 86_400_000
YEAR_MS = 366 * DAY_MS

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
# Compose allows more in the names of networks, volumes, configs and secrets; no slash anywhere.
RESOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
PROTOCOLS = ("tcp", "udp", "sctp")
NAME_RULE = (
    "a name is 1 to 63 lower-case letters, digits, - and _, and begins and ends with a letter or"
    " digit"
)


def problems(stack: StackSpec) -> list[Problem]:
    """All problems of this spec; an empty list for one that can be applied."""
    return list(_stack(stack))


def name_problem(path: str, name: str) -> Iterator[Problem]:
    """Whether a stack or service may have this name."""
    if not NAME.fullmatch(name):
        yield path, f"{_shown(name)} cannot be a name: {NAME_RULE}"


def label_problems(path: str, labels: Pairs) -> Iterator[Problem]:
    """Whether users may set these labels."""
    yield from _pairs(path, labels)
    for key, _ in labels:
        if key.startswith(RESERVED_LABELS):
            yield f"{path}[{key}]", f"labels that begin with {RESERVED_LABELS} are Homeport's own"


def _stack(stack: StackSpec) -> Iterator[Problem]:
    yield from name_problem("name", stack.name)
    if len(stack.services) > SERVICES_MAX:
        yield "services", f"{len(stack.services)} services; a stack has at most {SERVICES_MAX}"
        return
    yield from _texts("", stack)
    yield from _unique("services", (service.name for service in stack.services))
    yield from _unique("networks", (network.name for network in stack.networks))
    yield from _unique("volumes", (volume.name for volume in stack.volumes))
    yield from _unique("files", (f"{file.kind.name}/{file.name}" for file in stack.files))
    for network in stack.networks:
        yield from _network(network)
    for volume in stack.volumes:
        yield from _volume(volume)
    for file in stack.files:
        yield from _file(file)
    for service in stack.services:
        yield from _service(stack, service)
    yield from _cycles(stack)


def _network(network: NetworkSpec) -> Iterator[Problem]:
    path = f"networks.{network.name}"
    if not RESOURCE_NAME.fullmatch(network.name):
        yield "networks", f"{_shown(network.name)} cannot be the name of a network"
    yield from label_problems(f"{path}.labels", network.labels)


def _volume(volume: VolumeSpec) -> Iterator[Problem]:
    path = f"volumes.{volume.name}"
    if not RESOURCE_NAME.fullmatch(volume.name):
        yield "volumes", f"{_shown(volume.name)} cannot be the name of a volume"
    yield from label_problems(f"{path}.labels", volume.labels)


def _file(file: FileSpec) -> Iterator[Problem]:
    path = f"files.{file.name}"
    if not RESOURCE_NAME.fullmatch(file.name):
        yield "files", f"{_shown(file.name)} cannot be the name of a config or secret"
    if file.external_name:
        yield path, "external configs and secrets are not supported yet: give the content"
    if len(file.data) > FILE_MAX:
        yield f"{path}.data", f"{len(file.data)} bytes; a config or secret has at most {FILE_MAX}"
    yield from label_problems(f"{path}.labels", file.labels)


def _service(stack: StackSpec, service: ServiceSpec) -> Iterator[Problem]:
    path = f"services.{service.name}"
    yield from name_problem(path, service.name)
    yield from _range(f"{path}.replicas", service.replicas, 0, REPLICAS_MAX)
    yield from _range(f"{path}.priority", service.priority, -1_000_000, 1_000_000)
    yield from _range(f"{path}.max_concurrent", service.max_concurrent, 0, REPLICAS_MAX)
    yield from label_problems(f"{path}.labels", service.labels)
    yield from _resources(f"{path}.reservations", service.reservations)
    yield from placing.problems(path, service)
    yield from _restart(f"{path}.restart", service.restart)
    yield from _update(f"{path}.update", service.update)
    yield from _update(f"{path}.rollback", service.rollback)
    names = {each.name for each in stack.services}
    for dependency in service.depends_on:
        if dependency.service == service.name:
            yield f"{path}.depends_on", "a service cannot depend on itself"
        elif dependency.required and dependency.service not in names:
            yield f"{path}.depends_on", f"there is no service {_shown(dependency.service)}"
    yield from _container(stack, f"{path}.container", service)


def _container(stack: StackSpec, path: str, service: ServiceSpec) -> Iterator[Problem]:
    container = service.container
    if service.driver is Driver.DOCKER and not (container.image or container.image_id):
        yield f"{path}.image", "a service needs an image"
    if service.driver is Driver.PROCESS and not (container.command or container.entrypoint):
        yield f"{path}.command", "a process needs a command"
    if container.image.startswith("-") or any(letter.isspace() for letter in container.image):
        yield f"{path}.image", f"{_shown(container.image)} is not the name of an image"
    if container.image_id and not re.fullmatch(r"sha256:[0-9a-f]{64}", container.image_id):
        yield f"{path}.image_id", "an image id is sha256: and 64 hex digits"
    yield from _environment(f"{path}.env", container.env)
    yield from label_problems(f"{path}.labels", container.labels)
    yield from _resources(f"{path}.limits", container.limits)
    yield from _health(f"{path}.health_check", container.health_check)
    yield from _range(f"{path}.stop_grace_ms", container.stop_grace_ms, 0, DAY_MS)
    yield from _range(f"{path}.pull_refresh_ms", container.pull_refresh_ms, 0, YEAR_MS)
    yield from _range(f"{path}.shm_size_bytes", container.shm_size_bytes, 0, 1 << 50)
    yield from _range(f"{path}.oom_score_adj", container.oom_score_adj, -1000, 1000)
    yield from _range(f"{path}.memory_swap_bytes", container.memory_swap_bytes, -1, 1 << 50)
    if not (math.isfinite(container.cpu.percent) and container.cpu.percent >= 0):
        yield f"{path}.cpu.percent", "must be a number of at least 0"
    yield from _ports(f"{path}.ports", container.ports)
    yield from _mounts(stack, f"{path}.mounts", container)
    yield from _references(stack, path, container)


def _references(stack: StackSpec, path: str, container: ContainerSpec) -> Iterator[Problem]:
    networks = {network.name for network in stack.networks}
    for attachment in container.networks:
        if attachment.network not in networks:
            yield f"{path}.networks", f"the stack has no network {_shown(attachment.network)}"
    files = {(file.kind, file.name) for file in stack.files}
    for mount in container.files:
        if (mount.kind, mount.source) not in files:
            kind = mount.kind.name.lower()
            yield f"{path}.files", f"the stack has no {kind} {_shown(mount.source)}"
        if not mount.target.startswith("/") or ".." in mount.target.split("/"):
            yield f"{path}.files", f"{_shown(mount.target)} must be an absolute path without .."
        yield from _range(f"{path}.files", mount.mode, 0, 0o7777)


def _ports(path: str, ports: Sequence[Port]) -> Iterator[Problem]:
    if len(ports) > PORTS_MAX:
        yield path, f"{len(ports)} ports; a service publishes at most {PORTS_MAX}"
        return
    taken: set[tuple[str, int, str]] = set()
    for index, port in enumerate(ports):
        here = f"{path}[{index}]"
        yield from _range(f"{here}.target", port.target, 1, 65_535)
        yield from _range(f"{here}.published", port.published, 0, 65_535)
        if port.protocol not in PROTOCOLS:
            yield f"{here}.protocol", f"{_shown(port.protocol)} is none of {', '.join(PROTOCOLS)}"
        place = (port.host_ip, port.published, port.protocol)
        if port.published and place in taken:
            yield here, f"port {port.published}/{port.protocol} is published twice"
        taken.add(place)


def _mounts(stack: StackSpec, path: str, container: ContainerSpec) -> Iterator[Problem]:
    volumes = {volume.name for volume in stack.volumes}
    targets: set[str] = set()
    for index, mount in enumerate(container.mounts):
        here = f"{path}[{index}]"
        if not mount.target.startswith("/"):
            yield f"{here}.target", f"{_shown(mount.target)} must be an absolute path"
        if mount.target in targets:
            yield f"{here}.target", f"{_shown(mount.target)} is mounted twice"
        targets.add(mount.target)
        if mount.kind is MountKind.BIND and not mount.source.startswith("/"):
            yield f"{here}.source", f"{_shown(mount.source)} must be an absolute path of the node"
        if mount.kind is MountKind.VOLUME and mount.source and mount.source not in volumes:
            yield f"{here}.source", f"the stack has no volume {_shown(mount.source)}"
        if mount.kind in (MountKind.NPIPE, MountKind.CLUSTER):
            yield here, f"mounts of type {mount.kind.name.lower()} are not supported"
        yield from _range(f"{here}.tmpfs_size_bytes", mount.tmpfs_size_bytes, 0, 1 << 50)


def _environment(path: str, env: Pairs) -> Iterator[Problem]:
    yield from _pairs(path, env)
    size = 0
    for key, value in env:
        size += len(key) + len(value.encode()) + 2
        if not key or "=" in key:
            yield path, f"{_shown(key)} cannot be the name of a variable"
    if size > ENVIRONMENT_MAX:
        yield path, f"{size} bytes of variables; there may be {ENVIRONMENT_MAX}"


def _resources(path: str, resources: Resources) -> Iterator[Problem]:
    yield from _range(f"{path}.cpu_millis", resources.cpu_millis, 0, 10_000_000)
    yield from _range(f"{path}.memory_bytes", resources.memory_bytes, 0, 1 << 50)
    yield from _range(f"{path}.pids", resources.pids, 0, 1 << 32)
    yield from _range(f"{path}.disk_bytes", resources.disk_bytes, 0, 1 << 60)


def _restart(path: str, restart: RestartPolicy) -> Iterator[Problem]:
    yield from _range(f"{path}.delay_ms", restart.delay_ms, 0, DAY_MS)
    yield from _range(f"{path}.max_attempts", restart.max_attempts, 0, 1_000_000)
    yield from _range(f"{path}.window_ms", restart.window_ms, 0, DAY_MS)


def _update(path: str, update: UpdateConfig) -> Iterator[Problem]:
    yield from _range(f"{path}.parallelism", update.parallelism, 0, REPLICAS_MAX)
    yield from _range(f"{path}.delay_ms", update.delay_ms, 0, DAY_MS)
    yield from _range(f"{path}.monitor_ms", update.monitor_ms, 0, DAY_MS)
    if not 0 <= update.max_failure_ratio <= 1:
        yield f"{path}.max_failure_ratio", "must be between 0 and 1"


def _health(path: str, check: HealthCheck | None) -> Iterator[Problem]:
    if check is None:
        return
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        yield f"{path}.test", f"begins with {_shown(check.test[0])}; it must be CMD or CMD-SHELL"
    for name in ("interval_ms", "timeout_ms", "start_period_ms", "start_interval_ms"):
        value = getattr(check, name)
        yield from _range(f"{path}.{name}", value, 0, DAY_MS)
        if value in range(1, 10) and name in ("interval_ms", "timeout_ms"):
            yield f"{path}.{name}", f"{value} ms would keep the machine busy; at least 10 ms"
    yield from _range(f"{path}.retries", check.retries, 0, 1_000_000)


def _cycles(stack: StackSpec) -> Iterator[Problem]:
    waits = {
        service.name: [dependency.service for dependency in service.depends_on]
        for service in stack.services
    }
    done: set[str] = set()
    for start in waits:
        path: list[str] = []
        ahead = [(start, iter(waits[start]))] if start not in done else []
        while ahead:
            name, rest = ahead[-1]
            if name not in path:
                path.append(name)
            found = next((each for each in rest if each in waits and each not in done), None)
            if found is None:
                done.add(name)
                path.remove(name)
                ahead.pop()
            elif found in path:
                circle = [*path[path.index(found) :], found]
                if len(circle) > 2:  # a service that waits for itself is reported above
                    yield f"services.{found}.depends_on", f"a circle: {' → '.join(circle)}"
                done.add(found)
            else:
                ahead.append((found, iter(waits[found])))


def _unique(path: str, names: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield path, f"{_shown(name)} is there twice"
        seen.add(name)


def _pairs(path: str, items: Pairs) -> Iterator[Problem]:
    if len(items) > PAIRS_MAX:
        yield path, f"{len(items)} entries; there may be {PAIRS_MAX}"


def _texts(path: str, value: Any) -> Iterator[Problem]:
    """Texts and lists of any kind: no NUL, nothing longer than a kernel would take."""
    if isinstance(value, str):
        if "\0" in value:
            yield path, "contains a NUL character"
        if len(value) > TEXT_MAX:
            yield path, f"{len(value)} characters; there may be {TEXT_MAX}"
    elif isinstance(value, tuple):
        if len(value) > ITEMS_MAX:
            yield path, f"{len(value)} entries; there may be {ITEMS_MAX}"
            return
        for index, item in enumerate(value):
            name = getattr(item, "name", "") if dataclasses.is_dataclass(item) else ""
            shown = f".{name}" if isinstance(name, str) and name else f"[{index}]"
            yield from _texts(f"{path}{shown}", item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = f"{path}.{field.name}" if path else field.name
            yield from _texts(inner, getattr(value, field.name))
