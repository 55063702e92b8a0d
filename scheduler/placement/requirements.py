"""What a service's tasks need of a node, as one hashable value: the requirement class.

Derived from the spec once per generation and shared by all its tasks. Tasks with equal
requirements are interchangeable to the filters, which is what lets an engine compute
feasibility once per class. A newcomer's mistake: looking at the spec in a filter. What
filters need is here; a new rule starts with a new field.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from homeport import devices
from homeport.model import Service, Stack
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    DeviceNeed,
    Driver,
    Mount,
    MountKind,
    Neighbour,
    Pairs,
    PlacementSpec,
    Port,
    Preference,
    Resources,
    ServiceSpec,
    SpreadRule,
    Strategy,
    Toleration,
    VolumeSpec,
)

VolumeKey = tuple[str, str]
"""(stack, name) of a named volume."""

SHARED_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "glusterfs", "ceph", "9p", "sshfs"})
"""Types of the `local` volume driver's mounts that every node can reach."""
WITHOUT_DATA = ("/dev", "/proc", "/sys", "/run", "/var/run", "/etc/localtime")
"""Host paths that are the machine's own: a writable bind of one keeps no data of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A port that is taken on the node while the task is there."""

    published: int
    protocol: str = "tcp"
    host_ip: str = ""  # empty: all addresses

    def conflicts(self, other: HostPort) -> bool:
        """Whether both cannot be bound on one machine."""
        if (self.published, self.protocol) != (other.published, other.protocol):
            return False
        return self.host_ip == other.host_ip or _ALL & {self.host_ip, other.host_ip} != set()


_ALL = {"", "0.0.0.0", "::", "[::]"}  # noqa: S104 (compared, not bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """All that placement asks of a node."""

    driver: str = "DOCKER"
    os: str = ""  # empty: any
    architecture: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    ports: tuple[HostPort, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    spread: tuple[str, ...] = ()
    tasks_per_node_max: int = 0
    oci_runtime: str = ""
    node: str = ""  # name or id of the one node that will do: holds a bind source
    volumes: tuple[VolumeKey, ...] = ()  # data on one node's disk
    data_on_node: bool = False  # a writable bind of a host's path
    shared_data: bool = False  # writes to a volume that several nodes can reach
    preferences: tuple[Preference, ...] = ()
    spread_rules: tuple[SpreadRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()  # their services as STACK/SERVICE
    labels: Pairs = ()  # by which it is a neighbour itself
    tolerations: tuple[Toleration, ...] = ()
    strategy: Strategy | None = None  # None: the cluster's
    devices: tuple[
        DeviceNeed, ...
    ] = ()  # in the order of `homeport.devices.needs`, targets left out
    generic: tuple[tuple[str, int], ...] = ()  # kind, count; sorted by kind
    paths: tuple[str, ...] = ()  # bind sources that must be there already
    image: str = ""  # id or name

    # The class's name: equal for equal requirements. Looking a class up by a string, whose hash
    # Python keeps, costs a twentieth of hashing all of the above each time.
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Name the class."""
        object.__setattr__(self, "text", repr(self))

    @property
    def is_grouped(self) -> bool:
        """Whether a task that is placed elsewhere can make a node fit that did not."""
        return any(not rule.weight for rule in self.spread_rules) or any(
            not rule.weight and not rule.apart for rule in self.neighbours
        )

    @property
    def order(self) -> tuple[int, int, str]:
        """The place of the class in the order of decisions: the hardest to fit first."""
        return (-self.memory_bytes, -self.cpu_millis, self.text)


NOTHING = Requirements()
"""Of a task whose spec cannot be read."""


def of(spec: ServiceSpec, stack: Stack | None, stack_name: str) -> Requirements:
    """What a task of this spec needs. `stack` tells which volumes are on one node's disk."""
    return _of_spec(spec, stack.volumes if stack is not None else (), stack_name)


@functools.lru_cache(maxsize=4096)
def _of_spec(spec: ServiceSpec, volumes: tuple[VolumeSpec, ...], stack_name: str) -> Requirements:
    return _of(_Parts.of(spec), volumes, stack_name)


class _Parts(NamedTuple):
    """What of a spec counts: services that differ in nothing of it are of one class."""

    driver: Driver
    platform: str
    image: str
    oci_runtime: str
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]
    devices: tuple[DeviceNeed, ...]
    reservations: Resources
    placement: PlacementSpec
    labels: Pairs
    node: str

    @classmethod
    def of(cls, spec: ServiceSpec) -> _Parts:
        container = spec.container
        return cls(
            spec.driver,
            container.platform,
            container.image_id or container.image,
            container.oci_runtime,
            container.ports,
            container.mounts,
            tuple(need for _, need in devices.sources(spec)),
            spec.reservations,
            spec.placement,
            spec.labels,
            spec.pin_node,
        )


@functools.lru_cache(maxsize=1024)
def _of(parts: _Parts, stack_volumes: tuple[VolumeSpec, ...], stack_name: str) -> Requirements:
    volumes = {volume.name: volume for volume in stack_volumes}
    named = [mount for mount in parts.mounts if mount.kind is MountKind.VOLUME and mount.source]
    reservations, placement = parts.reservations, parts.placement
    os, architecture = _platform(parts.platform)
    return Requirements(
        driver=parts.driver.name,
        os=os,
        architecture=architecture,
        cpu_millis=reservations.cpu_millis,
        memory_bytes=reservations.memory_bytes,
        pids=reservations.pids,
        disk_bytes=reservations.disk_bytes,
        ports=tuple(
            sorted(
                {
                    HostPort(published=port.published, protocol=port.protocol, host_ip=port.host_ip)
                    for port in parts.ports
                    if port.published
                },
                key=lambda port: (port.published, port.protocol, port.host_ip),
            )
        ),
        constraints=placement.constraints,
        spread=placement.spread,
        tasks_per_node_max=placement.max_replicas_per_node,
        oci_runtime=parts.oci_runtime,
        node=parts.node,
        volumes=tuple(
            sorted({(stack_name, m.source) for m in named if is_local(volumes.get(m.source))})
        ),
        data_on_node=any(_keeps_data(mount) for mount in parts.mounts),
        shared_data=any(
            not mount.read_only and not is_local(volumes.get(mount.source)) for mount in named
        ),
        preferences=placement.preferences,
        spread_rules=placement.spread_rules,
        neighbours=tuple(_resolved(each, stack_name) for each in placement.neighbours),
        labels=parts.labels,
        tolerations=placement.tolerations,
        strategy=placement.strategy,
        devices=tuple(replace(need, target="") for need in parts.devices),
        generic=tuple(
            (kind, count) for kind, text in reservations.generic if (count := whole(text))
        ),
        paths=tuple(
            sorted(
                {
                    mount.source
                    for mount in parts.mounts
                    if mount.kind is MountKind.BIND and not mount.bind_create_host_path
                }
            )
        ),
        image=parts.image,
    )


def whole(text: str) -> int:
    """How many of a generic resource; what is no number counts as none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _resolved(neighbour: Neighbour, stack: str) -> Neighbour:
    name = neighbour.service
    return replace(neighbour, service=f"{stack}/{name}") if name and "/" not in name else neighbour


def is_local(volume: VolumeSpec | None) -> bool:
    """Whether a volume's data is on the disk of the node that made it."""
    if volume is None:
        return True
    if volume.driver not in ("", "local"):
        return False
    kind = dict(volume.driver_opts).get("type", "").lower()
    return kind not in SHARED_TYPES and kind != "tmpfs"


def is_pinned(requirements: Requirements, service: Service) -> bool:
    """Whether a task waits for its node instead of moving when that is down.

    Its data is on the node: a local volume, or, of a single replica, a writable bind.
    """
    return bool(
        requirements.volumes
        or requirements.node
        or (requirements.data_on_node and is_single(service))
    )


def is_exclusive(spec: ServiceSpec, requirements: Requirements, service: Service) -> bool:
    """Whether at most one copy may ever run."""
    if spec.exclusive is not None:
        return spec.exclusive
    return requirements.shared_data and is_single(service)


def is_single(service: Service) -> bool:
    """Whether the service has one replica."""
    return not service.mode.is_global and service.replicas == 1


def _keeps_data(mount: Mount) -> bool:
    if mount.kind is not MountKind.BIND or mount.read_only:
        return False
    path = mount.source.rstrip("/")
    return not any(path == known or path.startswith(f"{known}/") for known in WITHOUT_DATA)


def _platform(platform: str) -> tuple[str, str]:
    """`linux/arm64/v8` → (linux, arm64); `arm64` → ("", arm64)."""
    parts = [part for part in platform.lower().split("/") if part]
    if not parts:
        return "", ""
    if len(parts) == 1:
        return (parts[0], "") if parts[0] in ("linux", "windows") else ("", parts[0])
    return parts[0], parts[1]


_SHOWN = {
    ConstraintOperator.EQ: "==",
    ConstraintOperator.NE: "!=",
    ConstraintOperator.IN: "in",
    ConstraintOperator.NOT_IN: "not in",
    ConstraintOperator.EXISTS: "exists",
    ConstraintOperator.ABSENT: "not exists",
    ConstraintOperator.LESS: "<",
    ConstraintOperator.GREATER: ">",
    ConstraintOperator.MATCHES: "=~",
    ConstraintOperator.NOT_MATCHES: "!~",
}


def shown(constraint: Constraint) -> str:
    """A constraint as the user wrote it."""
    operator = _SHOWN[constraint.operator]
    match constraint.operator:
        case ConstraintOperator.EXISTS | ConstraintOperator.ABSENT:
            return f"{constraint.key} {operator}"
        case ConstraintOperator.IN | ConstraintOperator.NOT_IN:
            return f"{constraint.key} {operator} ({', '.join(constraint.values)})"
        case _:
            return f"{constraint.key} {operator} {constraint.value}"
