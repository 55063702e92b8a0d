"""Two million containers: from `apply` to the last agent's acknowledgement.

    python -m tests.bench.placement.c2m --nodes 6100 --containers 2000000 --store etcd

A real scheduler process (`python -m scheduler`, stock settings) on a real store, one etcd member or
SQLite; simulated agents in a process of their own, with a connection each (`c2m_crowd`); services
of a thousand replicas, fifty to a stack, applied over gRPC one stack after the other. The clock
runs from just before the first apply until every task's order has been acknowledged by its agent,
and on until the scheduler has taken in that all of them run. An order is sent when its task's
record is durable; at the end the records are counted in the store itself.

Left out: Docker, TLS, a network. Agents, store and scheduler share the machine's cores.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from homeport.client import Client
from homeport.v1 import control_pb2, types_pb2
from tests.bench import results
from tests.bench.placement.c2m_crowd import Crowd
from tests.bench.placement.c2m_stores import STORES
from tests.bench.processes import Taken
from tests.bench.results import Target
from tests.testbed.process import Daemon, free_port

NODES, CONTAINERS = 6_100, 2_000_000
REPLICAS = 1_000
SERVICES_PER_STACK = 50
READY_SECONDS = 60.0
ATTACH_SECONDS = 600.0
APPLY_SECONDS = 600.0
"""Applies wait for their turn at the store, behind the tasks of those before them."""
REQUIRED_SECONDS, GOAL_SECONDS = 150, 60
MEMORY_GIB = 2.0
SILENCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run came to; seconds since the first apply, MB of 10^6 bytes."""

    nodes: int
    containers: int
    store: str
    load: float  # of the machine, before
    join_seconds: float  # before the clock: all nodes join
    attach_seconds: float  # before the clock: all sessions, briefed and reported
    attached_mb: float  # the scheduler's memory with all nodes and no task
    applied_seconds: float  # the last apply is answered
    received_seconds: float  # the last order is acknowledged by its agent
    heard_seconds: float  # the scheduler has acknowledged the last report of RUNNING
    peak_mb: float  # the scheduler's, all told
    store_peak_mb: float  # etcd's; 0: the store is in the scheduler
    crowd_peak_mb: float
    store_bytes: int  # on disk
    stored: int  # records of tasks in the store, counted there
    messages: int  # of orders, to all agents together
    sessions_lost: int  # and opened anew, as agents do
    told_again: int  # agents that were given all their orders once more, by their hash
    cpu_seconds: dict[str, float]  # since the first apply: scheduler, store, agents

    @property
    def bytes_per_task(self) -> float:
        """What the scheduler's peak is above what it was with all nodes and no task."""
        return (self.peak_mb - self.attached_mb) * 1e6 / self.containers


class Scheduler:
    """`python -m scheduler` on a store, its HTTP listener for its own word that it leads."""

    def __init__(self, directory, arguments):
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.daemon = Daemon(
            [
                sys.executable, "-m", "scheduler", "--listen", self.address,
                "--http", self.http, "--state-dir", directory, *arguments,
            ],
            name="scheduler",
        )  # fmt: skip

    def check(self):
        assert self.daemon.alive, f"the scheduler ended with exit code {self.daemon.exit_code}"

    def leads(self):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as page:
            return b"homeport_scheduler_is_leader 1.0" in page.read()


def _quoting(daemon):
    """Say the scheduler's last words when a run fails."""

    def leave(kind, *_):
        if kind is not None:
            print(daemon.tail(), file=sys.stderr)

    return leave


def stack(number, replicas):
    """One stack: a service of each of these numbers of replicas, each with a reservation."""
    spec = types_pb2.StackSpec(name=f"c2m-{number:03}")
    for index, count in enumerate(replicas):
        service = spec.services.add(name=f"s{index:02}", replicas=count)
        service.driver = types_pb2.DRIVER_SIMULATED
        service.container.image = "example"
        service.reservations.cpu_millis = 10
        service.reservations.memory_bytes = 16 << 20
    return spec


def stacks(containers):
    """As many as it takes."""
    counts = [REPLICAS] * (containers // REPLICAS)
    if rest := containers % REPLICAS:
        counts.append(rest)
    for number, first in enumerate(range(0, len(counts), SERVICES_PER_STACK)):
        yield stack(number, counts[first : first + SERVICES_PER_STACK])


def once(nodes, containers, store_name, *, deadline_seconds=3_600.0):
    """One run; its figures."""
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        store = opened.enter_context(STORES[store_name](directory))
        scheduler = Scheduler(directory, store.arguments)
        daemon = opened.enter_context(scheduler.daemon)
        opened.push(_quoting(daemon))
        daemon.wait_for(scheduler.leads, "a leader", deadline_seconds=READY_SECONDS)
        began = time.monotonic()
        per_node = -(-containers // nodes) * 2
        crowd = opened.enter_context(
            Crowd(scheduler.address, nodes, per_node, check=scheduler.check)
        )
        joined = crowd.wait_for(lambda line: line["joined"] == nodes, "joins", ATTACH_SECONDS)
        attached = crowd.wait_for(
            lambda line: line["attached"] == nodes, "session of every agent", ATTACH_SECONDS
        )
        time.sleep(SILENCE_SECONDS)
        processes = {"scheduler": daemon.pid, "store": store.pid, "agents": crowd.pid}
        before = {name: Taken.by(pid) for name, pid in processes.items() if pid}
        began_at = time.monotonic()
        with Client(scheduler.address) as client:
            for spec in stacks(containers):
                request = control_pb2.ApplyRequest(stack=spec)
                client.apply(request, timeout_seconds=APPLY_SECONDS)
        applied = time.monotonic() - began_at

        received = crowd.wait_for(
            lambda line: line["acknowledged"] >= containers, "last order", deadline_seconds
        )
        heard = crowd.wait_for(
            lambda line: line["heard"] >= containers, "last report", deadline_seconds
        )
        after = {name: Taken.by(pid) for name, pid in processes.items() if pid}
        stored = store.tasks()
        assert stored == containers, f"{stored:,} tasks are stored, not {containers:,}"
        assert heard["received"] == containers
        return Figures(
            nodes=nodes,
            containers=containers,
            store=store_name,
            load=load,
            join_seconds=joined["at"] - began,
            attach_seconds=attached["at"] - joined["at"],
            attached_mb=before["scheduler"].rss_mb,
            applied_seconds=applied,
            received_seconds=received["at"] - began_at,
            heard_seconds=heard["at"] - began_at,
            peak_mb=after["scheduler"].peak_mb,
            store_peak_mb=after["store"].peak_mb if store.pid else 0.0,
            crowd_peak_mb=after["agents"].peak_mb,
            store_bytes=store.size_bytes(),
            stored=stored,
            messages=heard["messages"],
            sessions_lost=heard["lost"],
            told_again=heard["retold"],
            cpu_seconds={
                name: after[name].cpu_seconds - before[name].cpu_seconds for name in before
            },
        )


def show(found):
    """Print the figures."""
    cpu = " · ".join(f"{name} {seconds:.1f}" for name, seconds in found.cpu_seconds.items())
    rate = found.containers / found.received_seconds
    rows = [
        ("all applied, s", f"{found.applied_seconds:.1f}"),
        ("all acknowledged by their agents, s", f"{found.received_seconds:.1f}"),
        ("all reported RUNNING and heard, s", f"{found.heard_seconds:.1f}"),
        ("containers a second, durable and acknowledged", f"{rate:,.0f}"),
        ("messages of orders · tasks in each",
         f"{found.messages:,} · {found.containers / found.messages:.1f}"),
        ("sessions lost and opened anew · agents told all again",
         f"{found.sessions_lost:,} · {found.told_again:,}"),
        ("CPU, s", cpu),
        ("scheduler, peak MB · with all nodes and no task",
         f"{found.peak_mb:,.0f} · {found.attached_mb:,.0f}"),
        ("  of it a task, bytes", f"{found.bytes_per_task:,.0f}"),
        ("etcd, peak MB", f"{found.store_peak_mb:,.0f}"),
        ("simulated agents, peak MB", f"{found.crowd_peak_mb:,.0f}"),
        ("on disk, MB · bytes a task",
         f"{found.store_bytes / 1e6:,.0f} · {found.store_bytes / found.containers:,.0f}"),
        ("before the clock: join · attach, s",
         f"{found.join_seconds:.1f} · {found.attach_seconds:.1f}"),
    ]  # fmt: skip
    results.table(
        f"{found.containers:,} containers on {found.nodes:,} nodes, {found.store}"
        f" (load before: {found.load:.1f})",
        ("", "found"),
        rows,
    )


def targets(found):
    """What the full size is to come to; a smaller one has no targets."""
    if (found.nodes, found.containers) != (NODES, CONTAINERS):
        return []
    size = f"{CONTAINERS:,} containers on {NODES:,} nodes, {found.store}"
    return [
        Target(
            f"{size}: acknowledged after", found.received_seconds, REQUIRED_SECONDS, GOAL_SECONDS,
            unit=" s", is_most=True,
        ),
        Target(
            f"{size}: scheduler's peak memory", found.peak_mb * 1e6 / 2**30, MEMORY_GIB,
            unit=" GiB", is_most=True,
        ),
    ]  # fmt: skip


def measured(nodes=NODES, containers=CONTAINERS, stores=("etcd",), *, deadline_seconds=3_600.0):
    """One run on each store: its table is printed and its figures kept; the targets."""
    some = []
    for name in stores:
        found = once(nodes, containers, name, deadline_seconds=deadline_seconds)
        show(found)
        more = {"bytes_per_task": found.bytes_per_task}
        results.keep(f"placement_c2m_{name}", asdict(found) | more)
        some += targets(found)
    return some


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--containers", type=int, default=CONTAINERS)
    parser.add_argument("--store", choices=sorted(STORES), default="etcd")
    chosen = parser.parse_args(arguments)
    if some := measured(chosen.nodes, chosen.containers, (chosen.store,)):
        print(results.verdict(some))


if __name__ == "__main__":
    main()
