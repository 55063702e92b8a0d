"""What a runtime does for the agent: containers (or processes) behind one Protocol.

A runtime keeps no opinion about what should run: the runner asks, it does. Everything a
later agent needs to find its containers again is on the container itself, as labels with
cluster id, task id, generation and spec hash. Every call ends by a deadline of its own.

    RuntimeFailure
    ├── Rejected      this node cannot run this spec (image, port, device, mount)
    ├── Unavailable   the engine is not answering: the state is unchanged, try again
    └── Gone          the container does not exist (stopping: that is success)

Implementations: docker, process, simulated; all pass `tests/contract/test_runtime.py`.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from homeport.model import (
    Assignment,
    BoundPort,
    Condition,
    Health,
    MachineDevice,
    ServiceGeneration,
    StackFile,
    TaskId,
)
from homeport.spec import NetworkSpec, Pairs, Resources, VolumeSpec

LABEL_PREFIX = "dev.homeport."
LABEL_CLUSTER = LABEL_PREFIX + "cluster"
LABEL_NODE = LABEL_PREFIX + "node"
LABEL_TASK = LABEL_PREFIX + "task"
LABEL_STACK = LABEL_PREFIX + "stack"
LABEL_SERVICE = LABEL_PREFIX + "service"
LABEL_GENERATION = LABEL_PREFIX + "generation"
LABEL_SPEC_HASH = LABEL_PREFIX + "spec-hash"
LABEL_FENCE_TOKEN = LABEL_PREFIX + "fence-token"
FENCE_TOKEN = "HOMEPORT_FENCE_TOKEN"  # noqa: S105 - the name of a variable, and nothing secret
"""Of two copies of a slot the later one has the higher token; storage can refuse the lower."""


class RuntimeFailure(Exception):
    """The runtime could not do what was asked."""


class Rejected(RuntimeFailure):
    """This node cannot run this spec."""


class Unavailable(RuntimeFailure):
    """The engine is not answering."""


class Gone(RuntimeFailure):
    """The container no longer exists."""


class Phase(enum.Enum):
    """What a container is doing, as its runtime saw it and /proc confirmed it."""

    CREATED = 1
    RUNNING = 2
    EXITED = 3
    PAUSED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that a runtime needs to know to make one task's container."""

    assignment: Assignment
    generation: ServiceGeneration
    networks: tuple[NetworkSpec, ...] = ()  # of the stack
    volumes: tuple[VolumeSpec, ...] = ()
    files: tuple[StackFile, ...] = ()
    devices: tuple[MachineDevice, ...] = ()  # of the machine, as it is now

    @property
    def task(self) -> TaskId:
        """The task that this is for."""
        return self.assignment.task

    @property
    def env(self) -> Pairs:
        """The environment of its program: the spec's, and the fence token of this very task.

        The token is no part of the spec, so that another one changes no container.
        """
        spec = self.generation.spec.container.env
        mine = tuple(pair for pair in spec if pair[0] != FENCE_TOKEN)
        return (*mine, (FENCE_TOKEN, str(self.assignment.fence_token)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One container of ours, as it was seen."""

    container_id: str
    task: TaskId
    generation: int
    phase: Phase
    health: Health = Health.NONE
    pid: int = 0  # of the container's first process, when RUNNING
    exit_code: int | None = None  # when EXITED
    oom_killed: bool = False
    error: str = ""  # the engine's own words about a failed start
    started_ms: int = 0  # wall clock
    finished_ms: int = 0
    image_digest: str = ""
    ports: tuple[BoundPort, ...] = ()
    addresses: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """Something happened to this container: look again. `task` None: look at everything."""

    task: TaskId | None
    action: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChunk:
    """A piece of what a container or command wrote."""

    data: bytes
    is_stderr: bool = False
    at_ms: int = 0  # wall clock, where it is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of one container, read from its cgroup; rates are the caller's to compute."""

    cpu_seconds: float = 0.0
    cpu_user_seconds: float = 0.0
    cpu_system_seconds: float = 0.0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_seconds: float = 0.0
    memory_usage_bytes: int = 0
    memory_working_set_bytes: int = 0
    memory_rss_bytes: int = 0
    memory_cache_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_max_bytes: int = 0
    memory_fail_count: int = 0
    oom_events: int = 0
    pids: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0
    network: tuple[tuple[str, int, int, int, int], ...] = ()
    """(interface, receive bytes, transmit bytes, receive errors, transmit errors)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a runtime adds to its node's inventory."""

    engine: str = ""  # "docker 20.10.24"
    engine_labels: Pairs = ()
    oci_runtimes: tuple[str, ...] = ()
    data_root: str = ""  # whose disk fills up
    cgroup_version: int = 0
    unfenced: str = ""
    """Why the processes of its containers cannot be guarded; empty: they can."""
    capacity: Resources = field(default_factory=Resources)


class Terminal(Protocol):
    """A command that runs inside a container."""

    def __aiter__(self) -> AsyncIterator[OutputChunk]:
        """What it writes, until it ends."""
        ...

    async def write(self, data: bytes, /) -> None:
        """Feed its standard input."""
        ...

    async def close_input(self) -> None:
        """End its standard input."""
        ...

    async def resize(self, rows: int, columns: int, /) -> None:
        """Change the size of its terminal."""
        ...

    async def exit_code(self) -> int:
        """How it ended; waits for the end."""
        ...

    async def close(self) -> None:
        """Let go of it. Never raises."""
        ...


Progress = Callable[[str], None]
"""Called with a sentence for people while a long preparation goes on."""


class Runtime(Protocol):
    """Runs containers. Idempotent: doing what is done already succeeds."""

    async def facts(self) -> EngineFacts:
        """What the engine is and offers. Raises Unavailable."""
        ...

    async def check(self) -> Condition:
        """Whether the engine can do work now: a write-path probe, not a ping. Never raises."""
        ...

    async def list(self) -> tuple[Seen, ...]:
        """Every container that carries our cluster's label, in any phase."""
        ...

    async def inspect(self, task: TaskId) -> Seen | None:
        """This task's container; None when there is none. "Running" is checked in /proc."""
        ...

    async def prepare(self, work: Work, progress: Progress) -> None:
        """Make image, networks, volumes and files ready. Raises Rejected, Unavailable."""
        ...

    async def create(self, work: Work) -> Seen:
        """Create the container, or adopt the one of that task. Raises Rejected, Unavailable."""
        ...

    async def start(self, task: TaskId) -> Seen:
        """Start the created or exited container. Raises Rejected, Gone, Unavailable.

        After Unavailable it may still take place, as long as the container is there.
        """
        ...

    async def stop(self, task: TaskId, grace_seconds: float) -> Seen | None:
        """Signal, wait `grace_seconds`, kill; returns when it is dead. None: it is gone."""
        ...

    async def kill(self, task: TaskId) -> None:
        """End it at once. Not an error when it is dead or gone."""
        ...

    async def remove(self, task: TaskId) -> None:
        """Delete the container and its anonymous volumes; never a named volume."""
        ...

    async def clean(self, stack: str) -> None:
        """Delete our networks and files of a stack that has no container here any more."""
        ...

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Changes of our containers, for ever; says "look at everything" after every gap."""
        ...

    def logs(
        self,
        task: TaskId,
        *,
        follow: bool,
        tail: int,
        since_ms: int,
        until_ms: int,
    ) -> AsyncIterator[OutputChunk]:
        """What the container wrote; tail below 0: all. Raises Gone, Unavailable."""
        ...

    async def exec(
        self,
        task: TaskId,
        command: Sequence[str],
        *,
        tty: bool,
        interactive: bool,
        user: str,
        working_dir: str,
        env: Pairs,
    ) -> Terminal:
        """Run a command inside. Raises Gone, Rejected (with the engine's words), Unavailable."""
        ...

    async def sample(self, task: TaskId) -> Sample | None:
        """Its counters now; None when it does not run."""
        ...

    def marks(self, seen: Seen) -> tuple[str, ...]:
        """How the guard knows the processes of this container, dead or alive (`agent.guard`)."""
        ...

    async def has_image(self, image_id: str) -> bool:
        """Whether the engine has the image of this id."""
        ...

    async def load_image(self, archive: str) -> None:
        """Take in an image archive from this file path. Raises Rejected, Unavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections; containers run on."""
        ...
