"""The nodes as placement sees them: a working copy that events keep up to date.

Mutable, with one owner (the controller): `place` records what it assumed, a failed commit
undoes it, and after any sequence of events, placements and undos the fleet equals
`Fleet.from_snapshot`. A task takes part from its record's first version until its outcome
is recorded, also while it is being stopped: what still runs still needs its memory.

What is taken is kept per node (`Candidate`); a task itself costs one entry in one dictionary
(`holdings`). The arrays of `columns` are derived from the candidates:
an event only names the node that changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeVar

from homeport.model import Grant, Node, NodeId, NodeState, ServiceId, Task, TaskId
from homeport.spec import Strategy
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.view import View
from scheduler.placement import requirements as needs
from scheduler.placement.candidates import Candidate, Held, blank, facts_of, in_order
from scheduler.placement.columns import Columns
from scheduler.placement.fragmentation import Census
from scheduler.placement.holdings import Holdings
from scheduler.placement.presence import Presence
from scheduler.placement.requirements import Requirements, VolumeKey
from scheduler.placement.tallies import Counts, Tallies

__all__ = ["Candidate", "Fleet", "Held", "facts_of", "held", "requirements_of"]

K = TypeVar("K")
L = TypeVar("L")


class Fleet:
    """All nodes, what is taken on each, and where volumes are."""

    def __init__(self) -> None:
        """No nodes."""
        self.candidates: dict[NodeId, Candidate] = {}
        self.held = Holdings()
        # Where data is: volume -> node -> how many records and held tasks say so.
        self.homes: dict[VolumeKey, dict[NodeId, int]] = {}
        # Of tasks that were given devices: which. And the GPU classes among all tasks.
        self.grants: dict[TaskId, tuple[Grant, ...]] = {}
        self.census = Census()
        self.columns = Columns()
        self.tallies = Tallies()
        self.strategy = Strategy.SPREAD  # of services that name none
        # Nodes that have no record (yet) and hold tasks: they count when it comes.
        self._strays: dict[NodeId, Candidate] = {}
        self._presence: dict[ServiceId, Presence] = {}
        # What `filters` found out about all nodes, until one of them changes.
        self.domains: dict[tuple[str, str], frozenset[str]] = {}

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
        if (cluster := snapshot.stored.cluster) is not None:
            fleet.strategy_changed(cluster.strategy)
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
                self.task_added(task.id, held(view, task, known[edition]), task.grants)

    def __eq__(self, other: object) -> bool:
        """Same nodes with the same left, same homes."""
        if not isinstance(other, Fleet):
            return NotImplemented
        return (
            self.candidates == other.candidates
            and self.held == other.held
            and self.homes == other.homes
            and self.grants == other.grants
            and self.strategy == other.strategy
        )

    def __hash__(self) -> NoReturn:
        """It changes, so it is nobody's key."""
        raise TypeError("a Fleet changes: it cannot be hashed")

    def copy(self) -> Fleet:
        """A copy to try things on."""
        other = Fleet()
        other.candidates = {each.id: each.copy() for each in self.candidates.values()}
        other.held = self.held.copy()
        other.homes = {volume: dict(nodes) for volume, nodes in self.homes.items()}
        other.grants = dict(self.grants)
        other.census = self.census.copy()
        other._strays = {each.id: each.copy() for each in self._strays.values()}
        other._presence = {key: each.copy() for key, each in self._presence.items()}
        other.strategy = self.strategy
        other.tallies = self.tallies.copy()
        other.columns.reshape()
        return other

    # ------------------------------------------------------------ events

    def strategy_changed(self, strategy: Strategy) -> None:
        """The cluster's own strategy."""
        if strategy is not self.strategy:
            self.strategy = strategy
            self.columns.reshape()

    def node_changed(self, node: Node, *, ready: bool, unfit: str = "", unfenced: str = "") -> None:
        """A node came, or its record, readiness, conditions or the trust in its lease changed."""
        candidate = self.candidates.get(node.id)
        if candidate is None:
            stray = self._strays.pop(node.id, None)
            candidate = self.candidates[node.id] = blank(node.id) if stray is None else stray
        self.domains.clear()
        if candidate.describe(node, ready=ready, unfit=unfit, unfenced=unfenced):
            self.columns.reshape()
            self.tallies.clear()
        else:
            self.columns.touch(candidate)

    def node_removed(self, node: NodeId) -> None:
        """Its record is gone."""
        candidate = self.candidates.pop(node, None)
        if candidate is not None:
            self.domains.clear()
            self.columns.reshape()
            self.tallies.clear()
            if candidate.tasks:
                self._strays[node] = _emptied(candidate)

    def task_added(self, task: TaskId, entry: Held, grants: tuple[Grant, ...] = ()) -> None:
        """A task takes room; taking in the same one again changes nothing."""
        if task in self.held:
            if self.held.takes(task, entry) and self.grants.get(task, ()) == grants:
                return
            self.task_removed(task)
        self._take(entry, 1, grants)
        self.held.put(task, entry)
        if grants:
            self.grants[task] = grants
        if entry.fixes_volumes:
            for volume in entry.needs.volumes:
                self.volume_added(volume, entry.node)

    def task_removed(self, task: TaskId) -> None:
        """A task takes room no more; not an error when it took none."""
        entry = self.held.pop(task)
        if entry is None:
            return
        self._take(entry, -1, self.grants.pop(task, ()))
        self.absent(entry.service)
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

    def _take(self, entry: Held, times: int, grants: tuple[Grant, ...]) -> None:
        """Count tasks of a kind."""
        if entry.needs.devices:
            self.census.count(entry.needs, times)
        if entry.needs.neighbours:
            self.tallies.oppose(entry, times)
        candidate = self.candidates.get(entry.node)
        if candidate is None:
            candidate = self._strays.setdefault(entry.node, blank(entry.node))
            candidate.take(entry.needs, times)
            candidate.grant(grants, times)
            if not candidate.tasks:
                del self._strays[entry.node]
        else:
            candidate.take(entry.needs, times)
            if grants:
                candidate.grant(grants, times)
            self.columns.touch(candidate)
            if self.tallies:
                self.tallies.taken(entry, [(candidate, times)])
        self.presence(entry.service).count(entry, candidate.row, times)

    # ------------------------------------------------------------ questions

    def arrays(self) -> Columns:
        """The nodes as arrays, up to date."""
        if self.columns.sync(self.candidates.values()):
            for presence in self._presence.values():
                presence.listeners.clear()  # they know the rows of before
        return self.columns

    def presence(self, service: ServiceId) -> Presence:
        """Where this service's tasks are; made where it has none yet."""
        found = self._presence.get(service)
        if found is None:
            found = self._presence[service] = Presence()
        return found

    def present(self, service: ServiceId) -> Presence | None:
        """Where this service's tasks are; None: it has none."""
        return self._presence.get(service)

    def absent(self, service: ServiceId) -> None:
        """Forget a presence that was made and is still without tasks."""
        if (found := self._presence.get(service)) is not None and not found.nodes:
            del self._presence[service]
            self.held.forget(service)

    def entries(self) -> Iterator[tuple[Held, int]]:
        """What tasks take, of each kind on each node, and how many of them are the same."""
        for presence in self._presence.values():
            yield from presence.entries()

    def tally(self, tag: str, key: str) -> Counts:
        """The tasks of a tag (`tallies`) at each value of a label; no value without a task."""
        known = self.tallies.known(tag, key)
        if known is None:
            known = self.tallies.count(tag, key, self.entries(), self.candidates)
        return known

    def nodes_of(self, service: ServiceId) -> dict[NodeId, int]:
        """Where this service's tasks are, and how many on each node."""
        found = self._presence.get(service)
        return found.nodes if found is not None else {}

    def by_name(self) -> list[Candidate]:
        """All nodes, the lowest name first."""
        return in_order(self.candidates.values())


def held(view: View, task: Task, needed: Requirements | None = None) -> Held:
    """What a recorded task takes; `needed`: its requirements, where they are known already."""
    service = view.service(task.service)
    return Held(
        service=task.service,
        node=task.node,
        needs=needed or requirements_of(view, task.service, task.generation),
        fixes_volumes=service is None or not service.mode.is_global,
        name=f"{service.stack}/{service.name}" if service is not None else "",
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


def _emptied(candidate: Candidate) -> Candidate:
    """What is left of a node without a record: the room that its tasks take."""
    left = blank(candidate.id)
    left.cpu_reserved = candidate.cpu_reserved
    left.memory_reserved = candidate.memory_reserved
    left.pids_reserved = candidate.pids_reserved
    left.disk_reserved = candidate.disk_reserved
    left.generic_reserved = candidate.generic_reserved
    left.ports = candidate.ports
    left.granted = candidate.granted
    left.tasks = candidate.tasks
    return left


def _less(counts: dict[K, dict[L, int]], outer: K, inner: L) -> None:
    entry = counts[outer]
    left = entry.get(inner, 0) - 1
    if left:
        entry[inner] = left
    else:
        del entry[inner]
    if not entry:
        del counts[outer]
