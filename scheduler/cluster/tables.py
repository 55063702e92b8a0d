"""The stored objects in memory, with the indexes that deciders look things up by.

A plain data structure: `put` and `drop` keep every index right, and nothing here walks
all tasks. `store.mirror` feeds the one that follows the store; `overlay` lays proposed
changes over another one, for what-if, without copying it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TypeVar

from homeport.model import (
    Cluster,
    Node,
    NodeId,
    RequestRecord,
    Rollout,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackDraft,
    StackFile,
    Task,
    TaskId,
    Volume,
)
from scheduler.cluster import keys
from scheduler.cluster.slots import Slots

_TASKS = "tasks/"
_id = attrgetter("id")

K = TypeVar("K")
L = TypeVar("L")
V = TypeVar("V")


class Tables:
    """The stored objects and their indexes."""

    def __init__(self) -> None:
        """Empty: a cluster without anything."""
        self.cluster: Cluster | None = None
        self._versions: dict[str, int] = {}  # by key; those of tasks that can be read: by slot
        self._created: dict[str, int] = {}  # where it is not the version: few are written twice
        self._unreadable: dict[str, str] = {}
        self._services: dict[ServiceId, Service] = {}
        self._specs: dict[ServiceId, dict[int, ServiceGeneration]] = {}
        self._nodes: dict[NodeId, Node] = {}
        self._stacks: dict[str, Stack] = {}
        self._rollouts: dict[ServiceId, Rollout] = {}
        self._requests: dict[str, RequestRecord] = {}
        self._volumes: dict[tuple[str, str], dict[NodeId, Volume]] = {}
        self._volumes_by_node: dict[NodeId, dict[tuple[str, str], Volume]] = {}
        self._files: dict[str, dict[str, StackFile]] = {}
        self._drafts: dict[str, dict[tuple[str, int], StackDraft]] = {}
        # Of tasks there may be millions: no index has an entry in a dictionary for each.
        self._slots: dict[str, Slots] = {}  # by service
        self._tasks_by_node: dict[NodeId, list[Task]] = {}  # by id
        self._services_by_name: dict[str, dict[str, dict[ServiceId, Service]]] = {}
        self._node_names: dict[str, NodeId] = {}

    # ------------------------------------------------------------ writing

    def put(self, value: keys.Stored, version: int, created: int = 0) -> keys.Stored | None:
        """Take in a record at this version; returns what it replaced.

        `created` is the revision that made it; 0: the one that is known, or else this one.
        """
        key = keys.key_of(value)
        old = self._replace(key, version, created)
        if not isinstance(value, Task):
            self._versions[key] = version
        match value:
            case Task():
                self._put_task(value, version)
            case Service():
                self._services[value.id] = value
                names = self._services_by_name.setdefault(value.stack, {})
                names.setdefault(value.name, {})[value.id] = value
            case ServiceGeneration():
                self._specs.setdefault(value.service, {})[value.generation] = value
            case Node():
                self._nodes[value.id] = value
                self._node_names[value.name] = value.id
            case Stack():
                self._stacks[value.name] = value
            case Rollout():
                self._rollouts[value.service] = value
            case RequestRecord():
                self._requests[value.request_id] = value
            case Volume():
                place = (value.stack, value.name)
                self._volumes.setdefault(place, {})[value.node] = value
                self._volumes_by_node.setdefault(value.node, {})[place] = value
            case StackFile():
                self._files.setdefault(value.stack, {})[value.digest] = value
            case StackDraft():
                self._drafts.setdefault(value.stack, {})[value.id, value.part] = value
            case Cluster():
                self.cluster = value
            case _:
                pass  # the leader key is the election's business
        return old

    def put_unreadable(
        self, key: str, version: int, why: str, created: int = 0
    ) -> keys.Stored | None:
        """A record is there that this version cannot read; returns what it replaced.

        Its version stays known, so that nobody takes it for absent.
        """
        old = self._replace(key, version, created)
        self._versions[key] = version
        self._unreadable[key] = why
        return old

    def _replace(self, key: str, version: int, created: int) -> keys.Stored | None:
        created = created or self.created(key) or version
        old = self.drop(key)
        if created != version:
            self._created[key] = created
        return old

    @property
    def unreadable(self) -> Mapping[str, str]:
        """See View."""
        return self._unreadable

    def stored_keys(self) -> list[str]:
        """The keys of all records."""
        return [*self._versions, *(keys.task(task.id) for task in self.tasks())]

    def value(self, key: str) -> keys.Stored | None:
        """The record under this key; None when there is none or it is unreadable."""
        kind, _, rest = key.partition("/")
        match kind:
            case "tasks":
                return self.task(TaskId(rest))
            case "services":
                return self._services.get(ServiceId(rest))
            case "specs":
                service, _, generation = rest.rpartition("/")
                return self._specs.get(ServiceId(service), {}).get(int(generation))
            case "nodes":
                return self._nodes.get(NodeId(rest))
            case "stacks":
                return self._stacks.get(rest)
            case "rollouts":
                return self._rollouts.get(ServiceId(rest))
            case "requests":
                return self._requests.get(rest)
            case "volumes":
                stack, name, node = rest.split("/")
                return self._volumes.get((stack, name), {}).get(NodeId(node))
            case "files":
                stack, digest = rest.split("/")
                return self._files.get(stack, {}).get(digest)
            case "drafts":
                stack, draft, part = rest.split("/")
                return self._drafts.get(stack, {}).get((draft, int(part)))
            case "cluster":
                return self.cluster
            case _:
                return None

    def drop(self, key: str) -> keys.Stored | None:
        """Forget a record; returns it, or None when there was none or it was unreadable."""
        if key.startswith(_TASKS) and (task := self.task(TaskId(key.removeprefix(_TASKS)))):
            self._created.pop(key, None)
            self._drop_task(task)
            return task
        if self._versions.pop(key, None) is None:
            return None
        self._created.pop(key, None)
        if self._unreadable.pop(key, None) is not None:
            return None
        kind, _, rest = key.partition("/")
        match kind:
            case "services":
                return self._drop_service(ServiceId(rest))
            case "specs":
                service, generation = rest.rsplit("/", 1)
                return _pop(self._specs, ServiceId(service), int(generation))
            case "nodes":
                node = self._nodes.pop(NodeId(rest))
                if self._node_names.get(node.name) == node.id:
                    del self._node_names[node.name]
                return node
            case "stacks":
                return self._stacks.pop(rest)
            case "rollouts":
                return self._rollouts.pop(ServiceId(rest))
            case "requests":
                return self._requests.pop(rest)
            case "volumes":
                stack, name, node_id = rest.split("/")
                _pop(self._volumes_by_node, NodeId(node_id), (stack, name))
                return _pop(self._volumes, (stack, name), NodeId(node_id))
            case "files":
                stack, digest = rest.split("/")
                return _pop(self._files, stack, digest)
            case "drafts":
                stack, draft, part = rest.split("/")
                return _pop(self._drafts, stack, (draft, int(part)))
            case "cluster":
                cluster, self.cluster = self.cluster, None
                return cluster
            case _:
                return None

    def _put_task(self, task: Task, version: int) -> None:
        slots = self._slots.get(task.service)
        if slots is None:
            slots = self._slots[task.service] = Slots()
        slots.put(task, version)
        insort(self._tasks_by_node.setdefault(task.node, []), task, key=_id)

    def _drop_task(self, task: Task) -> None:
        slots = self._slots[task.service]
        slots.drop(task)
        if not slots.count:
            del self._slots[task.service]
        there = self._tasks_by_node[task.node]
        del there[bisect_left(there, task.id, key=_id)]
        if not there:
            del self._tasks_by_node[task.node]

    def _drop_service(self, service_id: ServiceId) -> Service:
        service = self._services.pop(service_id)
        names = self._services_by_name[service.stack]
        _pop(names, service.name, service_id)
        if not names:
            del self._services_by_name[service.stack]
        return service

    # ------------------------------------------------------------ reading

    def version(self, key: str) -> int:
        """See View."""
        if key.startswith(_TASKS):
            task = self.task(TaskId(key.removeprefix(_TASKS)))
            if task is not None:
                return self._slots[task.service].version(task)
        return self._versions.get(key, 0)

    def created(self, key: str) -> int:
        """See View."""
        return self._created.get(key) or self.version(key)

    def task(self, task: TaskId) -> Task | None:
        """See View."""
        try:
            service, slot, _ = task.rsplit("/", 2)
            number = int(slot)
        except ValueError:
            return None  # agents may name anything so
        slots = self._slots.get(service)
        return slots.find(number, task) if slots is not None else None

    def service(self, service: ServiceId) -> Service | None:
        """See View."""
        return self._services.get(service)

    def spec(self, service: ServiceId, generation: int) -> ServiceGeneration | None:
        """See View."""
        return self._specs.get(service, {}).get(generation)

    def node(self, node: NodeId) -> Node | None:
        """See View."""
        return self._nodes.get(node)

    def node_named(self, name: str) -> Node | None:
        """See View."""
        return self._nodes.get(self._node_names.get(name, NodeId(name)))

    def stack(self, name: str) -> Stack | None:
        """See View."""
        return self._stacks.get(name)

    def services_named(self, stack: str, name: str) -> list[Service]:
        """See View."""
        found = self._services_by_name.get(stack, {}).get(name, {})
        return [found[service] for service in sorted(found)]

    def service_named(self, stack: str, name: str) -> Service | None:
        """See View."""
        found = self._services_by_name.get(stack, {}).get(name, {}).values()
        return min(found, key=lambda service: (service.removing, service.id), default=None)

    def rollout(self, service: ServiceId) -> Rollout | None:
        """See View."""
        return self._rollouts.get(service)

    def request(self, request_id: str) -> RequestRecord | None:
        """See View."""
        return self._requests.get(request_id)

    def file(self, stack: str, digest: str) -> StackFile | None:
        """See View."""
        return self._files.get(stack, {}).get(digest)

    def services_of(self, stack: str) -> list[Service]:
        """See View."""
        names = self._services_by_name.get(stack, {})
        return sorted(
            (service for same in names.values() for service in same.values()),
            key=lambda service: (service.name, service.id),
        )

    def tasks_of_service(self, service: ServiceId) -> list[Task]:
        """See View."""
        slots = self._slots.get(service)
        return slots.all() if slots is not None else []

    def tasks_of_slot(self, service: ServiceId, slot: int) -> list[Task]:
        """See View."""
        slots = self._slots.get(service)
        return slots.of(slot) if slots is not None else []

    def tasks_of_node(self, node: NodeId) -> list[Task]:
        """See View."""
        return list(self._tasks_by_node.get(node, ()))

    def specs_of(self, service: ServiceId) -> list[ServiceGeneration]:
        """See View."""
        found = self._specs.get(service, {})
        return [found[generation] for generation in sorted(found)]

    def volumes_of(self, stack: str, name: str) -> list[Volume]:
        """See View."""
        found = self._volumes.get((stack, name), {})
        return [found[node] for node in sorted(found)]

    def volumes_of_node(self, node: NodeId) -> list[Volume]:
        """See View."""
        found = self._volumes_by_node.get(node, {})
        return [found[place] for place in sorted(found)]

    def files_of(self, stack: str) -> list[StackFile]:
        """See View."""
        found = self._files.get(stack, {})
        return [found[digest] for digest in sorted(found)]

    def drafts_of(self, stack: str) -> list[StackDraft]:
        """See View."""
        found = self._drafts.get(stack, {})
        return [found[part] for part in sorted(found)]

    def stacks(self) -> list[Stack]:
        """See View."""
        return [self._stacks[name] for name in sorted(self._stacks)]

    def services(self) -> Iterator[Service]:
        """See View."""
        return iter(self._services.values())

    def nodes(self) -> list[Node]:
        """See View."""
        return sorted(self._nodes.values(), key=lambda node: node.name)

    def tasks(self) -> Iterator[Task]:
        """See View."""
        return (task for slots in self._slots.values() for task in slots)

    def volumes(self) -> Iterator[Volume]:
        """See View."""
        return (volume for places in self._volumes.values() for volume in places.values())

    def requests(self) -> Iterator[RequestRecord]:
        """See View."""
        return iter(self._requests.values())

    def specs(self) -> Iterator[ServiceGeneration]:
        """See View."""
        return (edition for editions in self._specs.values() for edition in editions.values())

    def files(self) -> Iterator[StackFile]:
        """See View."""
        return (file for files in self._files.values() for file in files.values())

    def drafts(self) -> Iterator[StackDraft]:
        """See View."""
        return (part for parts in self._drafts.values() for part in parts.values())


def _pop(index: dict[K, dict[L, V]], outer: K, inner: L) -> V | None:
    """Take one entry out of a two-step index, leaving no empty step behind."""
    entries = index.get(outer)
    if entries is None:
        return None
    value = entries.pop(inner, None)
    if not entries:
        del index[outer]
    return value
