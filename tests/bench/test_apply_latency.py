"""From `apply` to the agent: the time until a task's order has been received.

A real scheduler process on the SQLite store and sixteen scripted agents over loopback
connections; each apply is one service with one replica, over gRPC, at a steady rate that does
not wait for answers. The clock runs from just before the call until an agent has read the
order. Durable before it is sent. Also: the time from the start of the process to its first
answer as leader, and to a node that is ready.

It takes place on a disk and, where there is one, on a file system in memory: an apply needs two
commits one after the other (the spec, then the task), and a disk that others keep busy takes
longer for an fsync than the scheduler for all the rest. Beside each stands what SQLite alone
needs for one small durable commit, in the same place and moment.

Left out: TLS, a network, Docker. The load generator and the agents are one process and share
the machine's cores with the scheduler, so each figure holds their time too.
"""

import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.grpc_transport import GrpcTransport
from homeport import codec
from homeport.client import AsyncClient, CallFailed
from homeport.model import Assignment, NodeId
from homeport.v1 import control_pb2, dispatcher_pb2, types_pb2
from tests.bench import results
from tests.bench.processes import Taken
from tests.bench.scripted import Agent, inventory
from tests.testbed.process import Daemon, free_port

pytestmark = pytest.mark.bench

AGENTS = 16
RATES = tuple(int(rate) for rate in os.environ.get("RATES", "20,100,200").split(","))
SECONDS = float(os.environ.get("SECONDS", "10"))
WARM_UP = 50
ARRIVAL_SECONDS = 30.0
STARTS = 3
BARE_COMMITS = 300


class Received:
    """When each service's order was read by its agent."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._waits: dict[str, asyncio.Event] = {}

    def take(self, assignment: Assignment) -> None:
        self.at.setdefault(assignment.service_name, time.perf_counter())
        self.event(assignment.service_name).set()

    def event(self, service: str) -> asyncio.Event:
        return self._waits.setdefault(service, asyncio.Event())


async def apply(client: AsyncClient, received: Received, name: str) -> tuple[float, float]:
    """Apply a stack of one service: ms until it is answered, and until its order is received."""
    spec = types_pb2.StackSpec(name=name)
    service = spec.services.add(name=name, replicas=1)
    service.driver = types_pb2.DRIVER_SIMULATED
    service.container.image = "example"
    begin = time.perf_counter()
    await client.apply(control_pb2.ApplyRequest(stack=spec))
    answered = time.perf_counter()
    async with asyncio.timeout(ARRIVAL_SECONDS):
        await received.event(name).wait()
    return (answered - begin) * 1000, (received.at[name] - begin) * 1000


async def at_rate(
    client: AsyncClient, received: Received, rate: int, number: int
) -> list[tuple[float, float]]:
    """So many applies, begun at a steady rate whatever the answers do."""
    calls = []
    async with asyncio.TaskGroup() as background:
        begin = time.perf_counter()
        for place in range(number):
            await asyncio.sleep(max(0.0, begin + place / rate - time.perf_counter()))
            name = f"r{rate}n{place}"
            calls.append(background.create_task(apply(client, received, name)))
    return [call.result() for call in calls]


async def join(link: object, name: str) -> tuple[str, NodeId]:
    request = dispatcher_pb2.JoinRequest(name=name, boot_id="boot", request_id=name)
    codec.fill(request.inventory, inventory())
    answer = await link.join(request)  # type: ignore[attr-defined]
    return answer.cluster_id, NodeId(answer.node_id)


async def measure(address: str) -> dict[int, list[tuple[float, float]]]:
    transport, received = GrpcTransport(), Received()
    found = {}
    async with AsyncClient(address) as client, asyncio.TaskGroup() as background:
        running = []
        for number in range(AGENTS):
            link = transport.connect(address)
            agent = Agent(*await join(link, f"agent{number:02}"))
            agent.on_task = received.take
            running.append(background.create_task(agent.run(link, phase=number / AGENTS)))
            await agent.heard.wait()
        await at_rate(client, received, 50 + 1, WARM_UP)
        for rate in RATES:
            found[rate] = await at_rate(client, received, rate, round(rate * SECONDS))
        for each in running:
            each.cancel()
    return found


async def first_answer(address: str, begin: float) -> float:
    """Seconds from `begin` until a scheduler answers as leader."""
    async with asyncio.timeout(ARRIVAL_SECONDS), AsyncClient(address) as client:
        while True:
            try:
                await client.get_cluster(control_pb2.GetClusterRequest(), timeout_seconds=1)
            except CallFailed:
                await asyncio.sleep(0.01)
            else:
                return time.perf_counter() - begin


def scheduler(directory: Path) -> tuple[Daemon, str]:
    address = f"127.0.0.1:{free_port()}"
    daemon = Daemon(
        [
            sys.executable, "-m", "scheduler", "--listen", address, "--http", "",
            "--state-dir", directory,
        ],
        name="scheduler",
    )  # fmt: skip
    return daemon, address


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def bare_commits(folder: Path) -> list[float]:
    """ms of single small commits by SQLite alone, WAL and synchronous=FULL, as the store does."""
    times = []
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute("CREATE TABLE records (key INTEGER PRIMARY KEY, value BLOB)")
        for number in range(BARE_COMMITS):
            begin = time.perf_counter()
            file.execute("INSERT INTO records VALUES (?, ?)", (number, bytes(200)))
            times.append((time.perf_counter() - begin) * 1000)
    return times


def on(place: str, folder: Path) -> dict[str, Any]:
    """Print a table of all rates, with the store in this folder; returns the figures."""
    commits = bare_commits(folder)
    starts = []
    for number in range(STARTS):
        daemon, address = scheduler(folder / f"start{number}")
        begin = time.perf_counter()
        with daemon:
            starts.append(asyncio.run(first_answer(address, begin)))
            daemon.terminate()
    daemon, address = scheduler(folder / "load")
    with daemon:
        asyncio.run(first_answer(address, time.perf_counter()))
        before = Taken.by(daemon.pid).cpu_seconds
        found = asyncio.run(measure(address))
        applies = WARM_UP + sum(len(times) for times in found.values())
        cpu = 1000 * (Taken.by(daemon.pid).cpu_seconds - before) / applies
    rows, rates = [], {}
    for rate, times in found.items():
        answered = [each for each, _ in times]
        arrived = [each for _, each in times]
        rates[rate] = {
            "number": len(times),
            "received_ms": {"p50": percentile(arrived, 0.5), "p99": percentile(arrived, 0.99)},
            "answered_ms": {"p50": percentile(answered, 0.5), "p99": percentile(answered, 0.99)},
            "max_ms": max(arrived),
        }
        rows.append(
            [f"{rate}/s"]
            + [f"{percentile(arrived, part):.1f}" for part in (0.5, 0.99)]
            + [f"{max(arrived):.1f}"]
            + [f"{percentile(answered, part):.1f}" for part in (0.5, 0.99)]
        )
    bare = [percentile(commits, part) for part in (0.5, 0.99)]
    rows.append(["one bare commit", *(f"{each:.2f}" for each in bare), f"{max(commits):.1f}"])
    rows[-1] += ["", ""]
    rows.append(["required", "5", "15", "", "", ""])
    rows.append(["goal", "3", "8", "", "", ""])
    results.table(
        f"apply, ms, store on {place}: order received by the agent · answer to the caller;"
        f" {cpu:.1f} ms of the scheduler's CPU each;"
        f" first answer as leader {statistics.median(starts):.2f} s after the start",
        ("rate", "p50", "p99", "max", "answered p50", "p99"),
        rows,
    )
    return {"rates": rates, "start_seconds": starts, "cpu_ms": cpu, "bare_commit_ms": bare}


def test_apply_to_received(tmp_path: Path) -> None:
    figures = {"disk": on("a disk", tmp_path)}
    memory = Path("/dev/shm")
    if memory.is_dir():
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            figures["memory"] = on("a file system in memory", Path(folder))
    results.keep("apply_latency", figures)
