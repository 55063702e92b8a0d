"""What the HTTP pages show, worked out from a snapshot when somebody asks.

State metrics have the shape of kube-state-metrics under our own prefix; task ids are in no
label, because labels must stay few. Everything costs one pass over what it shows, and
nothing between two scrapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Node, NodeId, Service, Task
from homeport.spec import Pairs
from scheduler.cluster.observed import is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.stats import BOUNDS_SECONDS, Durations, Stats
from scheduler.reconcile.losses import LOOKED_MAX, NODES_MAX, TASKS_MAX, Loss

Labels = tuple[str, ...]

_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric with all its samples: a gauge, or a counter (its name then without `_total`)."""

    name: str
    help: str
    labels: Labels = ()
    samples: tuple[tuple[Labels, float], ...] = ()
    is_counter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One metric of durations in seconds."""

    name: str
    help: str
    buckets: tuple[tuple[str, int], ...]  # (upper bound, how many took no longer)
    sum_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How this process stands; what it can say without a snapshot."""

    version: str
    is_leader: bool
    store: str
    sessions: int = 0
    commits: int = 0  # the store's revision
    stats: Stats | None = None  # while this scheduler leads


def families(
    standing: Standing, snapshot: Snapshot | None, lost: Mapping[NodeId, Loss] | None = None
) -> list[Family]:
    """All metrics that follow from the cluster's state; only the leader has a snapshot.

    `lost`: what the loss of each node would cost, of those of which it was worked out.
    """
    found = [
        Family(
            name="homeport_build_info",
            help="The version that runs; always 1.",
            labels=("version", "component", "store"),
            samples=(((standing.version, "scheduler", standing.store), 1),),
        ),
        Family(
            name="homeport_scheduler_is_leader",
            help="Whether this scheduler leads.",
            samples=(((), float(standing.is_leader)),),
        ),
        Family(
            name="homeport_store_revision",
            help="The store's revision: how often something durable has changed.",
            samples=(((), standing.commits),),
        ),
    ]
    if snapshot is not None:
        found.append(
            Family(
                name="homeport_scheduler_sessions",
                help="Agents that are connected.",
                samples=(((), standing.sessions),),
            )
        )
        if standing.stats is not None:
            found.append(
                Family(
                    name="homeport_scheduling_attempts",
                    help="Tries to give a slot a node, by what came of them.",
                    labels=("result",),
                    samples=tuple(((name,), n) for name, n in standing.stats.attempts.items()),
                    is_counter=True,
                )
            )
            found.append(
                Family(
                    name="homeport_moves",
                    help="Moves to other nodes that were begun, by why.",
                    labels=("cause",),
                    samples=tuple(((name,), n) for name, n in standing.stats.moves.items()),
                    is_counter=True,
                )
            )
            found.append(
                Family(
                    name="homeport_preempted_tasks",
                    help="Tasks that were ended to make room for ones of higher priority.",
                    samples=(((), standing.stats.preempted),),
                    is_counter=True,
                )
            )
        brake = snapshot.observed.brake
        found.append(
            Family(
                name="homeport_brake_on",
                help="Whether nothing moves because most nodes fell silent at once.",
                samples=(((), float(brake is not None)),),
            )
        )
        found.extend(_services(snapshot))
        found.extend(_nodes(snapshot))
        found.extend(_losses(snapshot, lost or {}))
    return found


def histograms(standing: Standing) -> list[Histogram]:
    """What the control loop took; only the leader has one."""
    stats = standing.stats
    if stats is None:
        return []
    return [
        _histogram(
            "homeport_scheduling_duration_seconds",
            "How long choosing nodes for all the slots of one look took.",
            stats.scheduling,
        ),
        _histogram(
            "homeport_reconcile_duration_seconds",
            "How long one turn of the control loop took, from its look to its last commit.",
            stats.reconciling,
        ),
    ]


def _histogram(name: str, text: str, durations: Durations) -> Histogram:
    bounds = [*(f"{bound:g}" for bound in BOUNDS_SECONDS), "+Inf"]
    return Histogram(
        name=name,
        help=text,
        buckets=tuple(zip(bounds, accumulate(durations.buckets), strict=True)),
        sum_seconds=durations.sum_seconds,
    )


def _services(snapshot: Snapshot) -> Iterator[Family]:
    phases: Counter[Labels] = Counter()
    pending: Counter[Labels] = Counter()
    restarts: Counter[Labels] = Counter()
    columns: dict[str, list[tuple[Labels, float]]] = {name: [] for name in _REPLICAS}
    modes: list[tuple[Labels, float]] = []
    for service in sorted(snapshot.stored.services(), key=lambda each: each.id):
        name = (service.stack, service.name)
        tasks = snapshot.stored.tasks_of_service(service.id)
        available = updated = existing = 0
        for task in tasks:
            state = _state(snapshot, task)
            phases[*name, state.name.capitalize()] += 1
            status = snapshot.observed.status(task.id)
            if status is not None:
                restarts[name] += status.attempt - 1
            if task.desired is Desired.RUNNING and task.outcome is None:
                existing += 1
                updated += task.generation >= service.template_generation
                available += is_ready(status)
        modes.append(((*name, service.mode.name.lower().replace("_", "-")), 1))
        waiting = snapshot.observed.waiting.get(service.id, {})
        if waiting:
            phases[*name, "Pending"] += len(waiting)
        for slot in waiting.values():
            pending[slot.refusals[0].rule if slot.refusals else "none",] += 1
        wanted = _wanted(service, existing, len(waiting))
        for column, value in {
            "homeport_service_spec_replicas": wanted,
            "homeport_service_status_replicas": existing,
            "homeport_service_status_replicas_available": available,
            "homeport_service_status_replicas_unavailable": max(0, wanted - available),
            "homeport_service_status_replicas_updated": updated,
            "homeport_service_metadata_generation": service.generation,
        }.items():
            columns[column].append((name, value))
    yield Family(
        name="homeport_service_info",
        help="What a service is; always 1. A job's tasks are meant to end.",
        labels=("stack", "service", "mode"),
        samples=tuple(modes),
    )
    yield Family(
        name="homeport_task_status_phase",
        help="Tasks by phase.",
        labels=("stack", "service", "phase"),
        samples=tuple(sorted(phases.items())),
    )
    yield Family(
        name="homeport_task_container_status_restarts",
        help="Restarts in place of the tasks that there are.",
        labels=("stack", "service"),
        samples=tuple(sorted(restarts.items())),
    )
    yield Family(
        name="homeport_pending_tasks",
        help="Slots that wait for a node, by the rule that refused the first node.",
        labels=("reason",),
        samples=tuple(sorted(pending.items())),
    )
    for column, text in _REPLICAS.items():
        yield Family(
            name=column, help=text, labels=("stack", "service"), samples=tuple(columns[column])
        )


_REPLICAS: Mapping[str, str] = {
    "homeport_service_spec_replicas": "Tasks that the service is to have.",
    "homeport_service_status_replicas": "Tasks that it has.",
    "homeport_service_status_replicas_available": "Tasks that run and are not known to be unwell.",
    "homeport_service_status_replicas_unavailable": "Tasks that are wanted and not available.",
    "homeport_service_status_replicas_updated": "Tasks that run the present generation.",
    "homeport_service_metadata_generation": "The generation of the service's spec.",
}


def _wanted(service: Service, existing: int, waiting: int) -> int:
    if service.removing:
        return 0
    return existing + waiting if service.mode.is_global else service.replicas


def _state(snapshot: Snapshot, task: Task) -> TaskState:
    status = snapshot.observed.status(task.id)
    if status is not None:
        return status.state
    return task.outcome.state if task.outcome is not None else TaskState.ASSIGNED


def _nodes(snapshot: Snapshot) -> Iterator[Family]:
    nodes = snapshot.stored.nodes()
    seen = {node.id: snapshot.observed.node(node.id) for node in nodes}
    yield Family(
        name="homeport_node_info",
        help="What a node is; always 1.",
        labels=("node", "role", "os", "architecture", "kernel", "engine", "agent_version"),
        samples=tuple(
            (
                (
                    node.name,
                    node.role,
                    node.inventory.os,
                    node.inventory.architecture,
                    node.inventory.kernel,
                    node.inventory.engine,
                    node.inventory.agent_version,
                ),
                1,
            )
            for node in nodes
        ),
    )
    yield Family(
        name="homeport_node_status_phase",
        help="What is thought of a node; 1 for the present state.",
        labels=("node", "phase"),
        samples=tuple(((node.name, seen[node.id].state.name.capitalize()), 1) for node in nodes),
    )
    yield Family(
        name="homeport_node_status_condition",
        help="What is well (true) or not (false) about a node; 1 for the present status.",
        labels=("node", "condition", "status"),
        samples=tuple(
            ((node.name, condition.name, "true" if condition.ok else "false"), 1)
            for node in nodes
            for condition in seen[node.id].status.conditions
        ),
    )
    yield Family(
        name="homeport_node_status_capacity",
        help="What a node has.",
        labels=("node", "resource", "unit"),
        samples=tuple(_capacity(nodes)),
    )
    yield Family(
        name="homeport_node_spec_unschedulable",
        help="Whether the operator lets a node take no new tasks.",
        labels=("node",),
        samples=tuple(
            ((node.name,), float(node.availability is not Availability.ACTIVE)) for node in nodes
        ),
    )
    yield Family(
        name="homeport_agent_last_heartbeat_timestamp_seconds",
        help="Wall clock of the last sign of life.",
        labels=("node",),
        samples=tuple(
            ((node.name,), seen[node.id].last_seen_ms / 1000)
            for node in nodes
            if seen[node.id].last_seen_ms
        ),
    )


_TOLD = (
    f" Not of clusters with more than {NODES_MAX} nodes or {TASKS_MAX} tasks,"
    f" nor of nodes whose services have more than {LOOKED_MAX} slots together."
)


def _losses(snapshot: Snapshot, lost: Mapping[NodeId, Loss]) -> Iterator[Family]:
    named = [(node.name, lost[node.id]) for node in snapshot.stored.nodes() if node.id in lost]
    yield Family(
        name="homeport_node_loss_survivable",
        help="Whether all that runs now would run without this node." + _TOLD,
        labels=("node",),
        samples=tuple(
            ((name,), float(not (loss.pinned or loss.unplaceable))) for name, loss in named
        ),
    )
    yield Family(
        name="homeport_node_loss_waiting_slots",
        help="Slots that run now and would be without a node if this one were lost: pinned, since"
        " their data is there, or unplaceable, since no other node takes them." + _TOLD,
        labels=("node", "reason"),
        samples=tuple(
            sample
            for name, loss in named
            for sample in (
                ((name, "pinned"), float(loss.pinned)),
                ((name, "unplaceable"), float(loss.unplaceable)),
            )
        ),
    )


def _capacity(nodes: Iterable[Node]) -> Iterator[tuple[Labels, float]]:
    for node in nodes:
        capacity = node.inventory.capacity
        yield (node.name, "cpu", "core"), capacity.cpu_millis / 1000
        yield (node.name, "memory", "byte"), capacity.memory_bytes
        yield (node.name, "disk", "byte"), capacity.disk_bytes


# ---------------------------------------------------------------- service discovery


def targets(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Prometheus' http_sd: the agents, and tasks whose labels ask to be scraped."""
    found = [
        _target(
            node.inventory.metrics_address,
            {"__meta_homeport_role": "agent", "__meta_homeport_node": node.name},
        )
        for node in snapshot.stored.nodes()
        if node.inventory.metrics_address
    ]
    for service in sorted(snapshot.stored.services(), key=lambda each: each.id):
        for task in snapshot.stored.tasks_of_service(service.id):
            target = _task_target(snapshot, service, task)
            if target is not None:
                found.append(target)
    return found


def _task_target(snapshot: Snapshot, service: Service, task: Task) -> dict[str, Any] | None:
    edition = snapshot.stored.spec(task.service, task.generation)
    node = snapshot.stored.node(task.node)
    status = snapshot.observed.status(task.id)
    if edition is None or node is None or status is None or status.state is not TaskState.RUNNING:
        return None
    labels = edition.spec.container.labels
    if _scrape_option(labels, "scrape") != "true":
        return None
    port = _scrape_option(labels, "port")
    address = ""
    here = _bracketed(next(iter(node.inventory.addresses), ""))
    for bound in status.ports:
        # A published port is reached from everywhere; a container's address may not be.
        if port in ("", str(bound.target)) and here:
            address = f"{here}:{bound.published}"
            break
    if not address and port:
        if edition.spec.container.network_mode == "host":
            address = f"{here}:{port}" if here else ""
        elif status.addresses:
            address = f"{_bracketed(status.addresses[0][1])}:{port}"
    if not address:
        return None
    meta = {
        "__meta_homeport_role": "task",
        "__meta_homeport_stack": service.stack,
        "__meta_homeport_service": service.name,
        "__meta_homeport_slot": str(task.slot),
        "__meta_homeport_task": task.id,
        "__meta_homeport_node": node.name,
        "__metrics_path__": _scrape_option(labels, "path") or "/metrics",
        "__scheme__": _scrape_option(labels, "scheme") or "http",
    }
    for key, value in labels:
        meta[f"__meta_homeport_container_label_{_NOT_IN_LABELS.sub('_', key)}"] = value
    return _target(address, meta)


def _target(address: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"targets": [address], "labels": dict(labels)}


def _scrape_option(labels: Pairs, name: str) -> str:
    found = dict(labels)
    return found.get(f"prometheus.io/{name}", found.get(f"prometheus-{name}", ""))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# ---------------------------------------------------------------- health


def readiness(checks: Iterable[tuple[str, bool, str]], *, verbose: bool) -> tuple[int, str]:
    """(HTTP status, text) of checks (name, passed, sentence)."""
    known = list(checks)
    passed = all(ok for _, ok, _ in known)
    lines = [f"[{'+' if ok else '-'}] {name}: {sentence}" for name, ok, sentence in known]
    if verbose or not passed:
        text = "\n".join([*lines, "ready" if passed else "not ready", ""])
    else:
        text = "ready\n"
    return (200 if passed else 503), text
