"""The nouns that scheduler and agent share: stored objects and what is observed of them.

Stored objects (Stack, Service, Task, Node, Volume, Rollout…) are what the store holds;
their `spec` is what users want (`homeport.spec`). Observed values (TaskStatus,
NodeStatus, Usage) live in memory only and are told again by the agents. A newcomer's
mistake: a Task never moves and never holds observed state beyond its terminal outcome;
what it does right now is a TaskStatus.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern
from typing import NewType, cast

from homeport.lifecycle import Desired, TaskState
from homeport.spec import (
    FileSpec,
    Mode,
    NetworkSpec,
    Pairs,
    Resources,
    ServiceSpec,
    Strategy,
    TaintEffect,
    VolumeSpec,
)

ServiceId = NewType("ServiceId", str)
"""`<stack>-<service>-<revision in hex>`: unique for ever, so that a name can be used again."""
NodeId = NewType("NodeId", str)
"""Minted by the scheduler when an agent first joins; never a hostname or machine id."""
TaskId = NewType("TaskId", str)
"""`<service id>/<slot>/<n>`; see `task_id`."""


def task_id(service: ServiceId, slot: int, n: int) -> TaskId:
    """The n-th task in this slot; its key in the store and its name everywhere."""
    # Half a dozen indexes keep it: they share one string.
    return TaskId(intern(f"{service}/{slot}/{n}"))


def task_ids(service: ServiceId, slots: Iterable[int], numbers: Iterable[int]) -> list[TaskId]:
    """`task_id` of many tasks of one service, twice as fast."""
    ids = [intern(f"{service}/{slot}/{n}") for slot, n in zip(slots, numbers, strict=True)]
    return cast(list[TaskId], ids)


def split_task_id(task: TaskId) -> tuple[ServiceId, int, int]:
    """The inverse of `task_id`; raises ValueError for anything else."""
    service, slot, n = task.rsplit("/", 2)
    return ServiceId(intern(service)), int(slot), int(n)


class Availability(enum.Enum):
    """The operator's wish for a node."""

    ACTIVE = 1
    PAUSE = 2  # takes no new tasks
    DRAIN = 3  # takes no new tasks and gives up those it has


class NodeState(enum.Enum):
    """What we think of a node; UNKNOWN until it has reported in this epoch."""

    UNKNOWN = 1
    READY = 2
    SUSPECT = 3
    DOWN = 4


class Health(enum.Enum):
    """The answer of a container's health check; a field of its own, not a state."""

    NONE = 1  # has no health check
    STARTING = 2
    HEALTHY = 3
    UNHEALTHY = 4


class Cause(enum.Enum):
    """Who wants a task gone: an operator's word is obeyed, a reconciler's has a mass-stop brake."""

    OPERATOR = 1
    RECONCILER = 2


class RolloutState(enum.Enum):
    """How far the replacement of old tasks has come."""

    UPDATING = 1
    PAUSED = 2
    COMPLETED = 3


class Rebalancing(enum.Enum):
    """Who begins moves to better nodes."""

    MANUAL = 1  # an operator, each time
    AUTOMATIC = 2  # the scheduler too, when a node came or came back


class VolumeState(enum.Enum):
    """ACTIVE volumes pin tasks; the data of a RETAINED one is kept but no stack names it."""

    ACTIVE = 1
    RETAINED = 2


# ---------------------------------------------------------------- stored objects


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The one record that says which cluster this store belongs to."""

    id: str
    incarnation: int = 1  # raised when the store is restored or migrated
    created_ms: int = 0  # wall clock
    nodes_made: int = 0  # the last node number given out
    strategy: Strategy = Strategy.SPREAD  # of services that name none
    rebalancing: Rebalancing = Rebalancing.MANUAL
    moves_per_hour: int = 4  # the most that the scheduler begins by itself in an hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What one Compose file deployed: the namespace of its services, networks and volumes."""

    name: str
    generation: int = 1
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    services: tuple[str, ...] = ()  # names, in the file's order
    removing: bool = False
    created_ms: int = 0
    draft: str = ""  # the drafts that count as written from this record on; empty: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The head of a service: which generation of its spec counts, and how many replicas.

    The spec itself is stored once per generation (`ServiceGeneration`), so that a task's
    record refers to it by (service, generation) and stays small.
    """

    id: ServiceId
    stack: str
    name: str
    generation: int = 1  # of the spec
    template_generation: int = 1  # the last generation that changed what tasks run
    mode: Mode = Mode.REPLICATED
    replicas: int = 1  # `scale` changes this alone: no task restarts
    removing: bool = False
    created_ms: int = 0
    last_n: int = 0  # highest n among tasks whose records are gone: empty slots count on from here


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDraft:
    """Heads of a stack that were too many for one transaction.

    Nobody reads them until the stack's own record names their draft; from then on they count
    as written, and are written out.
    """

    stack: str
    id: str  # unique for ever: of a draft that came to nothing no part is taken for another's
    part: int
    services: tuple[Service, ...] = ()
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGeneration:
    """One edition of a service's spec."""

    service: ServiceId
    generation: int
    spec: ServiceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StackFile:
    """One edition of a config's or secret's content; named by its digest, so never changed."""

    stack: str
    digest: str  # sha256 of "config" or "secret", a zero byte and the data, hex
    spec: FileSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended; written once."""

    state: TaskState
    exit_code: int | None = None
    oom_killed: bool = False
    message: str = ""
    ended_ms: int = 0  # wall clock
    attempts: int = 0
    node_is_cause: bool = False  # the node failed, not the workload: try elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A device of its node that a task was given."""

    device: str  # `MachineDevice.id`
    need: int = 0  # which of the service's needs it meets, as `homeport.devices.needs` lists them
    share_millis: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A task's way to a better node: its slot's next task is placed there and takes its place."""

    node: NodeId  # where to
    n: int  # of the next task
    cause: Cause = Cause.OPERATOR  # who wants it
    reason: str = ""  # why it is better there: a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One placement of a slot on a node. It stays there for life; its agent restarts it."""

    service: ServiceId
    slot: int  # 1…replicas; of a global service: the node's number
    n: int  # counts the tasks that this slot has had
    node: NodeId
    generation: int  # of the service's spec
    desired: Desired = Desired.RUNNING
    cause: Cause = Cause.RECONCILER  # who set `desired`
    reason: str = ""  # why it is here, or why it is to end
    pinned: bool = False
    exclusive: bool = False
    created_ms: int = 0
    outcome: Outcome | None = None
    failures: int = 0  # how many tasks of this slot before it ended badly, one after the other
    grants: tuple[Grant, ...] = ()
    move: Move | None = None  # where it is to be moved; None: it stays
    moved_ms: int = 0  # wall clock at which the scheduler moved it here by itself; 0: it did not
    # `<service id>/<slot>/<n>`, worked out once: every index and every look asks for it.
    id: TaskId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work the id out."""
        object.__setattr__(self, "id", task_id(self.service, self.slot, self.n))

    @property
    def needs_lease(self) -> bool:
        """Whether it may run only while its node's lease lasts: another node may get it."""
        return self.exclusive and not self.pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDevice:
    """One device of a machine, with every name by which a service may ask for it."""

    id: str  # unique on the machine and, where the hardware has one, the same after a reboot
    kind: str = ""
    names: tuple[str, ...] = ()  # the id too: paths, links, UUID, number, usb:VENDOR:PRODUCT
    vendor: str = ""
    model: str = ""
    memory_bytes: int = 0  # of a GPU; 0: unknown, or it has none of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a node has; written to the store only when it differs."""

    hostname: str = ""
    os: str = ""
    architecture: str = ""
    kernel: str = ""
    capacity: Resources = field(default_factory=Resources)
    engine: str = ""  # name and version of the container engine; empty: none
    engine_labels: Pairs = ()
    drivers: tuple[str, ...] = ()  # Driver names this agent can run
    oci_runtimes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    agent_version: str = ""
    cgroup_version: int = 0
    labels: Pairs = ()  # given on the agent's command line
    metrics_address: str = ""  # HOST:PORT of the agent's /metrics as others reach it; empty: none
    unfenced: str = ""  # why no exclusive movable task can run here; empty: one can
    devices: tuple[MachineDevice, ...] = ()
    device_patterns: tuple[str, ...] = ()  # paths of devices that are all listed, if they are there
    paths: tuple[str, ...] = ()  # of the machine's file tree, where a bind may need them
    path_patterns: tuple[str, ...] = ()  # paths that are all listed, if they are there


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Why tasks had better not, or must not, be on a node, unless they tolerate it."""

    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Overcommit:
    """How much of a node's capacity may be reserved, in hundredths of it."""

    cpu_percent: int = 100
    memory_percent: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine with an agent."""

    id: NodeId
    name: str  # unique; the hostname when it joined
    number: int  # small, given once; the slot of its global tasks
    availability: Availability = Availability.ACTIVE
    role: str = "worker"
    labels: Pairs = ()  # the operator's; they win over the agent's
    inventory: Inventory = field(default_factory=Inventory)
    created_ms: int = 0
    lost_ms: int = 0  # wall clock of the operator's word that it is off; 0: none, or it came back
    taints: tuple[Taint, ...] = ()
    overcommit: Overcommit = field(default_factory=Overcommit)
    generic: Pairs = ()  # the operator's kind -> count; they win over the engine's


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Data that lives on a node: a named volume of a stack and where it was made."""

    stack: str
    name: str
    node: NodeId
    state: VolumeState = VolumeState.ACTIVE
    created_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How far a service is on its way to `generation`."""

    service: ServiceId
    generation: int
    state: RolloutState = RolloutState.UPDATING
    message: str = ""
    started_ms: int = 0
    finished_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The remembered answer to a mutation, so that a retry with the same id changes nothing."""

    request_id: str
    method: str
    digest: str  # sha256 of the request without its id
    response: bytes  # the encoded answer
    created_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who leads; the create-revision of this record's key is the epoch."""

    id: str
    address: str = ""
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A scheduler that stands for leader; the record goes with its lease."""

    id: str  # its name, the same after a restart
    address: str = ""
    since_ms: int = 0


# ---------------------------------------------------------------- observed values


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPort:
    """A published port as the engine made it."""

    target: int
    published: int
    protocol: str = "tcp"
    host_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What an agent last saw of a task; ordered by (attempt, state)."""

    task: TaskId
    attempt: int = 1
    state: TaskState = TaskState.ASSIGNED
    health: Health = Health.NONE
    exit_code: int | None = None
    oom_killed: bool = False
    message: str = ""  # the reason of a failure, or what is being waited for
    container_id: str = ""
    pid: int = 0
    image_digest: str = ""
    changed_ms: int = 0  # wall clock of the last change of state
    running_since_ms: int = 0  # wall clock; 0: not running
    retry_at_ms: int = 0  # BACKOFF: wall clock of the next start
    ports: tuple[BoundPort, ...] = ()
    addresses: Pairs = ()  # network -> address
    node_is_cause: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """Later reports of a task never compare lower."""
        return (self.attempt, self.state.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUsage:
    """What a task uses now."""

    task: TaskId
    cpu_millis: int = 0  # mean over the last sampling period
    memory_bytes: int = 0  # working set
    pids: int = 0
    receive_bytes: int = 0
    transmit_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing about a node that is well or not: engine, disk, memory, clock."""

    name: str
    ok: bool
    message: str = ""
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownContainer:
    """A container of ours without a record: kept until an operator adopts or forgets it."""

    task: TaskId  # by its label
    container_id: str = ""
    generation: int = 0  # of its service's spec, by its label; 0: unreadable
    alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What a node last said of itself."""

    conditions: tuple[Condition, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_used_bytes: int = 0
    disk_total_bytes: int = 0
    tasks: tuple[TaskUsage, ...] = ()
    unknown_containers: tuple[str, ...] = ()  # ours by label, without a record: kept, reported
    unknown: tuple[UnknownContainer, ...] = ()  # the same, with what their labels say


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for people: `kubectl get events` in one line."""

    sequence: int = 0
    at_ms: int = 0  # wall clock
    kind: str = ""  # task, service, node, stack, scheduler
    object: str = ""
    reason: str = ""  # CamelCase, for machines
    message: str = ""  # a sentence
    node: str = ""


# ---------------------------------------------------------------- orders


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderId:
    """What an order is compared by; an agent never acts on a lower one than it journalled."""

    cluster: str = ""
    incarnation: int = 0
    epoch: int = 0
    revision: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Within one cluster, later orders never compare lower."""
        return (self.incarnation, self.epoch, self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One task that a node is to have, as the agent is told of it."""

    task: TaskId
    stack: str
    service_name: str
    generation: int
    desired: Desired
    pinned: bool = False
    exclusive: bool = False
    fence_token: int = 0
    reason: str = ""
    cause: Cause = Cause.RECONCILER  # who set `desired`: a reconciler's stop has the brake
    priority: int = 0  # of the service: higher starts first when a whole machine starts
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The only word by which an agent removes a container."""

    task: TaskId
    cause: Cause
    reason: str = ""
