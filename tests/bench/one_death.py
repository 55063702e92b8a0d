"""What the death of one container costs a scheduler, in CPU time: one cluster, one process.

    python -m tests.bench.one_death --tasks 100000 --nodes 100 [--deaths 200] [--profile FILE]

The whole Core of a scheduler on the SQLite store, with scripted agents in the same process.
The timers are stretched, so that no heartbeat falls into what is measured. Two kinds:

- *ended*: the agent gives the task up; the scheduler stores the outcome, waits for the
  back-off, places a successor, commits it, and the successor's agent has reported it RUNNING.
- *restarted in place*: the agent reports BACKOFF, then RUNNING as attempt 2; no write.

Deaths come one by one within a group, each in a service of its own; a group's cost is the
process' CPU time from its first report until the last is settled, which holds the scripted
agents' own small and constant part too.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from homeport import codec
from homeport.lifecycle import TaskState
from homeport.model import Cluster, Leader, TaskId, TaskStatus
from homeport.seams import SystemClock, system_randomness
from scheduler.cluster import keys
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.base import ABSENT, Write
from scheduler.store.images import Images
from scheduler.store.sqlite import SqliteStore
from tests.bench.scripted import REPLICAS, Agent, InProcessLink, populate

GROUP = 20
APART_SECONDS = 0.01
QUIET_SECONDS = 0.5
DEADLINE_SECONDS = 60.0

LONG = 10_000.0
TIMERS = Timers(
    heartbeat_seconds=LONG,
    leader_lease_seconds=LONG,
    suspect_seconds=3 * LONG,
    node_lease_seconds=4 * LONG,
    down_seconds=5 * LONG,
)


class Bench:
    """A populated cluster that has come to rest."""

    def __init__(self, core: Core, agents: dict[str, Agent]) -> None:
        self.core, self.agents = core, agents

    async def deaths(self, victims: list[TaskId], *, ended: bool) -> float:
        """CPU milliseconds of one death."""
        gc.collect()
        begin = time.process_time()
        for victim in victims:
            await self._die(victim, ended=ended)
            await asyncio.sleep(APART_SECONDS)
        async with asyncio.timeout(DEADLINE_SECONDS):
            # Looked at now and then: an event of the core would be one that only we use.
            while not all(self._settled(victim, ended=ended) for victim in victims):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return (time.process_time() - begin) * 1000 / len(victims)

    async def _die(self, victim: TaskId, *, ended: bool) -> None:
        stored = self.core.mirror.tables.task(victim)
        assert stored is not None
        agent = self.agents[stored.node]
        if ended:
            failed = TaskStatus(task=victim, state=TaskState.FAILED, exit_code=1, message="it died")
            await agent.report(failed)
        else:
            await agent.report(TaskStatus(task=victim, state=TaskState.BACKOFF, exit_code=1))
            await asyncio.sleep(0)
            await agent.report(TaskStatus(task=victim, attempt=2, state=TaskState.RUNNING))

    def _settled(self, victim: TaskId, *, ended: bool) -> bool:
        snapshot = self.core.snapshot()
        assert snapshot is not None
        service, slot, n = victim.rsplit("/", 2)
        wanted = TaskId(f"{service}/{slot}/{int(n) + 1}") if ended else victim
        status = snapshot.observed.status(wanted)
        return (
            status is not None
            and status.state is TaskState.RUNNING
            and status.attempt == (1 if ended else 2)
        )


async def measure(tasks: int, nodes: int, deaths: int, profile: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        store = await SqliteStore.open(Path(folder) / "store.db", clock=clock)
        images = Images(Path(folder) / "images")
        cluster = Cluster(id="bench", nodes_made=nodes)
        await store.commit([Write(keys.CLUSTER, codec.encode_record(cluster), ABSENT)])
        placed = await populate(store, nodes=nodes, tasks=tasks)
        core = Core(
            store=store, me=Leader(id="bench", address="bench"), timers=TIMERS, clock=clock,
            randomness=system_randomness(), images=images, writer="bench",
        )  # fmt: skip
        leading = asyncio.Event()

        async def on_leading(is_leading: bool) -> None:
            if is_leading:
                leading.set()

        core.on_leading = on_leading
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(core.run())]
            await leading.wait()
            link = InProcessLink(core.lanes, background)
            agents = {node: Agent("bench", node, known) for node, known in placed.items()}
            for agent in agents.values():
                running.append(background.create_task(agent.run(link)))
                await agent.heard.wait()
                await agent.told.wait()
            bench = Bench(core, agents)
            await asyncio.sleep(QUIET_SECONDS)
            begin = time.process_time()
            await asyncio.sleep(QUIET_SECONDS)
            idle = (time.process_time() - begin) / QUIET_SECONDS
            found = await _groups(bench, placed, deaths, profile)
            for task in running:
                task.cancel()
            link.close()
        await store.close()
        images.close()
    return {"tasks": tasks, "nodes": nodes, "idle_cpu": idle, **found}


async def _groups(bench: Bench, placed: Any, deaths: int, profile: str) -> dict[str, Any]:
    # Each victim is the first task of a service of its own: those deaths share nothing.
    firsts = sorted(t for known in placed.values() for t in known if t.endswith("/1/1"))
    seconds = sorted(t for known in placed.values() for t in known if t.endswith("/2/1"))
    step = max(1, len(firsts) // (deaths + GROUP))
    found: dict[str, Any] = {}
    for kind, ids, ended in (("ended", firsts, True), ("restarted", seconds, False)):
        victims = ids[::step][: deaths + GROUP]
        groups = [victims[n : n + GROUP] for n in range(0, len(victims) - GROUP + 1, GROUP)]
        await bench.deaths(groups[0], ended=ended)  # first times: indexes, imports, caches
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        times = [await bench.deaths(group, ended=ended) for group in groups[1:]]
        if profile:
            profiler.disable()
            profiler.dump_stats(f"{profile}.{kind}")
        found[kind] = {"median_ms": statistics.median(times), "all_ms": times}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=80)
    parser.add_argument("--profile", default="")
    given = parser.parse_args()
    assert given.tasks // REPLICAS >= given.deaths + GROUP, "each death needs its own service"
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    json.dump(
        asyncio.run(measure(given.tasks, given.nodes, given.deaths, given.profile)), sys.stdout
    )


if __name__ == "__main__":
    main()
