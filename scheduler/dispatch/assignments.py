"""What to tell a node: (what it has been told, what it should be told) → messages.

The first message of a session is COMPLETE, every later one says only what changed and on
which order it builds. Absence is no command: what must stop gets a tombstone. A newcomer's
mistake: taking a spec as told because it was sent once. Agents drop a spec when no task
wants it any more, so it counts as told only while a task that was told refers to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from homeport.digests import Sum, wanted_line
from homeport.lifecycle import Desired
from homeport.model import (
    Assignment,
    OrderId,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackFile,
    Task,
    TaskId,
    Tombstone,
)
from homeport.spec import FileMount
from scheduler.cluster.numbering import fence_token
from scheduler.cluster.view import View

MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""Beyond this a message is split; gRPC's own limit is 4 MiB."""

Edition = tuple[ServiceId, int]
"""Which spec: a service and a generation."""

_Use = tuple[tuple[tuple[int, int], ...], str]
"""Of a service that a node has tasks of: how many of each generation, and its stack."""

_USES_MAX = 4_000
_USES: dict[_Use, _Use] = {}

K = TypeVar("K")

_TASK_BYTES = 300  # an assignment on the wire, generously
_SPEC_BYTES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The content of one Assignments message."""

    order: OrderId
    applies_to: OrderId | None  # None: COMPLETE
    tasks: tuple[Assignment, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    specs: tuple[ServiceGeneration, ...] = ()
    stacks: tuple[Stack, ...] = ()  # only their networks and volumes count
    files: tuple[StackFile, ...] = ()
    wanted_hash: bytes = b""  # the agent's after this message


class Told:
    """What one session's agent has been told. Owned by its session; `plan` brings it forward."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.order: OrderId | None = None
        # The records themselves, which others keep too; `desired` is what was said.
        self.tasks: dict[TaskId, Task] = {}
        self.tombstones: dict[TaskId, Tombstone] = {}
        self.stacks: dict[str, Stack] = {}
        self._wanted = Sum()
        self._used: dict[ServiceId, _Use] = {}
        self._stacks_used: dict[str, int] = {}  # how many of `tasks` are of a stack

    @property
    def wanted_hash(self) -> bytes:
        """The agent's, when it has taken in all that it was told."""
        return self._wanted.digest

    def put(self, task: Task, stack: str) -> None:
        """This task is now wanted, in this way."""
        self.drop(task.id)
        self.tasks[task.id] = task
        self._wanted.add(wanted_line(task.id, task.generation, task.desired))
        use = self._used.get(task.service, ((), stack))
        self._used[task.service] = _with(use, task.generation, 1)
        _more(self._stacks_used, use[1])

    def drop(self, task_id: TaskId) -> None:
        """This task is wanted no more."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return
        self._wanted.remove(wanted_line(task_id, task.generation, task.desired))
        use = self._used[task.service]
        _less(self._stacks_used, use[1])
        left = _with(use, task.generation, -1)
        if left[0]:
            self._used[task.service] = left
        else:
            del self._used[task.service]

    def has_edition(self, edition: Edition) -> bool:
        """Whether the agent keeps this spec, for a task that it was told of."""
        service, generation = edition
        use = self._used.get(service)
        return use is not None and any(used == generation for used, _ in use[0])

    def has_stack(self, stack: str) -> bool:
        """Whether the agent keeps this stack's resources, for a task that it was told of."""
        return stack in self._stacks_used


def plan(
    told: Told,
    view: View,
    node_tasks: Iterable[Task],
    order: OrderId,
    changed: Iterable[TaskId],
) -> list[Orders]:
    """The messages that bring the agent up to `order`, in sending order; `told` is moved on.

    `node_tasks` is looked at only for the first, COMPLETE message; later ones cost what
    `changed` (tasks whose record was written or deleted) holds.
    """
    if told.order is None:
        wanted = list(node_tasks)
        gone: list[TaskId] = []
    else:
        found = {task_id: view.task(task_id) for task_id in sorted(changed)}
        wanted = [task for task in found.values() if task is not None]
        gone = [task_id for task_id, task in found.items() if task is None]
    for task_id in gone:
        # The record goes after the container: the agent has nothing left to be told.
        told.drop(task_id)
        told.tombstones.pop(task_id, None)
    draft = _Draft(told, view, order)
    # Those that go come first: what only they referred to is told again to those that come.
    for task in sorted(wanted, key=lambda task: task.desired is not Desired.REMOVED):
        draft.add(task)
    draft.close()
    return draft.messages


class _Draft:
    """Messages being filled, one after the other."""

    def __init__(self, told: Told, view: View, order: OrderId) -> None:
        self.messages: list[Orders] = []
        self._told = told
        self._view = view
        self._order = order
        self._clear()

    def _clear(self) -> None:
        self._tasks: list[Assignment] = []
        self._tombstones: list[Tombstone] = []
        self._specs: dict[Edition, ServiceGeneration] = {}
        self._stacks: dict[str, Stack] = {}
        self._files: dict[tuple[str, str], StackFile] = {}
        self._bytes = 0

    def add(self, task: Task) -> None:
        told = self._told
        if task.desired is Desired.REMOVED:
            tombstone = Tombstone(task=task.id, cause=task.cause, reason=task.reason)
            if told.tombstones.get(task.id) != tombstone:
                told.drop(task.id)
                told.tombstones[task.id] = tombstone
                self._tombstones.append(tombstone)
                self._grown(_TASK_BYTES)
            return
        service = self._view.service(task.service)
        if service is None:
            return  # its head is gone, so the record is about to go too
        before = told.tasks.get(task.id)
        desired: Desired = task.desired
        if task.outcome is not None:
            # What has ended for good stays so, also when a power cut made the agent forget it. An
            # agent that told of the end itself needs no word of it.
            desired = before.desired if before is not None else Desired.SHUTDOWN
        now = task if task.desired is desired else replace(task, desired=desired)
        if before is not None and _same_order(before, now):
            told.tasks[task.id] = now
            return
        self._resources(task, service.stack)
        told.tombstones.pop(task.id, None)
        told.put(now, service.stack)
        self._tasks.append(
            Assignment(
                task=task.id,
                stack=service.stack,
                service_name=service.name,
                generation=task.generation,
                desired=desired,
                pinned=task.pinned,
                exclusive=task.exclusive,
                fence_token=fence_token(self._view, task.id),
                reason=task.reason,
                cause=task.cause,
                priority=self._priority(task),
                grants=task.grants,
            )
        )
        self._grown(_TASK_BYTES)

    def _priority(self, task: Task) -> int:
        edition = self._view.spec(task.service, task.generation)
        return edition.spec.priority if edition is not None else 0

    def _resources(self, task: Task, stack_name: str) -> None:
        """What the agent needs to know before it can act on this task."""
        edition = (task.service, task.generation)
        if not self._told.has_edition(edition) and edition not in self._specs:
            generation = self._view.spec(*edition)
            if generation is not None:
                self._specs[edition] = generation
                self._bytes += _SPEC_BYTES
                for mount in generation.spec.container.files:
                    self._file(stack_name, mount)
        stack = self._view.stack(stack_name)
        if stack is not None and (
            not _same_resources(self._told.stacks.get(stack_name), stack)
            or not self._told.has_stack(stack_name)
        ):
            self._stacks[stack_name] = stack
            self._told.stacks[stack_name] = stack

    def _file(self, stack_name: str, mount: FileMount) -> None:
        file = self._view.file(stack_name, mount.digest)
        if file is not None and (stack_name, mount.digest) not in self._files:
            self._files[stack_name, mount.digest] = file
            self._bytes += len(file.spec.data)

    def _grown(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes >= MESSAGE_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        if self._tasks or self._tombstones or self._told.order is None:
            self._flush()

    def _flush(self) -> None:
        told = self._told
        self.messages.append(
            Orders(
                order=self._order,
                applies_to=told.order,
                tasks=tuple(self._tasks),
                tombstones=tuple(self._tombstones),
                specs=tuple(self._specs.values()),
                stacks=tuple(self._stacks.values()),
                files=tuple(self._files.values()),
                wanted_hash=told.wanted_hash,
            )
        )
        told.order = self._order
        self._clear()


def ends(orders: Orders) -> frozenset[TaskId]:
    """The tasks that a message tells the agent to end."""
    stopped = {task.task for task in orders.tasks if task.desired is not Desired.RUNNING}
    return frozenset(stopped | {tombstone.task for tombstone in orders.tombstones})


def _same_order(before: Task, now: Task) -> bool:
    """Whether the agent would do nothing else: a newer version of the record alone is no news."""
    return (
        before.generation == now.generation
        and before.desired is now.desired
        and before.pinned == now.pinned
        and before.exclusive == now.exclusive
        # An operator's word for a stop that a reconciler wanted frees what the brake holds.
        and (before.cause is now.cause or now.desired is Desired.RUNNING)
    )


def _with(use: _Use, generation: int, times: int) -> _Use:
    """The same with so many tasks more of this generation.

    Thousands of nodes have one task of the same service: they share this value.
    """
    counts = dict(use[0])
    counts[generation] = counts.get(generation, 0) + times
    new = (tuple(sorted((each, count) for each, count in counts.items() if count)), use[1])
    if len(_USES) >= _USES_MAX:
        _USES.clear()
    return _USES.setdefault(new, new)


def _more(counts: dict[K, int], key: K) -> None:
    counts[key] = counts.get(key, 0) + 1


def _less(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _same_resources(before: Stack | None, now: Stack) -> bool:
    return before is not None and before.networks == now.networks and before.volumes == now.volumes
