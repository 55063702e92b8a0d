"""Storms: everything comes back at once. The machine is small, so the crowd is scripted.

A newcomer would start five hundred agents; what a storm tests is the scheduler, and an agent that
only speaks the protocol costs a hundredth.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from homeport.client import Client
from homeport.seams import LinkLost, SystemClock
from homeport.v1 import control_pb2, types_pb2
from tests.bench.scripted import Agent, populate
from tests.faults.registry import fault
from tests.faults.world import World
from tests.testbed.ledger import current_run
from tests.testbed.process import Daemon, free_port

CROWD = 500


@fault("F49", "every host loses its power and comes back at once", seconds=500)
def site_power_cut(world: World) -> None:
    names = tuple(host.name for host in world.lab.hosts)
    with world.fault("F49", scope="node", nodes=names, settle_seconds=200):
        for name in names:
            world.power_off(name)
        assert not world.beats("anchor", within_seconds=0.2)
        for name in names:
            world.power_on(name)


@fault("F50", "five hundred agents connect at once", alone=True, seconds=500)
def reconnect_storm(results: Path) -> None:
    folder = current_run().component("storm").directory
    port = free_port()
    address = f"127.0.0.1:{port}"
    argv = [
        *(sys.executable, "-m", "scheduler", "--listen", address, "--http", ""),
        *("--state-dir", str(folder / "state")),
    ]
    (folder / "state").mkdir()
    nodes = asyncio.run(_populate(folder / "state" / "store.db"))
    results.mkdir(parents=True, exist_ok=True)
    with Daemon(argv, name="storm-scheduler") as scheduler, Client(address) as client:
        scheduler.wait_for_port(port)
        cluster = _cluster_id(client)
        took = asyncio.run(_storm(address, cluster, nodes, scheduler, client))
        assert "DOWN" not in took[2], "a node was taken for lost"
        (results / "F50.txt").write_text(
            f"{CROWD} agents connected after {took[0]:.1f} s, and again after the scheduler's"
            f" restart after {took[1]:.1f} s\n"
        )


async def _populate(database: Path) -> dict:  # type: ignore[type-arg]
    from scheduler.store.sqlite import SqliteStore

    store = await SqliteStore.open(database, clock=SystemClock())
    try:
        return await populate(store, nodes=CROWD, tasks=CROWD * 10)
    finally:
        await store.close()


def _cluster_id(client: Client) -> str:
    """The cluster's id, once somebody leads it and has read its record."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get_cluster(control_pb2.GetClusterRequest())
        if answer.leader and answer.cluster.id:
            return str(answer.cluster.id)
        assert time.monotonic() < deadline, "nobody leads"
        time.sleep(0.1)


async def _storm(
    address: str,
    cluster: str,
    nodes: dict,
    scheduler: Daemon,
    client: Client,  # type: ignore[type-arg]
) -> tuple[float, float, set[str]]:
    """Seconds until all are heard, before and after a kill of the scheduler; the states seen."""
    from agent.grpc_transport import GrpcTransport

    transport = GrpcTransport()
    heard: set[str] = set()
    over = False

    async def live(node: str, tasks: list) -> None:  # type: ignore[type-arg]
        # A cancellation that comes while the session's group takes in a lost link is swallowed
        # by it (Python 3.11), so the end is also looked at.
        while not over:
            agent = Agent(cluster, node, tasks)  # type: ignore[arg-type]
            link = transport.connect(address)
            try:
                async with asyncio.TaskGroup() as session:
                    session.create_task(agent.run(link))
                    await agent.heard.wait()
                    heard.add(node)
            except* (LinkLost, AssertionError):
                heard.discard(node)
            await link.close()
            await asyncio.sleep(random.uniform(0.1, 1.0))

    async def until(holds: Callable[[], bool], what: str) -> float:
        begin = time.monotonic()
        while not holds():
            if time.monotonic() - begin > 120:
                raise AssertionError(
                    f"{len(heard)} of {len(nodes)} have a session: 120 s without {what}"
                )
            await asyncio.sleep(0.05)
        return time.monotonic() - begin

    def everybody() -> bool:
        return len(heard) == len(nodes)

    async with asyncio.TaskGroup() as crowd:
        living = [crowd.create_task(live(node, tasks)) for node, tasks in nodes.items()]
        try:
            first = await until(everybody, "all of them")
            scheduler.kill9()
            await until(lambda: not heard, "all having lost it")
            scheduler.start()
            second = await until(everybody, "all of them again")
            loop = asyncio.get_running_loop()
            seen = await loop.run_in_executor(
                None,
                lambda: {types_pb2.NodeState.Name(each.state)[11:] for each in client.nodes()},
            )
        finally:
            over = True
            for each in living:
                each.cancel()
    return first, second, seen
