"""What deciders are given of the stored objects: lookups, and no way to change anything.

`Tables` has the objects of the store, `overlay` lays proposed changes over another view. A
newcomer's mistake: asking for all tasks. Whatever a cycle needs has an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

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


class View(Protocol):
    """Read access to the stored objects; what deciders are given."""

    @property
    def cluster(self) -> Cluster | None:
        """The cluster's own record."""
        ...

    def version(self, key: str) -> int:
        """The version of the record under this key; 0 when there is none."""
        ...

    def created(self, key: str) -> int:
        """The revision of the write that made the record under this key; 0: there is none."""
        ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Keys of records that are there but that this version cannot read, and why."""
        ...

    def task(self, task: TaskId) -> Task | None:
        """One task."""
        ...

    def service(self, service: ServiceId) -> Service | None:
        """One service."""
        ...

    def spec(self, service: ServiceId, generation: int) -> ServiceGeneration | None:
        """One edition of a service's spec."""
        ...

    def node(self, node: NodeId) -> Node | None:
        """One node."""
        ...

    def node_named(self, name: str) -> Node | None:
        """A node by name or id."""
        ...

    def stack(self, name: str) -> Stack | None:
        """One stack."""
        ...

    def service_named(self, stack: str, name: str) -> Service | None:
        """The service of that name that is not being removed, else the one that is."""
        ...

    def services_named(self, stack: str, name: str) -> list[Service]:
        """All services of that name: one, and those that are being removed."""
        ...

    def rollout(self, service: ServiceId) -> Rollout | None:
        """The rollout of a service."""
        ...

    def request(self, request_id: str) -> RequestRecord | None:
        """A remembered answer."""
        ...

    def file(self, stack: str, digest: str) -> StackFile | None:
        """The content of a config or secret."""
        ...

    def services_of(self, stack: str) -> list[Service]:
        """A stack's services, by name."""
        ...

    def tasks_of_service(self, service: ServiceId) -> list[Task]:
        """A service's tasks, by (slot, n)."""
        ...

    def tasks_of_slot(self, service: ServiceId, slot: int) -> list[Task]:
        """A slot's tasks, oldest first."""
        ...

    def tasks_of_node(self, node: NodeId) -> list[Task]:
        """A node's tasks, by id."""
        ...

    def specs_of(self, service: ServiceId) -> list[ServiceGeneration]:
        """All editions of a service's spec that are still stored, oldest first."""
        ...

    def volumes_of(self, stack: str, name: str) -> list[Volume]:
        """Where a named volume of a stack has been made."""
        ...

    def volumes_of_node(self, node: NodeId) -> list[Volume]:
        """The volumes on a node."""
        ...

    def files_of(self, stack: str) -> list[StackFile]:
        """All stored configs and secrets of a stack."""
        ...

    def drafts_of(self, stack: str) -> list[StackDraft]:
        """All drafts of a stack, by id and part; which of them counts, its record says."""
        ...

    def stacks(self) -> list[Stack]:
        """All stacks, by name."""
        ...

    def services(self) -> Iterator[Service]:
        """All services, in no order that means anything."""
        ...

    def nodes(self) -> list[Node]:
        """All nodes, by name."""
        ...

    def tasks(self) -> Iterator[Task]:
        """All tasks: for a leader's first look and for tests, never in a cycle."""
        ...

    def volumes(self) -> Iterator[Volume]:
        """All volumes, in no order that means anything; as rarely as `tasks`."""
        ...

    def requests(self) -> Iterator[RequestRecord]:
        """All remembered answers: for the reaper, once an hour."""
        ...

    def specs(self) -> Iterator[ServiceGeneration]:
        """All editions of all specs; as rarely as `requests`."""
        ...

    def files(self) -> Iterator[StackFile]:
        """All configs and secrets of all stacks; as rarely as `requests`."""
        ...

    def drafts(self) -> Iterator[StackDraft]:
        """All drafts of all stacks; as rarely as `requests`."""
        ...
