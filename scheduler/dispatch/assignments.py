"""What to tell a node: (what it has been told, what it should be told) → messages.

The first message of a session is COMPLETE, every later one says only what changed and on
which order it builds. Absence is no command: what must stop gets a tombstone. A newcomer's
mistake: taking a spec as told because it was sent once. Agents drop a spec when no task
wants it any more, so it counts as told only while a task that was told refers to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from homeport.digests import wanted_hash
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
    split_task_id,
)
from homeport.spec import FileMount
from scheduler.cluster.numbering import fence_token
from scheduler.cluster.tables import View

MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""Beyond this a message is split; gRPC's own limit is 4 MiB."""

Edition = tuple[ServiceId, int]
"""Which spec: a service and a generation."""

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


@dataclass(slots=True)
class Told:
    """What one session's agent has been told. Owned by its session; `plan` brings it forward."""

    order: OrderId | None = None  # None: nothing yet
    tasks: dict[TaskId, Assignment] = field(default_factory=dict)
    tombstones: dict[TaskId, Tombstone] = field(default_factory=dict)
    stacks: dict[str, Stack] = field(default_factory=dict)
    wanted_hash: bytes = b""
    # How many of `tasks` refer to an edition of a spec, and to a stack.
    editions: Counter[Edition] = field(default_factory=Counter)
    stacks_used: Counter[str] = field(default_factory=Counter)

    def put(self, assignment: Assignment) -> None:
        """This task is now wanted, in this way."""
        self.drop(assignment.task)
        self.tasks[assignment.task] = assignment
        self.editions[_edition(assignment)] += 1
        self.stacks_used[assignment.stack] += 1

    def drop(self, task: TaskId) -> None:
        """This task is wanted no more."""
        assignment = self.tasks.pop(task, None)
        if assignment is not None:
            _less(self.editions, _edition(assignment))
            _less(self.stacks_used, assignment.stack)


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
        assignment = Assignment(
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
        )
        if before is not None and _same_order(before, assignment):
            return
        self._resources(task, service.stack)
        told.tombstones.pop(task.id, None)
        told.put(assignment)
        self._tasks.append(assignment)
        self._grown(_TASK_BYTES)

    def _priority(self, task: Task) -> int:
        edition = self._view.spec(task.service, task.generation)
        return edition.spec.priority if edition is not None else 0

    def _resources(self, task: Task, stack_name: str) -> None:
        """What the agent needs to know before it can act on this task."""
        edition = (task.service, task.generation)
        if not self._told.editions[edition] and edition not in self._specs:
            generation = self._view.spec(*edition)
            if generation is not None:
                self._specs[edition] = generation
                self._bytes += _SPEC_BYTES
                for mount in generation.spec.container.files:
                    self._file(stack_name, mount)
        stack = self._view.stack(stack_name)
        if stack is not None and (
            not _same_resources(self._told.stacks.get(stack_name), stack)
            or not self._told.stacks_used[stack_name]
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
        else:
            # Nothing to say, but a record that went may have changed what is wanted.
            self._told.wanted_hash = wanted_hash(self._told.tasks.values())

    def _flush(self) -> None:
        told = self._told
        told.wanted_hash = wanted_hash(told.tasks.values())
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


def _same_order(before: Assignment, now: Assignment) -> bool:
    """Whether the agent would do nothing else: a newer version of the record alone is no news."""
    return (
        before.generation == now.generation
        and before.desired is now.desired
        and before.pinned == now.pinned
        and before.exclusive == now.exclusive
        # An operator's word for a stop that a reconciler wanted frees what the brake holds.
        and (before.cause is now.cause or now.desired is Desired.RUNNING)
    )


def _edition(assignment: Assignment) -> Edition:
    service, _, _ = split_task_id(assignment.task)
    return service, assignment.generation


def _less(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _same_resources(before: Stack | None, now: Stack) -> bool:
    return before is not None and before.networks == now.networks and before.volumes == now.volumes
