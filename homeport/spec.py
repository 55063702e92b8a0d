"""What users write: the desired half of the model, as a Compose file says it.

Everything here is frozen and hashable, so that a spec can be a dictionary key, be
compared in one step and be shared between thousands of tasks. Two rules that a newcomer
would trip over: maps are tuples of (key, value) pairs **sorted by key** (`pairs()` makes
them), and field names equal those in `proto/homeport/v1/types.proto`, because `codec`
derives the translation from them. A field added here is added there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

Pairs = tuple[tuple[str, str], ...]
"""A small map: (key, value) pairs, sorted by key, each key once."""


def pairs(items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> Pairs:
    """Make the canonical form of a small map; of a key given twice the last value counts."""
    return tuple(sorted(dict(items).items()))


class Mode(enum.Enum):
    """How many tasks a service has, and whether they are meant to end."""

    REPLICATED = 1
    GLOBAL = 2
    REPLICATED_JOB = 3
    GLOBAL_JOB = 4

    @property
    def is_global(self) -> bool:
        """One task on each eligible node."""
        return self in (Mode.GLOBAL, Mode.GLOBAL_JOB)

    @property
    def is_job(self) -> bool:
        """Meant to end: a task that exits with 0 is done and is not replaced."""
        return self in (Mode.REPLICATED_JOB, Mode.GLOBAL_JOB)


class Driver(enum.Enum):
    """Which of an agent's runtimes runs the service."""

    DOCKER = 1
    PROCESS = 2
    SIMULATED = 3


class RestartCondition(enum.Enum):
    """After which exits the agent starts the container again in place."""

    NONE = 1
    ON_FAILURE = 2
    ANY = 3


class UpdateOrder(enum.Enum):
    """Whether the old task of a slot stops before its successor starts."""

    STOP_FIRST = 1
    START_FIRST = 2


class FailureAction(enum.Enum):
    """What a rollout does when a new task fails."""

    PAUSE = 1
    CONTINUE = 2
    ROLLBACK = 3


class ConstraintOperator(enum.Enum):
    """How a constraint compares a fact of a node with its value."""

    EQ = 1
    NE = 2
    IN = 3
    NOT_IN = 4
    EXISTS = 5
    ABSENT = 6
    LESS = 7  # both as decimal numbers; a fact that is none is neither less nor greater
    GREATER = 8
    MATCHES = 9  # a regular expression, over the whole fact
    NOT_MATCHES = 10


class TaintEffect(enum.Enum):
    """What a taint of a node does to tasks that do not tolerate it."""

    AVOID = 1  # they go there only when no other node will do
    REFUSE = 2  # they do not go there
    EVICT = 3  # nor do they stay


class Strategy(enum.Enum):
    """Whether tasks go where most room is, or where least is."""

    SPREAD = 1
    BINPACK = 2


class MountKind(enum.Enum):
    """Where the content of a mount comes from."""

    VOLUME = 1
    BIND = 2
    TMPFS = 3
    NPIPE = 4
    CLUSTER = 5
    IMAGE = 6


class PublishMode(enum.Enum):
    """INGRESS answers on every node; HOST only where the task runs."""

    INGRESS = 1
    HOST = 2


class PullPolicy(enum.Enum):
    """When an image is fetched from its registry."""

    MISSING = 1
    ALWAYS = 2
    NEVER = 3


class EndpointMode(enum.Enum):
    """What a service's name resolves to."""

    VIP = 1
    DNSRR = 2


class DependencyCondition(enum.Enum):
    """What must hold of a service before one that depends on it starts."""

    STARTED = 1
    HEALTHY = 2
    COMPLETED = 3


class FileKind(enum.Enum):
    """CONFIG and SECRET differ in how they are kept; both appear as a file in the container."""

    CONFIG = 1
    SECRET = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of what a node has."""

    cpu_millis: int = 0  # thousandths of a core
    memory_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    generic: Pairs = ()  # kind -> count or name, as in Compose's generic_resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Argv:
    """A command line; wrapped so that *not given* and *given empty* stay apart."""

    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How the runtime asks a container whether it is well; 0 takes Docker's default."""

    test: tuple[str, ...] = ()  # Docker's form: NONE | CMD, args… | CMD-SHELL, command
    interval_ms: int = 0
    timeout_ms: int = 0
    start_period_ms: int = 0
    start_interval_ms: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Something from outside that appears in the container's file tree."""

    kind: MountKind
    source: str = ""  # volume's Compose name, absolute host path, or image; empty: anonymous
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_propagation: str = ""
    bind_create_host_path: bool = True
    bind_selinux: str = ""
    bind_recursive: str = ""
    volume_nocopy: bool = False
    volume_subpath: str = ""
    volume_labels: Pairs = ()
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    tmpfs_options: tuple[str, ...] = ()  # as `mount -o` takes them: noexec, uid=1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMount:
    """A config or secret of the stack as a file in the container."""

    kind: FileKind
    source: str  # name of the config or secret within the stack
    target: str  # absolute path in the container
    uid: str = ""
    gid: str = ""
    mode: int = 0o444
    digest: str = ""  # which edition is meant (`StackFile.digest`); the scheduler fills it in


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One published port."""

    target: int
    published: int = 0  # 0: the engine picks one
    host_ip: str = ""
    protocol: str = "tcp"
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachment:
    """How a container joins one network of its stack."""

    network: str  # name within the stack
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: Pairs = ()
    interface_name: str = ""
    priority: int = 0
    gw_priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """One resource limit of the container's processes; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node of the host that the container may use."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """Devices asked for by capability, as GPUs are; count -1 asks for all."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNeed:
    """Devices of a machine that each task takes, found by what the machine says of them.

    All that is given must hold of a device; nothing given is no wish.
    """

    name: str = ""  # one of its names: a path, a link, a GPU's UUID or number, usb:VENDOR:PRODUCT
    kind: str = ""  # gpu, serial, video…: see `homeport.devices`
    vendor: str = ""
    models: tuple[str, ...] = ()  # any of these, with * and ?, in any case
    count: int = 1  # -1: all of the node's, and at least one
    share_millis: int = 1000  # of each: 1000 is all of it; 0: beside others, not counted
    target: str = ""  # where a single device appears in the container; empty: as on the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDevice:
    """A rate limit on one block device, in bytes or operations per second."""

    path: str
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIO:
    """Shares and limits of block device I/O."""

    weight: int = 0
    weight_devices: tuple[ThrottleDevice, ...] = ()
    read_bps: tuple[ThrottleDevice, ...] = ()
    write_bps: tuple[ThrottleDevice, ...] = ()
    read_iops: tuple[ThrottleDevice, ...] = ()
    write_iops: tuple[ThrottleDevice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """Docker's log driver of the container."""

    driver: str = ""
    options: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command run in the container after its start or before its stop."""

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    env: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTuning:
    """Docker's finer CPU options; 0 and empty mean the engine's default."""

    shares: int = 0
    period_us: int = 0
    quota_us: int = 0
    rt_period_us: int = 0
    rt_runtime_us: int = 0
    cpuset: str = ""
    count: int = 0
    percent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """All that the agent needs to create one container of a service."""

    image: str = ""
    image_id: str = ""  # sha256:… of an image built by `apply --build`; empty: use `image`
    pull_policy: PullPolicy = PullPolicy.MISSING
    pull_refresh_ms: int = 0  # above 0: pull again when the local copy is older
    platform: str = ""
    command: Argv | None = None  # None: the image's
    entrypoint: Argv | None = None
    env: Pairs = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    init: bool | None = None
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    sysctls: Pairs = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size_bytes: int = 0
    storage_opt: Pairs = ()
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    userns_mode: str = ""
    network_mode: str = ""  # empty: the stack networks below
    isolation: str = ""
    cgroup_parent: str = ""
    oci_runtime: str = ""  # runsc, kata…; empty: the engine's default
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    limits: Resources = field(default_factory=Resources)
    memory_swap_bytes: int = 0  # memory plus swap, -1 unlimited, 0 Docker's default
    memory_swappiness: int | None = None
    memory_reservation_bytes: int = 0  # soft limit inside the engine (mem_reservation)
    cpu: CpuTuning = field(default_factory=CpuTuning)
    block_io: BlockIO = field(default_factory=BlockIO)
    mounts: tuple[Mount, ...] = ()
    files: tuple[FileMount, ...] = ()
    networks: tuple[NetworkAttachment, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    health_check: HealthCheck | None = None
    stop_signal: str = ""
    stop_grace_ms: int = 10_000
    logging: Logging = field(default_factory=Logging)
    mac_address: str = ""
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    venv_requirements: str = ""  # process runtime: content of a requirements.txt


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A fact that must hold of a node: `node.labels.disk == ssd`."""

    key: str
    operator: ConstraintOperator
    value: str = ""
    values: tuple[str, ...] = ()  # of IN and NOT_IN, in their stead


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """A fact that is liked in a node, or disliked: a constraint that only counts points."""

    constraint: Constraint
    weight: int  # 1 to 100; below 0: disliked


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRule:
    """How evenly a service's tasks lie over the values of a fact.

    The skew of a value is how many more tasks its nodes have than those of the value with the
    fewest, counted over the nodes that are of the kind the service needs and have the fact.
    """

    key: str
    max_skew: int = 1
    weight: int = 0  # 0: must hold; 1 to 100: liked


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Tasks that a service's tasks are to be near, or apart from.

    Near and apart are over the values of a fact: a node is near another if both have the same.
    """

    service: str = ""  # of the same stack; STACK/SERVICE of another; empty: `label` says which
    label: str = ""  # KEY=VALUE of deploy.labels, in all stacks
    key: str = "node.id"
    apart: bool = False
    weight: int = 0  # 0: must hold; 1 to 100: liked


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """Taints that do not keep a service's tasks from a node."""

    key: str = ""  # empty: any
    value: str | None = None  # None: any
    effect: TaintEffect | None = None  # None: any


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSpec:
    """Which nodes may run the service, and which are liked better."""

    constraints: tuple[Constraint, ...] = ()
    spread: tuple[str, ...] = ()  # keys over whose values tasks are spread, most important first
    max_replicas_per_node: int = 0  # 0: no limit
    preferences: tuple[Preference, ...] = ()
    spread_rules: tuple[SpreadRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    strategy: Strategy | None = None  # None: the cluster's


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When and how often the agent starts an ended container again in place."""

    condition: RestartCondition = RestartCondition.ANY
    delay_ms: int = 0  # 0: exponential back-off from half a second
    max_attempts: int = 0  # 0: no limit
    window_ms: int = 0  # a start counts as good after running this long; 0: ten minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    """How tasks of an old generation are replaced."""

    parallelism: int = 1  # 0: all at once
    delay_ms: int = 0
    monitor_ms: int = 5_000
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    failure_action: FailureAction = FailureAction.PAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Another service of the stack that must come first."""

    service: str
    condition: DependencyCondition = DependencyCondition.STARTED
    required: bool = True
    restart: bool = False


class _Hashed:
    """Has room for its hash."""

    __slots__ = ("_hash",)
    _hash: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(_Hashed):
    """One service of a stack, as the user wants it."""

    name: str
    container: ContainerSpec = field(default_factory=ContainerSpec)
    driver: Driver = Driver.DOCKER
    mode: Mode = Mode.REPLICATED
    replicas: int = 1
    labels: Pairs = ()
    placement: PlacementSpec = field(default_factory=PlacementSpec)
    reservations: Resources = field(default_factory=Resources)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    rollback: UpdateConfig = field(default_factory=UpdateConfig)
    endpoint_mode: EndpointMode = EndpointMode.VIP
    depends_on: tuple[Dependency, ...] = ()
    exclusive: bool | None = None  # None: follows from the volumes it writes to
    priority: int = 0
    pin_node: str = ""  # node that holds a bind source of the machine that ran apply
    max_concurrent: int = 0  # jobs: how many at once; 0: all
    devices: tuple[DeviceNeed, ...] = ()  # beside what `container.devices` and requests ask for
    preempts: bool = False  # may end tasks of lower priority where it finds no room
    preemptible: bool | None = None  # None: unless it is exclusive or pinned
    min_replicas: int = 0  # preemption leaves at least so many running

    def __hash__(self) -> int:
        """Worked out once: that of a spec is asked for several times for each task, and takes
        longer than all else that is done for a task."""
        try:
            return self._hash
        except AttributeError:
            found = _values_of(self).__hash__()
            object.__setattr__(self, "_hash", found)
            return found


_values_of = attrgetter(*(each.name for each in fields(ServiceSpec)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network of the stack; a bridge of that name on every node that needs it."""

    name: str  # within the stack
    external_name: str = ""  # set: an existing network of the engine is used as it is
    driver: str = ""
    driver_opts: Pairs = ()
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool = False
    labels: Pairs = ()
    ipam_driver: str = ""
    ipam_options: Pairs = ()
    subnets: tuple[SubnetSpec, ...] = ()
    engine_name: str = ""  # `name:` of Compose; empty: <stack>_<name>


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetSpec:
    """One address range of a network."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """A named volume of the stack."""

    name: str  # within the stack
    external_name: str = ""  # set: an existing volume of the engine is used as it is
    driver: str = ""
    driver_opts: Pairs = ()
    labels: Pairs = ()
    engine_name: str = ""  # `name:` of Compose; empty: <stack>_<name>


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """The content of a config or secret of the stack."""

    kind: FileKind
    name: str
    data: bytes = b""
    external_name: str = ""
    labels: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpec:
    """What one Compose file deploys."""

    name: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    files: tuple[FileSpec, ...] = ()
