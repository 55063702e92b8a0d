"""The nodes as placement sees them: a working copy that events keep up to date.

Mutable, with one owner (the controller): `place` records what it assumed, a failed commit
undoes it, and after any sequence of events, placements and undos the fleet equals
`Fleet.from_snapshot`. A task takes part from its record's first version until its outcome
is recorded, also while it is being stopped: what still runs still needs its memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from homeport.model import Availability, Node, NodeId, NodeState, ServiceId, Task, TaskId
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.view import View
from scheduler.placement import requirements as needs
from scheduler.placement.requirements import HostPort, Requirements, VolumeKey

K = TypeVar("K")
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Held:
    """A task that takes room on a node."""

    task: TaskId
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
    services: dict[ServiceId, int] = field(default_factory=dict)
    tasks: int = 0

    def count(self, service: ServiceId) -> int:
        """How many tasks of this service are here."""
        return self.services.get(service, 0)


class Fleet:
    """All nodes, what is taken on each, and where volumes are."""

    def __init__(self) -> None:
        """No nodes."""
        self.candidates: dict[NodeId, Candidate] = {}
        self.held: dict[TaskId, Held] = {}
        # Where data is: volume -> node -> how many records and held tasks say so.
        self.homes: dict[VolumeKey, dict[NodeId, int]] = {}
        # Tasks on nodes that have no record (yet): they count when it comes.
        self._by_node: dict[NodeId, dict[TaskId, Held]] = {}
        self._by_service: dict[ServiceId, dict[NodeId, int]] = {}

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> Fleet:
        """The fleet that any sequence of events leading to `snapshot` leads to."""
        fleet = cls.without_tasks(snapshot)
        fleet.fill(snapshot.stored, snapshot.stored.tasks())
        return fleet

    @classmethod
    def without_tasks(cls, snapshot: Snapshot) -> Fleet:
        """Nodes and volumes alone: `fill` brings the tasks, if need be some at a time."""
        fleet = cls()
        for node in snapshot.stored.nodes():
            ready = is_ready(snapshot, node.id)
            unfenced = snapshot.observed.node(node.id).unfenced
            fleet.node_changed(node, ready=ready, unfit=unfit(snapshot, node.id), unfenced=unfenced)
        for volume in snapshot.stored.volumes():
            fleet.volume_added((volume.stack, volume.name), volume.node)
        return fleet

    def fill(self, view: View, tasks: Iterable[Task]) -> None:
        """Take in those that have not ended, as `view` has them now."""
        known: dict[tuple[ServiceId, int], Requirements] = {}
        for task in tasks:
            if task.outcome is None:
                edition = (task.service, task.generation)
                if edition not in known:
                    known[edition] = requirements_of(view, *edition)
                self.task_added(held(view, task, known[edition]))

    def __eq__(self, other: object) -> bool:
        """Same nodes with the same left, same homes."""
        if not isinstance(other, Fleet):
            return NotImplemented
        return (
            self.candidates == other.candidates
            and self.held == other.held
            and self.homes == other.homes
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def copy(self) -> Fleet:
        """A copy to try things on."""
        other = Fleet()
        for candidate in self.candidates.values():
            other.candidates[candidate.id] = _emptied(candidate)
        for entry in self.held.values():
            other.task_added(entry)
        other.homes = {volume: dict(nodes) for volume, nodes in self.homes.items()}
        return other

    # ------------------------------------------------------------ events

    def node_changed(self, node: Node, *, ready: bool, unfit: str = "", unfenced: str = "") -> None:
        """A node came, or its record, readiness, conditions or the trust in its lease changed."""
        candidate = _candidate(node, ready, unfit, unfenced)
        for entry in self._by_node.get(node.id, {}).values():
            _take(candidate, entry, 1)
        self.candidates[node.id] = candidate

    def node_removed(self, node: NodeId) -> None:
        """Its record is gone."""
        self.candidates.pop(node, None)

    def task_added(self, entry: Held) -> None:
        """A task takes room; taking in the same one again changes nothing."""
        old = self.held.get(entry.task)
        if old == entry:
            return
        if old is not None:
            self.task_removed(entry.task)
        self.held[entry.task] = entry
        self._by_node.setdefault(entry.node, {})[entry.task] = entry
        counts = self._by_service.setdefault(entry.service, {})
        counts[entry.node] = counts.get(entry.node, 0) + 1
        if (candidate := self.candidates.get(entry.node)) is not None:
            _take(candidate, entry, 1)
        if entry.fixes_volumes:
            for volume in entry.needs.volumes:
                self.volume_added(volume, entry.node)

    def task_removed(self, task: TaskId) -> None:
        """A task takes room no more; not an error when it took none."""
        entry = self.held.pop(task, None)
        if entry is None:
            return
        of_node = self._by_node[entry.node]
        del of_node[task]
        if not of_node:
            del self._by_node[entry.node]
        _less(self._by_service, entry.service, entry.node)
        if (candidate := self.candidates.get(entry.node)) is not None:
            _take(candidate, entry, -1)
        if entry.fixes_volumes:
            for volume in entry.needs.volumes:
                self.volume_removed(volume, entry.node)

    def volume_added(self, volume: VolumeKey, node: NodeId) -> None:
        """One more record or task says that this volume's data is on this node."""
        nodes = self.homes.setdefault(volume, {})
        nodes[node] = nodes.get(node, 0) + 1

    def volume_removed(self, volume: VolumeKey, node: NodeId) -> None:
        """The opposite of `volume_added`."""
        _less(self.homes, volume, node)

    # ------------------------------------------------------------ questions

    def nodes_of(self, service: ServiceId) -> dict[NodeId, int]:
        """Where this service's tasks are, and how many on each node."""
        return self._by_service.get(service, {})

    def by_name(self) -> Iterable[Candidate]:
        """All nodes, the lowest name first."""
        return sorted(self.candidates.values(), key=lambda candidate: candidate.name)


def held(view: View, task: Task, needed: Requirements | None = None) -> Held:
    """What a recorded task takes; `needed`: its requirements, where they are known already."""
    service = view.service(task.service)
    return Held(
        task=task.id,
        service=task.service,
        node=task.node,
        needs=needed or requirements_of(view, task.service, task.generation),
        fixes_volumes=service is None or not service.mode.is_global,
    )


def requirements_of(view: View, service: ServiceId, generation: int) -> Requirements:
    """What tasks of this generation need; nothing, if its spec is not there."""
    spec = view.spec(service, generation)
    head = view.service(service)
    if spec is None or head is None:
        return needs.NOTHING
    return needs.of(spec.spec, view.stack(head.stack), head.stack)


def is_ready(snapshot: Snapshot, node: NodeId) -> bool:
    """Whether a node may be given tasks, as far as its agent is concerned."""
    return snapshot.observed.node(node).state is NodeState.READY


UNFIT = ("engine", "disk")
"""Conditions of a node that keep new tasks away while they are not ok."""


def unfit(snapshot: Snapshot, node: NodeId) -> str:
    """What the node says of itself that keeps new tasks away; empty: nothing."""
    for condition in snapshot.observed.node(node).status.conditions:
        if condition.name in UNFIT and not condition.ok:
            return condition.message or f"its {condition.name} is not well"
    return ""


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


def _candidate(node: Node, ready: bool, unfit: str, unfenced: str) -> Candidate:
    inventory = node.inventory
    return Candidate(
        id=node.id,
        name=node.name,
        ready=ready,
        active=node.availability is Availability.ACTIVE,
        facts=facts_of(node) | {"hostname": inventory.hostname},
        drivers=frozenset(inventory.drivers),
        oci_runtimes=frozenset(inventory.oci_runtimes),
        cpu_capacity=inventory.capacity.cpu_millis,
        memory_capacity=inventory.capacity.memory_bytes,
        pids_capacity=inventory.capacity.pids,
        disk_capacity=inventory.capacity.disk_bytes,
        unfit=unfit,
        unfenced=unfenced or inventory.unfenced,
    )


def _emptied(candidate: Candidate) -> Candidate:
    return Candidate(
        id=candidate.id,
        name=candidate.name,
        ready=candidate.ready,
        active=candidate.active,
        facts=candidate.facts,
        drivers=candidate.drivers,
        oci_runtimes=candidate.oci_runtimes,
        cpu_capacity=candidate.cpu_capacity,
        memory_capacity=candidate.memory_capacity,
        pids_capacity=candidate.pids_capacity,
        disk_capacity=candidate.disk_capacity,
        unfit=candidate.unfit,
        unfenced=candidate.unfenced,
    )


def _take(candidate: Candidate, entry: Held, sign: int) -> None:
    """Add a task to what is taken (sign 1), or give it back (sign -1)."""
    wanted = entry.needs
    candidate.cpu_reserved += sign * wanted.cpu_millis
    candidate.memory_reserved += sign * wanted.memory_bytes
    candidate.pids_reserved += sign * wanted.pids
    candidate.disk_reserved += sign * wanted.disk_bytes
    candidate.tasks += sign
    for port in wanted.ports:
        _count(candidate.ports, port, sign)
    _count(candidate.services, entry.service, sign)


def _count(counts: dict[K, int], key: K, sign: int) -> None:
    left = counts.get(key, 0) + sign
    if left:
        counts[key] = left
    else:
        del counts[key]


def _less(counts: dict[K, dict[L, int]], outer: K, inner: L) -> None:
    entry = counts[outer]
    _count(entry, inner, -1)
    if not entry:
        del counts[outer]
