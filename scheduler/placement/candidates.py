"""One node as placement sees it: what it is, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar, cast

from homeport.devices import GPU
from homeport.model import Availability, Grant, MachineDevice, Node, NodeId, ServiceId, Taint
from scheduler.placement.requirements import HostPort, Requirements, whole

K = TypeVar("K")


class Held(NamedTuple):
    """What a task takes, and on which node; made when it is asked for (`holdings`)."""

    service: ServiceId
    node: NodeId
    needs: Requirements
    fixes_volumes: bool  # a global service's volumes are everywhere and pin nothing
    name: str = ""  # STACK/SERVICE, by which it is somebody's neighbour

    def on(self, node: NodeId) -> Held:
        """The same on this node."""
        # Not by the constructor, which is a Python function: see `asks.placed_all`.
        return _held((self.service, node, self.needs, self.fixes_volumes, self.name))

    def is_like(self, other: Held) -> bool:
        """Whether it is the same, wherever."""
        return (
            self.service == other.service
            and (self.needs is other.needs or self.needs == other.needs)
            and self.fixes_volumes == other.fixes_volumes
            and self.name == other.name
        )


_held = cast(
    Callable[[tuple[ServiceId, NodeId, Requirements, bool, str]], Held],
    partial(tuple.__new__, Held),
)


@dataclass(slots=True)
class Candidate:
    """One node with what is left of it."""

    id: NodeId
    name: str
    ready: bool
    active: bool
    facts: dict[str, str]  # what constraints can speak of
    drivers: frozenset[str]
    oci_runtimes: frozenset[str]
    cpu_capacity: int
    memory_capacity: int
    pids_capacity: int
    disk_capacity: int
    generic_capacity: dict[str, int] = field(default_factory=dict)  # kind -> count
    taints: tuple[Taint, ...] = ()
    paths: frozenset[str] = frozenset()  # of its file tree: all that there are of these patterns
    path_patterns: tuple[str, ...] = ()
    devices: tuple[MachineDevice, ...] = ()
    device_patterns: tuple[str, ...] = ()  # paths that are all listed, if they are there
    gpus: tuple[MachineDevice, ...] = ()  # those of its devices that are GPUs
    unfit: str = ""  # what is wrong with it that keeps new tasks away: a sentence
    unfenced: str = ""  # why no exclusive movable task can run here; empty: one can
    cpu_reserved: int = 0
    memory_reserved: int = 0
    pids_reserved: int = 0
    disk_reserved: int = 0
    generic_reserved: dict[str, int] = field(default_factory=dict)
    ports: dict[HostPort, int] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)  # device -> thousandths that are taken
    tasks: int = 0
    row: int = field(default=-1, compare=False)  # its place in the arrays; -1: in none yet

    @property
    def is_open(self) -> bool:
        """Whether it takes new tasks at all."""
        return self.ready and self.active and not self.unfit

    def describe(self, node: Node, *, ready: bool, unfit: str, unfenced: str) -> bool:
        """Take in what the record and its agent say; whether what the node *is* has changed.

        What it is: all that rules look at and that no task, failure or operator's pause changes.
        """
        before = self._nature()
        inventory = node.inventory
        self.name = node.name
        self.ready = ready
        self.active = node.availability is Availability.ACTIVE
        self.facts = facts_of(node) | {"hostname": inventory.hostname}
        self.drivers = frozenset(inventory.drivers)
        self.oci_runtimes = frozenset(inventory.oci_runtimes)
        # What may be reserved: as much more, or less, than there is as the operator says.
        self.cpu_capacity = inventory.capacity.cpu_millis * node.overcommit.cpu_percent // 100
        self.memory_capacity = (
            inventory.capacity.memory_bytes * node.overcommit.memory_percent // 100
        )
        self.pids_capacity = inventory.capacity.pids
        self.disk_capacity = inventory.capacity.disk_bytes
        self.generic_capacity = {
            kind: count
            for kind, text in (*inventory.capacity.generic, *node.generic)
            if (count := whole(text))
        }
        self.unfit = unfit
        self.unfenced = unfenced or inventory.unfenced
        self.taints = node.taints
        self.paths = frozenset(inventory.paths)
        self.path_patterns = inventory.path_patterns
        self.devices = inventory.devices
        self.device_patterns = inventory.device_patterns
        self.gpus = tuple(each for each in inventory.devices if each.kind == GPU)
        return before != self._nature()

    def _nature(self) -> tuple[object, ...]:
        return (
            self.name,
            self.facts,
            self.drivers,
            self.oci_runtimes,
            self.unfenced,
            self.taints,
            self.paths,
            self.path_patterns,
            self.devices,
            self.device_patterns,
        )

    def take(self, needs: Requirements, times: int) -> None:
        """Add tasks of a class to what is taken; below 0: give back."""
        self.cpu_reserved += times * needs.cpu_millis
        self.memory_reserved += times * needs.memory_bytes
        self.pids_reserved += times * needs.pids
        self.disk_reserved += times * needs.disk_bytes
        self.tasks += times
        for kind, count in needs.generic:
            _add(self.generic_reserved, kind, count * times)
        for port in needs.ports:
            _add(self.ports, port, times)

    def grant(self, grants: Iterable[Grant], times: int) -> None:
        """Take the devices of a task; below 0: give them back."""
        for each in grants:
            if each.share_millis:
                _add(self.granted, each.device, each.share_millis * times)

    def copy(self) -> Candidate:
        """The same, to try things on."""
        return Candidate(
            id=self.id,
            name=self.name,
            ready=self.ready,
            active=self.active,
            facts=self.facts,
            drivers=self.drivers,
            oci_runtimes=self.oci_runtimes,
            cpu_capacity=self.cpu_capacity,
            memory_capacity=self.memory_capacity,
            pids_capacity=self.pids_capacity,
            disk_capacity=self.disk_capacity,
            generic_capacity=self.generic_capacity,
            taints=self.taints,
            paths=self.paths,
            path_patterns=self.path_patterns,
            devices=self.devices,
            device_patterns=self.device_patterns,
            gpus=self.gpus,
            unfit=self.unfit,
            unfenced=self.unfenced,
            cpu_reserved=self.cpu_reserved,
            memory_reserved=self.memory_reserved,
            pids_reserved=self.pids_reserved,
            disk_reserved=self.disk_reserved,
            generic_reserved=dict(self.generic_reserved),
            ports=dict(self.ports),
            granted=dict(self.granted),
            tasks=self.tasks,
        )


def take_each(nodes: list[Candidate], needs: Requirements, times: list[int]) -> None:
    """`Candidate.take` for many nodes, with how many tasks each takes."""
    cpu, memory = needs.cpu_millis, needs.memory_bytes
    if needs.pids or needs.disk_bytes or needs.generic or needs.ports:
        for node, more in zip(nodes, times, strict=True):
            node.take(needs, more)
        return
    for node, more in zip(nodes, times, strict=True):
        node.cpu_reserved += more * cpu
        node.memory_reserved += more * memory
        node.tasks += more


def _add(counts: dict[K, int], key: K, more: int) -> None:
    if left := counts.get(key, 0) + more:
        counts[key] = left
    else:
        del counts[key]


def blank(node: NodeId) -> Candidate:
    """A node of which only the id is known."""
    return Candidate(
        id=node,
        name="",
        ready=False,
        active=False,
        facts={},
        drivers=frozenset(),
        oci_runtimes=frozenset(),
        cpu_capacity=0,
        memory_capacity=0,
        pids_capacity=0,
        disk_capacity=0,
    )


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The lowest name first: the order in which ties are decided."""
    return sorted(candidates, key=lambda candidate: (candidate.name, candidate.id))


def facts_of(node: Node) -> dict[str, str]:
    """What constraints and spread preferences can speak of."""
    inventory = node.inventory
    facts = {f"engine.labels.{key}": value for key, value in inventory.engine_labels}
    facts |= {f"node.labels.{key}": value for key, value in inventory.labels}
    facts |= {f"node.labels.{key}": value for key, value in node.labels}
    facts |= {
        "node.id": node.id,
        "node.hostname": node.name,
        "node.role": node.role,
        "node.platform.os": inventory.os,
        "node.platform.arch": inventory.architecture,
    }
    return facts
