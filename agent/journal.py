"""What this node was told and what it started, so that no restart of anything forgets it.

Orders are on disk before they are acted on (`order`); what is merely observed is written
soon (`keep`, `tell`). A newcomer's mistake: the data of secrets never goes into the log;
it is kept in `Secrets`, on a tmpfs, and a scheduler sends it again after a reboot.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from agent.keylog import JournalDamaged, Key, KeyLog, Medium
from agent.orders import Leaving, Wanted
from agent.steps import Record
from homeport import codec
from homeport.lifecycle import TaskState
from homeport.model import (
    Assignment,
    Event,
    OrderId,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackFile,
    TaskId,
    Tombstone,
    split_task_id,
)
from homeport.spec import FileKind

EVENTS_MAX = 20
LOG_LINES_MAX = 50


class Kind(enum.IntEnum):
    """What an entry of the log is about; the numbers are on disks."""

    META = 1
    TASK = 2
    SPEC = 3
    STACK = 4
    FILE = 5
    RECORD = 6
    TOMBSTONE = 7
    STORY = 8


class Secrets(Protocol):
    """Where the data of secrets is kept: never on a disk."""

    def put(self, digest: str, data: bytes, /) -> None:
        """Keep the data of the secret with this digest."""
        ...

    def get(self, digest: str, /) -> bytes | None:
        """Its data; None when the machine was restarted since."""
        ...

    def drop(self, digest: str, /) -> None:
        """Forget it. Not an error when it is not there."""
        ...


class MemorySecrets:
    """Secrets for tests and simulations; a reboot loses them."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, digest: str, data: bytes, /) -> None:
        """Keep the data of the secret with this digest."""
        self.data[digest] = data

    def get(self, digest: str, /) -> bytes | None:
        """Its data."""
        return self.data.get(digest)

    def drop(self, digest: str, /) -> None:
        """Forget it."""
        self.data.pop(digest, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened to a task, for people; kept when its container is gone."""

    events: tuple[Event, ...] = ()
    lines: tuple[str, ...] = ()  # the last it wrote before its last bad end


class Journal:
    """The node's memory. Reading is from memory; `order` alone waits for the disk."""

    def __init__(self, medium: Medium, secrets: Secrets) -> None:
        """Read the journal. Raises JournalDamaged."""
        self._log = KeyLog(medium)
        self._secrets = secrets
        self.seen = OrderId()
        """The highest order that was journalled."""
        self.floor = (0, 0)
        """The highest (incarnation, epoch) that a scheduler has shown."""
        self.boot_id = ""
        """The boot of the machine that the records were made in."""
        self.wanted: dict[TaskId, Wanted] = {}
        self.leaving: dict[TaskId, Leaving] = {}
        self.records: dict[TaskId, Record] = {}
        self.stories: dict[TaskId, Story] = {}
        self._specs: dict[tuple[ServiceId, int], ServiceGeneration] = {}
        self._stacks: dict[str, Stack] = {}
        self._files: dict[tuple[str, str], StackFile] = {}  # (stack, digest)
        try:
            for (kind, key), payload in self._log.entries.items():
                self._load(Kind(kind), key, payload)
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(f"an entry cannot be read: {error}") from error

    def spec(self, assignment: Assignment) -> ServiceGeneration | None:
        """The edition of its service's spec that the task runs."""
        service, _, _ = split_task_id(assignment.task)
        return self._specs.get((service, assignment.generation))

    def stack(self, name: str) -> Stack:
        """Its networks and volumes."""
        return self._stacks.get(name, Stack(name=name))

    def files(self, stack: str, generation: ServiceGeneration) -> tuple[StackFile, ...]:
        """The configs and secrets that this edition of a spec mounts.

        A secret whose data is lost is left out.
        """
        found = []
        for mount in generation.spec.container.files:
            file = self._files.get((stack, mount.digest))
            if file is None:
                continue
            if file.spec.kind is FileKind.SECRET:
                data = self._secrets.get(file.digest)
                if data is None:
                    continue
                file = replace(file, spec=replace(file.spec, data=data))
            found.append(file)
        return tuple(found)

    def last_lines(self, task: TaskId) -> tuple[str, ...]:
        """What the task wrote before its last bad end."""
        return self.stories.get(task, Story()).lines

    def lacks_secrets(self) -> bool:
        """Whether the data of a secret is gone, so that a scheduler has to send it again."""
        return any(
            file.spec.kind is FileKind.SECRET and self._secrets.get(digest) is None
            for (_, digest), file in self._files.items()
        )

    # ---------------------------------------------------------------- what it is told

    async def order(
        self,
        order: OrderId,
        *,
        wanted: Iterable[Wanted] = (),
        leaving: Iterable[Leaving] = (),
        specs: Iterable[ServiceGeneration] = (),
        stacks: Iterable[Stack] = (),
        files: Iterable[StackFile] = (),
    ) -> None:
        """Write orders down, all or none; when this returns they may be acted on.

        Raises OSError, and knows then nothing of them.
        """
        wanted, leaving, specs, stacks = tuple(wanted), tuple(leaving), tuple(specs), tuple(stacks)
        safe_files = []
        for file in files:
            if file.spec.kind is FileKind.SECRET:
                self._secrets.put(file.digest, file.spec.data)
                file = replace(file, spec=replace(file.spec, data=b""))
            safe_files.append(file)
        changes: dict[Key, bytes | None] = {(Kind.META, "seen"): codec.encode(order)}
        for generation in specs:
            changes[Kind.SPEC, _spec_key(generation)] = codec.encode(generation)
        for stack in stacks:
            changes[Kind.STACK, stack.name] = codec.encode(stack)
        for file in safe_files:
            changes[Kind.FILE, _file_key(file)] = codec.encode(file)
        for want in wanted:
            task = want.assignment.task
            flags = _flags(want.is_listed, want.is_held)
            changes[Kind.TASK, task] = flags + codec.encode(want.assignment)
            changes[Kind.TOMBSTONE, task] = None
        for leave in leaving:
            task = leave.tombstone.task
            changes[Kind.TOMBSTONE, task] = _flags(leave.is_held) + codec.encode(leave.tombstone)
        await self._log.commit(changes)
        self.seen = order
        self.floor = max(self.floor, order.order[:2])
        self._specs.update({(each.service, each.generation): each for each in specs})
        self._stacks.update({stack.name: stack for stack in stacks})
        self._files.update({(file.stack, file.digest): file for file in safe_files})
        for want in wanted:
            self.wanted[want.assignment.task] = want
            self.leaving.pop(want.assignment.task, None)
        self.leaving.update({leave.tombstone.task: leave for leave in leaving})

    def show(self, floor: tuple[int, int]) -> None:
        """Remember the (incarnation, epoch) that a scheduler has shown."""
        if floor > self.floor:
            self.floor = floor
            self._log.note((Kind.META, "floor"), json.dumps(floor).encode())

    def booted(self, boot_id: str) -> None:
        """The records are of this boot from now on."""
        if boot_id != self.boot_id:
            self.boot_id = boot_id
            self._log.note((Kind.META, "boot"), boot_id.encode())

    # ---------------------------------------------------------------- what it sees

    def keep(self, task: TaskId, record: Record) -> None:
        """Remember where the task stands."""
        if self.records.get(task) != record:
            self.records[task] = record
            fields = {**asdict(record), "state": record.state.value}
            self._log.note((Kind.RECORD, task), json.dumps(fields).encode())

    def tell(self, task: TaskId, event: Event) -> None:
        """Add to the task's story, of which the last twenty events are kept."""
        story = self.stories.get(task, Story())
        self._tell(task, replace(story, events=(*story.events, event)[-EVENTS_MAX:]))

    def quote(self, task: TaskId, lines: Iterable[str]) -> None:
        """Keep the last fifty lines that the task wrote."""
        story = self.stories.get(task, Story())
        self._tell(task, replace(story, lines=tuple(lines)[-LOG_LINES_MAX:]))

    def forget(self, task: TaskId) -> None:
        """The task is gone, and the scheduler knows it: drop it and what only it needed."""
        for kind in (Kind.TASK, Kind.TOMBSTONE, Kind.RECORD, Kind.STORY):
            self._log.note((kind, task), None)
        self.wanted.pop(task, None)
        self.leaving.pop(task, None)
        self.records.pop(task, None)
        self.stories.pop(task, None)
        self._sweep()

    def _tell(self, task: TaskId, story: Story) -> None:
        self.stories[task] = story
        events = [codec.encode(event).hex() for event in story.events]
        payload = json.dumps({"events": events, "lines": story.lines})
        self._log.note((Kind.STORY, task), payload.encode(), soon=False)

    def _sweep(self) -> None:
        assignments = [want.assignment for want in self.wanted.values()]
        specs = {(split_task_id(each.task)[0], each.generation) for each in assignments}
        stacks = {each.stack for each in assignments}
        for edition in [edition for edition in self._specs if edition not in specs]:
            self._log.note((Kind.SPEC, _spec_key(self._specs.pop(edition))), None)
        for name in [name for name in self._stacks if name not in stacks]:
            del self._stacks[name]
            self._log.note((Kind.STACK, name), None)
        owners = {(split_task_id(each.task)[0], each.stack) for each in assignments}
        needed = {
            (stack, mount.digest)
            for service, stack in owners
            for (owner, _), generation in self._specs.items()
            if owner == service
            for mount in generation.spec.container.files
        }
        for key in [key for key in self._files if key not in needed]:
            file = self._files.pop(key)
            self._log.note((Kind.FILE, _file_key(file)), None)
            if not any(digest == file.digest for _, digest in self._files):
                self._secrets.drop(file.digest)

    # ---------------------------------------------------------------- the disk

    async def run(self) -> None:
        """Write what was observed, for ever; see `KeyLog.run`."""
        await self._log.run()

    async def flush(self) -> None:
        """Write what was observed now, before the agent goes. Raises OSError."""
        await self._log.flush()

    def _load(self, kind: Kind, key: str, payload: bytes) -> None:
        task = TaskId(key)
        match kind:
            case Kind.META if key == "seen":
                self.seen = codec.decode(OrderId, payload)
                self.floor = max(self.floor, self.seen.order[:2])
            case Kind.META if key == "floor":
                incarnation, epoch = json.loads(payload)
                self.floor = max(self.floor, (incarnation, epoch))
            case Kind.META:
                self.boot_id = payload.decode()
            case Kind.TASK:
                self.wanted[task] = Wanted(
                    assignment=codec.decode(Assignment, payload[1:]),
                    is_listed=_is_set(payload, 0),
                    is_held=_is_set(payload, 1),
                )
            case Kind.TOMBSTONE:
                tombstone = codec.decode(Tombstone, payload[1:])
                self.leaving[task] = Leaving(tombstone=tombstone, is_held=_is_set(payload, 0))
            case Kind.SPEC:
                generation = codec.decode(ServiceGeneration, payload)
                self._specs[generation.service, generation.generation] = generation
            case Kind.STACK:
                self._stacks[key] = codec.decode(Stack, payload)
            case Kind.FILE:
                file = codec.decode(StackFile, payload)
                self._files[file.stack, file.digest] = file
            case Kind.RECORD:
                fields = json.loads(payload)
                self.records[task] = Record(**{**fields, "state": TaskState(fields["state"])})
            case Kind.STORY:
                story = json.loads(payload)
                events = tuple(codec.decode(Event, bytes.fromhex(each)) for each in story["events"])
                self.stories[task] = Story(events=events, lines=tuple(story["lines"]))


def _flags(*flags: bool) -> bytes:
    return bytes([sum(flag << place for place, flag in enumerate(flags))])


def _is_set(payload: bytes, place: int) -> bool:
    return bool(payload[0] >> place & 1)


def _spec_key(generation: ServiceGeneration) -> str:
    return f"{generation.service}@{generation.generation}"


def _file_key(file: StackFile) -> str:
    return f"{file.stack}/{file.digest}"
