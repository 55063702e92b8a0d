"""One node as placement sees it: what it is, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from homeport.model import Availability, Node, NodeId, ServiceId
from scheduler.placement.requirements import HostPort, Requirements


@dataclass(frozen=True, slots=True)
class Held:
    """What tasks of one kind take on one node; shared by all of them."""

    service: ServiceId
    node: NodeId
    needs: Requirements
    fixes_volumes: bool  # a global service's volumes are everywhere and pin nothing


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
    unfit: str = ""  # what is wrong with it that keeps new tasks away: a sentence
    unfenced: str = ""  # why no exclusive movable task can run here; empty: one can
    cpu_reserved: int = 0
    memory_reserved: int = 0
    pids_reserved: int = 0
    disk_reserved: int = 0
    ports: dict[HostPort, int] = field(default_factory=dict)
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
        before = (self.name, self.facts, self.drivers, self.oci_runtimes, self.unfenced)
        inventory = node.inventory
        self.name = node.name
        self.ready = ready
        self.active = node.availability is Availability.ACTIVE
        self.facts = facts_of(node) | {"hostname": inventory.hostname}
        self.drivers = frozenset(inventory.drivers)
        self.oci_runtimes = frozenset(inventory.oci_runtimes)
        self.cpu_capacity = inventory.capacity.cpu_millis
        self.memory_capacity = inventory.capacity.memory_bytes
        self.pids_capacity = inventory.capacity.pids
        self.disk_capacity = inventory.capacity.disk_bytes
        self.unfit = unfit
        self.unfenced = unfenced or inventory.unfenced
        return before != (self.name, self.facts, self.drivers, self.oci_runtimes, self.unfenced)

    def take(self, needs: Requirements, times: int) -> None:
        """Add tasks of a class to what is taken; below 0: give back."""
        self.cpu_reserved += times * needs.cpu_millis
        self.memory_reserved += times * needs.memory_bytes
        self.pids_reserved += times * needs.pids
        self.disk_reserved += times * needs.disk_bytes
        self.tasks += times
        for port in needs.ports:
            if left := self.ports.get(port, 0) + times:
                self.ports[port] = left
            else:
                del self.ports[port]

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
            unfit=self.unfit,
            unfenced=self.unfenced,
            cpu_reserved=self.cpu_reserved,
            memory_reserved=self.memory_reserved,
            pids_reserved=self.pids_reserved,
            disk_reserved=self.disk_reserved,
            ports=dict(self.ports),
            tasks=self.tasks,
        )


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
