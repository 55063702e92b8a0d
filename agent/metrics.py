"""The agent's /metrics: tasks under cAdvisor's names, and the agent itself under ours.

Ready-made dashboards look for cAdvisor's names and labels, so these are not ours to
improve. A newcomer's mistake: sampling while being scraped. A scrape shows what the
observer saw last; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.inventory import Load
from agent.runtime.base import Sample
from agent.runtime.labels import container_name
from homeport.lifecycle import TaskState
from homeport.model import Inventory, NodeStatus, ServiceGeneration, TaskId, TaskStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LABELS = (
    "id",
    "name",
    "image",
    "container_label_com_docker_compose_project",
    "container_label_com_docker_compose_service",
)

_ROOT = ("/", "", "", "", "")
"""The labels of the machine itself; dashboards tell it from containers by its empty name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One running task, as it is shown."""

    status: TaskStatus
    stack: str
    service_name: str
    generation: ServiceGeneration | None
    sample: Sample
    sampled_ms: int  # wall clock


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """All that one scrape shows."""

    version: str
    inventory: Inventory
    node: str = ""  # empty: it has not joined yet
    status: NodeStatus = field(default_factory=NodeStatus)
    load: Load | None = None
    is_connected: bool = False
    sessions: int = 0
    last_answer_ms: int = 0
    statuses: tuple[TaskStatus, ...] = ()
    tasks: tuple[TaskView, ...] = ()


Take = Callable[[Sample], float]

# name, help, what of a sample; counters carry `_total` by themselves
_COUNTERS: tuple[tuple[str, str, Take], ...] = (
    ("container_cpu_user_seconds", "CPU time in user mode.", lambda s: s.cpu_user_seconds),
    ("container_cpu_system_seconds", "CPU time in the kernel.", lambda s: s.cpu_system_seconds),
    ("container_cpu_cfs_periods", "Periods with a CPU limit.", lambda s: s.cpu_periods),
    (
        "container_cpu_cfs_throttled_periods",
        "Periods in which the CPU limit was hit.",
        lambda s: s.cpu_throttled_periods,
    ),
    (
        "container_cpu_cfs_throttled_seconds",
        "Time spent waiting for the CPU limit.",
        lambda s: s.cpu_throttled_seconds,
    ),
    ("container_oom_events", "Kills for want of memory.", lambda s: s.oom_events),
)
_GAUGES: tuple[tuple[str, str, Take], ...] = (
    ("container_memory_usage_bytes", "Memory, caches included.", lambda s: s.memory_usage_bytes),
    (
        "container_memory_working_set_bytes",
        "Memory without what the kernel can drop.",
        lambda s: s.memory_working_set_bytes,
    ),
    ("container_memory_rss", "Anonymous memory.", lambda s: s.memory_rss_bytes),
    ("container_memory_cache", "Page cache.", lambda s: s.memory_cache_bytes),
    ("container_memory_swap", "Swap in use.", lambda s: s.memory_swap_bytes),
    ("container_memory_max_usage_bytes", "Most memory ever used.", lambda s: s.memory_max_bytes),
    ("container_memory_failcnt", "How often a limit was hit.", lambda s: s.memory_fail_count),
    ("container_processes", "Processes and threads.", lambda s: s.pids),
)
_DISK: tuple[tuple[str, str, Take], ...] = (
    ("container_fs_reads_bytes", "Bytes read from disks.", lambda s: s.read_bytes),
    ("container_fs_writes_bytes", "Bytes written to disks.", lambda s: s.write_bytes),
    ("container_fs_reads", "Reads from disks.", lambda s: s.reads),
    ("container_fs_writes", "Writes to disks.", lambda s: s.writes),
)
_NETWORK = (
    ("container_network_receive_bytes", "Bytes received."),
    ("container_network_transmit_bytes", "Bytes sent."),
    ("container_network_receive_errors", "Errors while receiving."),
    ("container_network_transmit_errors", "Errors while sending."),
)


class AgentMetrics(Collector):
    """Turns a view into metrics, afresh at each scrape."""

    def __init__(self, view: Callable[[], AgentView], *, with_tasks: bool = True) -> None:
        """`with_tasks` False leaves cAdvisor's names to a cAdvisor that runs here."""
        self._view = view
        self._with_tasks = with_tasks
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time; saves a collection at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of this scrape."""
        view = self._view()
        yield from _agent(view)
        if self._with_tasks:
            yield from _machine(view)
            yield from _containers(view)


def _agent(view: AgentView) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "homeport_build_info", "What runs here.", labels=["version", "component"]
    )
    build.add_metric([view.version, "agent"], 1)
    yield build
    answered = GaugeMetricFamily(
        "homeport_agent_last_heartbeat_timestamp_seconds",
        "When a scheduler last answered a heartbeat.",
        labels=["node"],
    )
    answered.add_metric([view.node], view.last_answer_ms / 1000)
    yield answered
    yield GaugeMetricFamily(
        "homeport_agent_connected", "Whether a session is open.", value=int(view.is_connected)
    )
    yield CounterMetricFamily(
        "homeport_agent_sessions", "Sessions opened since the agent started.", value=view.sessions
    )
    states = GaugeMetricFamily(
        "homeport_agent_tasks", "Tasks on this node, by state.", labels=["state"]
    )
    for state in TaskState:
        count = sum(status.state is state for status in view.statuses)
        states.add_metric([state.name.lower()], count)
    yield states
    yield CounterMetricFamily(
        "homeport_agent_task_restarts",
        "Restarts in place of the tasks that are here now.",
        value=sum(status.attempt - 1 for status in view.statuses),
    )
    conditions = GaugeMetricFamily(
        "homeport_agent_condition", "1: this is well. 0: it is not.", labels=["condition"]
    )
    for condition in view.status.conditions:
        conditions.add_metric([condition.name], int(condition.ok))
    yield conditions
    yield GaugeMetricFamily(
        "homeport_agent_unknown_containers",
        "Containers of ours that no scheduler told us of.",
        value=len(view.status.unknown_containers),
    )


def _machine(view: AgentView) -> Iterator[Metric]:
    capacity = view.inventory.capacity
    yield GaugeMetricFamily("machine_cpu_cores", "Processors.", value=capacity.cpu_millis / 1000)
    yield GaugeMetricFamily("machine_memory_bytes", "Memory.", value=capacity.memory_bytes)
    if view.load is None:
        return
    used = GaugeMetricFamily(
        "container_fs_usage_bytes", "Bytes in use on the disk.", labels=[*LABELS, "device"]
    )
    size = GaugeMetricFamily(
        "container_fs_limit_bytes", "Size of the disk in bytes.", labels=[*LABELS, "device"]
    )
    for disk in view.load.disks:
        used.add_metric([*_ROOT, disk.path], disk.used_bytes)
        size.add_metric([*_ROOT, disk.path], disk.total_bytes)
    yield from (used, size)


def _containers(view: AgentView) -> Iterator[Metric]:
    tasks = [(_labels(task), task) for task in view.tasks]
    cpu = CounterMetricFamily("container_cpu_usage_seconds", "CPU time.", labels=[*LABELS, "cpu"])
    for labels, task in tasks:
        cpu.add_metric([*labels, "total"], task.sample.cpu_seconds)
    yield cpu
    for name, help_text, take in _COUNTERS:
        counter = CounterMetricFamily(name, help_text, labels=LABELS)
        for labels, task in tasks:
            counter.add_metric(labels, take(task.sample))
        yield counter
    for name, help_text, take in _DISK:
        counter = CounterMetricFamily(name, help_text, labels=[*LABELS, "device"])
        for labels, task in tasks:
            counter.add_metric([*labels, ""], take(task.sample))
        yield counter
    for position, (name, help_text) in enumerate(_NETWORK, start=1):
        counter = CounterMetricFamily(name, help_text, labels=[*LABELS, "interface"])
        for labels, task in tasks:
            for interface in task.sample.network:
                counter.add_metric([*labels, interface[0]], float(interface[position]))
        yield counter
    for name, help_text, take in _GAUGES:
        gauge = GaugeMetricFamily(name, help_text, labels=LABELS)
        for labels, task in tasks:
            gauge.add_metric(labels, take(task.sample))
        yield gauge
    yield from _specs(tasks)


def _specs(tasks: list[tuple[list[str], TaskView]]) -> Iterator[Metric]:
    seen = GaugeMetricFamily("container_last_seen", "When it was last looked at.", labels=LABELS)
    start = GaugeMetricFamily("container_start_time_seconds", "When it was started.", labels=LABELS)
    limit = GaugeMetricFamily(
        "container_spec_memory_limit_bytes", "Memory limit; 0: none.", labels=LABELS
    )
    reservation = GaugeMetricFamily(
        "container_spec_memory_reservation_limit_bytes", "Memory reserved.", labels=LABELS
    )
    period = GaugeMetricFamily(
        "container_spec_cpu_period", "Period of the CPU limit in µs.", labels=LABELS
    )
    quota = GaugeMetricFamily(
        "container_spec_cpu_quota", "CPU time in each period in µs; 0: no limit.", labels=LABELS
    )
    for labels, task in tasks:
        seen.add_metric(labels, task.sampled_ms / 1000)
        start.add_metric(labels, task.status.running_since_ms / 1000)
        if task.generation is None:
            continue
        spec = task.generation.spec
        limit.add_metric(labels, spec.container.limits.memory_bytes)
        reservation.add_metric(labels, spec.reservations.memory_bytes)
        period.add_metric(labels, 100_000)
        quota.add_metric(labels, spec.container.limits.cpu_millis * 100)
    yield from (seen, start, limit, reservation, period, quota)


def _labels(view: TaskView) -> list[str]:
    image = view.generation.spec.container.image if view.generation is not None else ""
    return [
        f"/docker/{view.status.container_id}",
        container_name(TaskId(view.status.task)),
        image,
        view.stack,
        view.service_name,
    ]
