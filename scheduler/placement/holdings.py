"""Which tasks take room, where, and what each of them takes.

Reads like a dictionary from tasks to `Held`, and keeps less: of millions of tasks nearly each is
on a node with no other task of its service, so what tasks of a service have in common is kept
once, and of each only its node. Those that take something else than the service's first task did,
as after a rollout, are named apart. A newcomer's mistake: `values()` where the tasks of one kind
on one node need not be told apart; `Fleet.entries` has those, and makes fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping
from typing import Any

from homeport.model import NodeId, ServiceId, TaskId
from scheduler.placement.candidates import Held


class Holdings(Mapping[TaskId, Held]):
    """What each task takes. Of a kind, in here, the node does not matter."""

    __slots__ = ("_kinds", "_nodes", "_others")

    def __init__(self) -> None:
        """Nothing is taken."""
        self._nodes: dict[TaskId, NodeId] = {}
        self._kinds: dict[str, list[Held]] = {}  # by service; most tasks are of the first kind
        self._others: dict[TaskId, Held] = {}  # the kinds of those that are not

    def __getitem__(self, task: TaskId) -> Held:
        """What the task takes. Raises KeyError."""
        return self._kind(task).on(self._nodes[task])

    def get(self, task: TaskId, default: Any = None) -> Any:
        """What the task takes; else the default."""
        node = self._nodes.get(task)
        return default if node is None else self._kind(task).on(node)

    def __contains__(self, task: object) -> bool:
        """Whether it takes anything."""
        return task in self._nodes

    def __iter__(self) -> Iterator[TaskId]:
        """All tasks, as they came."""
        return iter(self._nodes)

    def __len__(self) -> int:
        """How many tasks take something."""
        return len(self._nodes)

    def keys(self) -> KeysView[TaskId]:
        """All tasks, as they came."""
        return self._nodes.keys()

    def takes(self, task: TaskId, entry: Held) -> bool:
        """Whether the task, which takes something, takes just this."""
        return self._nodes[task] == entry.node and self._kind(task).is_like(entry)

    def put(self, task: TaskId, entry: Held) -> None:
        """A task that took nothing takes this."""
        kind, is_first = self._shared(entry)
        self._nodes[task] = entry.node
        if not is_first or _service(task) != entry.service:
            self._others[task] = kind

    def put_all(self, tasks: list[TaskId], kind: Held, nodes: list[NodeId]) -> None:
        """Tasks of one service, which took nothing, take what is of this kind, each on its node."""
        kind, is_first = self._shared(kind)
        self._nodes.update(zip(tasks, nodes, strict=True))
        if not is_first:
            self._others.update(dict.fromkeys(tasks, kind))

    def pop(self, task: TaskId) -> Held | None:
        """The task takes nothing any more; what it took, if anything."""
        node = self._nodes.pop(task, None)
        if node is None:
            return None
        kind = self._others.pop(task, None) or self._kinds[_service(task)][0]
        return kind.on(node)

    def forget(self, service: ServiceId) -> None:
        """No task of this service takes anything."""
        self._kinds.pop(service, None)

    def clear(self) -> None:
        """No task takes anything."""
        for kept in (self._nodes, self._kinds, self._others):
            kept.clear()

    def copy(self) -> Holdings:
        """The same, to try things on."""
        other = Holdings()
        other._nodes = dict(self._nodes)
        other._kinds = {service: list(kinds) for service, kinds in self._kinds.items()}
        other._others = dict(self._others)
        return other

    def _kind(self, task: TaskId) -> Held:
        return self._others.get(task) or self._kinds[_service(task)][0]

    def _shared(self, entry: Held) -> tuple[Held, bool]:
        """The kind that it is of, and whether that is its service's first."""
        kinds = self._kinds.get(entry.service)
        if kinds is None:
            self._kinds[entry.service] = [entry]
            return entry, True
        for kind in kinds:
            if kind.is_like(entry):
                return kind, kind is kinds[0]
        kinds.append(entry)
        return entry, False


def _service(task: TaskId) -> str:
    return task.rsplit("/", 2)[0]
