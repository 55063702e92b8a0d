"""What an idle scheduler and an idle agent take: memory, CPU, disk writes.

Real processes on the SQLite store, watched for IDLE_SECONDS (600) after they have come to
rest: a scheduler and an agent with three running containers on a real engine, and a
scheduler with 100 nodes and 100,000 tasks. Nobody calls the API meanwhile, but Prometheus
scrapes the scheduler's and the agent's /metrics every 15 s would: SCRAPE=1 does that too.

Left out: the 100 nodes are scripted agents in a process of their own (real connections,
sessions and heartbeats each second; no containers), and their tasks' records were written
through the store before the scheduler started. All timers are the defaults.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport import codec
from homeport.client import CallFailed, Client
from homeport.model import Cluster
from homeport.seams import SystemClock
from homeport.v1 import control_pb2, types_pb2
from scheduler.cluster import keys
from scheduler.store.base import ABSENT, Write
from scheduler.store.sqlite import SqliteStore
from tests.bench import results
from tests.bench.processes import Taken
from tests.bench.scripted import populate
from tests.testbed.engine import RunningEngine
from tests.testbed.process import Daemon, free_port

pytestmark = [pytest.mark.bench, pytest.mark.docker]

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "600"))
REST_SECONDS = float(os.environ.get("REST_SECONDS", "15"))
SCRAPE = bool(os.environ.get("SCRAPE"))
SCRAPE_SECONDS = 15.0
READY_SECONDS = 300.0

HEAD = ("process", "RSS MB", "PSS MB", "required", "goal", "CPU %", "required", "goal",
        "disk writes", "store writes")  # fmt: skip


class Scheduler:
    """`python -m scheduler` on the SQLite store."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.daemon = Daemon(
            [
                sys.executable, "-m", "scheduler", "--listen", self.address,
                "--http", self.http, "--state-dir", directory / "scheduler",
            ],
            name="scheduler",
        )  # fmt: skip

    def revision(self) -> int:
        """The store's revision, by the scheduler's own metric."""
        return int(self._metric("homeport_store_revision"))

    def leads(self) -> bool:
        """Whether it has read all and serves agents; OSError while it does not answer."""
        return self._metric("homeport_scheduler_is_leader") == 1

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as page:
            for line in page.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise ValueError(f"the scheduler does not tell {name}")


def watch(pids: dict[str, int], pages: list[str]) -> dict[str, dict[str, float]]:
    """Leave the processes alone for IDLE_SECONDS; what each took in that time."""
    begin = time.monotonic()
    before = {name: Taken.by(pid) for name, pid in pids.items()}
    while (left := begin + IDLE_SECONDS - time.monotonic()) > 0:
        time.sleep(min(left, SCRAPE_SECONDS))
        for page in pages if SCRAPE else ():
            with urllib.request.urlopen(page, timeout=30) as answer:
                answer.read()
    seconds = time.monotonic() - begin
    found = {}
    for name, pid in pids.items():
        old, new = before[name], Taken.by(pid)
        found[name] = {
            "rss_mb": new.rss_mb,
            "pss_mb": new.pss_mb,
            "cpu_percent": 100 * (new.cpu_seconds - old.cpu_seconds) / seconds,
            "written_bytes": new.written_bytes - old.written_bytes,
            "seconds": seconds,
        }
    return found


def row(name: str, found: dict[str, float], required: int, goal: int, writes: object) -> list:
    return [
        name, f"{found['rss_mb']:.1f}", f"{found['pss_mb']:.1f}", required, goal,
        f"{found['cpu_percent']:.2f}", "0.5", "0.3", f"{found['written_bytes']:,.0f} B", writes,
    ]  # fmt: skip


def ready(address: str, nodes: int) -> bool:
    with Client(address) as client, contextlib.suppress(CallFailed):
        states = [view.state for view in client.nodes()]
        return states.count(types_pb2.NODE_STATE_READY) == nodes
    return False


@contextlib.contextmanager
def agent(scheduler: Scheduler, engine: RunningEngine, directory: Path) -> Iterator[Daemon]:
    metrics = f"127.0.0.1:{free_port()}"
    daemon = Daemon(
        [
            sys.executable, "-m", "agent", "--scheduler", scheduler.address, "--name", "bench",
            "--state-dir", directory / "agent", "--runtime", "docker",
            "--docker-host", engine.host, "--metrics-address", metrics,
        ],
        name="agent",
    )  # fmt: skip
    daemon.metrics = f"http://{metrics}/metrics"  # type: ignore[attr-defined]
    with daemon:
        yield daemon


def test_an_idle_scheduler_and_an_idle_agent(tmp_path: Path, docker_engine: RunningEngine) -> None:
    scheduler = Scheduler(tmp_path)
    with scheduler.daemon, agent(scheduler, docker_engine, tmp_path) as daemon:
        daemon.wait_for(lambda: ready(scheduler.address, 1), "the node to be ready")
        with Client(scheduler.address) as client:
            spec = types_pb2.StackSpec(name="idle")
            service = spec.services.add(name="sleep", replicas=3)
            service.driver = types_pb2.DRIVER_DOCKER
            service.container.image = "hp/busybox:1"
            service.container.network_mode = "host"
            service.container.command.args.extend(["sleep", "100000"])
            service.container.stop_grace_ms = 1
            client.apply(control_pb2.ApplyRequest(stack=spec))

            def running() -> int:
                return sum(
                    view.status.state == types_pb2.TASK_STATE_RUNNING for view in client.tasks()
                )

            daemon.wait_for(lambda: running() == 3, "three running containers")
        try:
            time.sleep(REST_SECONDS)
            revision = scheduler.revision()
            found = watch(
                {"scheduler": scheduler.daemon.pid, "agent": daemon.pid},
                [f"http://{scheduler.http}/metrics", daemon.metrics],
            )
            writes = scheduler.revision() - revision
        finally:
            with Client(scheduler.address) as client:
                client.remove_stack(control_pb2.RemoveStackRequest(stack="idle"))
                daemon.wait_for(lambda: not list(client.stacks()), "the stack to be gone")
    results.table(
        f"idle for {IDLE_SECONDS:g} s: one node, three containers, SQLite",
        HEAD,
        [
            row("scheduler", found["scheduler"], 90, 80, writes),
            row("agent, docker", found["agent"], 60, 50, "-"),
        ],
    )
    results.keep("idle", {**found, "store_writes": writes})


async def stored(file: Path, nodes: int, tasks: int) -> dict[str, list[str]]:
    store = await SqliteStore.open(file, clock=SystemClock())
    cluster = Cluster(id="bench", nodes_made=nodes)
    await store.commit([Write(keys.CLUSTER, codec.encode_record(cluster), ABSENT)])
    placed = await populate(store, nodes=nodes, tasks=tasks)
    await store.close()
    return placed


def test_a_scheduler_with_100_nodes_and_100000_tasks(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path)
    (tmp_path / "scheduler").mkdir()
    placed = asyncio.run(stored(tmp_path / "scheduler" / "store.db", 100, 100_000))
    (tmp_path / "placed.json").write_text(json.dumps(placed))
    with scheduler.daemon:
        begin = time.monotonic()
        scheduler.daemon.wait_for(
            scheduler.leads,
            "a leader",
            deadline_seconds=READY_SECONDS,
        )
        started = time.monotonic() - begin
        agents = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scripted", scheduler.address, "bench",
             tmp_path / "placed.json"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert agents.stdout is not None
            assert agents.stdout.readline() == "ready\n"
            time.sleep(REST_SECONDS)
            revision = scheduler.revision()
            found = watch({"scheduler": scheduler.daemon.pid}, [f"http://{scheduler.http}/metrics"])
            writes = scheduler.revision() - revision
            assert agents.poll() is None, "the scripted agents ended"
        finally:
            agents.kill()
            agents.wait()
            agents.stdout.close()
    results.table(
        f"idle for {IDLE_SECONDS:g} s: 100 nodes (scripted), 100,000 tasks, SQLite;"
        f" it leads {started:.1f} s after the start",
        HEAD,
        [row("scheduler", found["scheduler"], 140, 120, writes)],
    )
    results.keep("idle_large", {**found, "store_writes": writes, "ready_seconds": started})
