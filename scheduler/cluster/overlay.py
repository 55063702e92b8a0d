"""A few proposed changes laid over the stored objects: what-if without copying anything.

What `plan`, `explain` and an apply's own checks look at. A newcomer's mistake: keeping one
beyond the next await; what lies under it is the mirror, which moves on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.tables import Tables
from scheduler.cluster.view import View

T = TypeVar("T", bound=keys.Stored)


def overlay(base: View, changes: list[Change]) -> View:
    """A view of `base` as it would be after `changes`; `base` is not touched or copied."""
    return Overlay(base, changes)


class Overlay:
    """A few proposed changes laid over another view.

    Costs what the changes cost: lists of the base are filtered, single look-ups try the
    overlay first.
    """

    def __init__(self, base: View, changes: list[Change]) -> None:
        """Later changes of the same record win."""
        self._base = base
        self._over = Tables()
        self._hidden: set[str] = set()
        self._affected: set[ServiceId] = set()  # services of which a task is hidden
        for change in changes:
            if isinstance(change, Put):
                self._over.put(change.value, self._base.version(change.key) or 1)
                self._hidden.add(change.key)
            elif isinstance(change, Delete):
                self._over.drop(change.key)
                self._hidden.add(change.key)
            if change.key.startswith("tasks/"):
                self._affected.add(ServiceId(change.key.split("/", 2)[1]))

    @property
    def cluster(self) -> Cluster | None:
        """See View."""
        return self._over.cluster or self._base.cluster

    @property
    def unreadable(self) -> Mapping[str, str]:
        """See View."""
        return self._base.unreadable

    def version(self, key: str) -> int:
        """See View."""
        return self._over.version(key) if key in self._hidden else self._base.version(key)

    def created(self, key: str) -> int:
        """See View."""
        known = self._base.created(key)
        return known if known or key not in self._hidden else self._over.created(key)

    def node_named(self, name: str) -> Node | None:
        """See View."""
        found = self._over.node_named(name)
        if found is None:
            found = self._base.node_named(name)
            if found is not None and keys.node(found.id) in self._hidden:
                return None
        return found

    def service_named(self, stack: str, name: str) -> Service | None:
        """See View."""
        found = self.services_named(stack, name)
        return min(found, key=lambda service: (service.removing, service.id), default=None)

    def services_named(self, stack: str, name: str) -> list[Service]:
        """See View."""
        found = self._over.services_named(stack, name) + self._shown(
            self._base.services_named(stack, name)
        )
        return sorted(found, key=lambda item: item.id)

    def task(self, task: TaskId) -> Task | None:
        """See View."""
        tables = self._over if keys.task(task) in self._hidden else self._base
        return tables.task(task)

    def service(self, service: ServiceId) -> Service | None:
        """See View."""
        tables = self._over if keys.service(service) in self._hidden else self._base
        return tables.service(service)

    def spec(self, service: ServiceId, generation: int) -> ServiceGeneration | None:
        """See View."""
        tables = self._over if keys.spec(service, generation) in self._hidden else self._base
        return tables.spec(service, generation)

    def node(self, node: NodeId) -> Node | None:
        """See View."""
        tables = self._over if keys.node(node) in self._hidden else self._base
        return tables.node(node)

    def stack(self, name: str) -> Stack | None:
        """See View."""
        tables = self._over if keys.stack(name) in self._hidden else self._base
        return tables.stack(name)

    def rollout(self, service: ServiceId) -> Rollout | None:
        """See View."""
        tables = self._over if keys.rollout(service) in self._hidden else self._base
        return tables.rollout(service)

    def request(self, request_id: str) -> RequestRecord | None:
        """See View."""
        tables = self._over if keys.request(request_id) in self._hidden else self._base
        return tables.request(request_id)

    def file(self, stack: str, digest: str) -> StackFile | None:
        """See View."""
        tables = self._over if keys.file(stack, digest) in self._hidden else self._base
        return tables.file(stack, digest)

    def services_of(self, stack: str) -> list[Service]:
        """See View."""
        found = self._over.services_of(stack) + self._shown(self._base.services_of(stack))
        return sorted(found, key=lambda item: (item.name, item.id))

    def tasks_of_service(self, service: ServiceId) -> list[Task]:
        """See View."""
        if service not in self._affected:
            return self._base.tasks_of_service(service)
        found = self._over.tasks_of_service(service) + self._shown(
            self._base.tasks_of_service(service)
        )
        return sorted(found, key=lambda item: (item.slot, item.n))

    def tasks_of_slot(self, service: ServiceId, slot: int) -> list[Task]:
        """See View."""
        if service not in self._affected:
            return self._base.tasks_of_slot(service, slot)
        found = self._over.tasks_of_slot(service, slot) + self._shown(
            self._base.tasks_of_slot(service, slot)
        )
        return sorted(found, key=lambda item: item.n)

    def tasks_of_node(self, node: NodeId) -> list[Task]:
        """See View."""
        found = self._over.tasks_of_node(node) + self._shown(self._base.tasks_of_node(node))
        return sorted(found, key=lambda item: item.id)

    def specs_of(self, service: ServiceId) -> list[ServiceGeneration]:
        """See View."""
        found = self._over.specs_of(service) + self._shown(self._base.specs_of(service))
        return sorted(found, key=lambda item: item.generation)

    def volumes_of(self, stack: str, name: str) -> list[Volume]:
        """See View."""
        found = self._over.volumes_of(stack, name) + self._shown(self._base.volumes_of(stack, name))
        return sorted(found, key=lambda item: item.node)

    def volumes_of_node(self, node: NodeId) -> list[Volume]:
        """See View."""
        found = self._over.volumes_of_node(node) + self._shown(self._base.volumes_of_node(node))
        return sorted(found, key=lambda item: (item.stack, item.name))

    def files_of(self, stack: str) -> list[StackFile]:
        """See View."""
        found = self._over.files_of(stack) + self._shown(self._base.files_of(stack))
        return sorted(found, key=lambda item: item.digest)

    def drafts_of(self, stack: str) -> list[StackDraft]:
        """See View."""
        found = self._over.drafts_of(stack) + self._shown(self._base.drafts_of(stack))
        return sorted(found, key=lambda item: (item.id, item.part))

    def stacks(self) -> list[Stack]:
        """See View."""
        found = self._over.stacks() + self._shown(self._base.stacks())
        return sorted(found, key=lambda item: item.name)

    def nodes(self) -> list[Node]:
        """See View."""
        found = self._over.nodes() + self._shown(self._base.nodes())
        return sorted(found, key=lambda item: item.name)

    def services(self) -> Iterator[Service]:
        """See View."""
        yield from self._over.services()
        yield from self._shown(self._base.services())

    def tasks(self) -> Iterator[Task]:
        """See View."""
        yield from self._over.tasks()
        yield from self._shown(self._base.tasks())

    def volumes(self) -> Iterator[Volume]:
        """See View."""
        yield from self._over.volumes()
        yield from self._shown(self._base.volumes())

    def requests(self) -> Iterator[RequestRecord]:
        """See View."""
        yield from self._over.requests()
        yield from self._shown(self._base.requests())

    def specs(self) -> Iterator[ServiceGeneration]:
        """See View."""
        yield from self._over.specs()
        yield from self._shown(self._base.specs())

    def files(self) -> Iterator[StackFile]:
        """See View."""
        yield from self._over.files()
        yield from self._shown(self._base.files())

    def drafts(self) -> Iterator[StackDraft]:
        """See View."""
        yield from self._over.drafts()
        yield from self._shown(self._base.drafts())

    def _shown(self, found: Iterable[T]) -> list[T]:
        """Those of the base's records that no change speaks of."""
        return [value for value in found if keys.key_of(value) not in self._hidden]
