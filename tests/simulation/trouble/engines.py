"""Engines, containers and disks of nodes that misbehave."""

import asyncio
from dataclasses import replace

from agent.runtime.base import Phase
from agent.runtime.simulated_engine import script_of
from tests.simulation.trouble.kinds import kind


@kind("engine outage", 35)
async def _engine_outage(nemesis):
    engine = _engine(nemesis)
    engine.outage = "connection refused"
    await asyncio.sleep(nemesis.rng.uniform(0.5, 20))
    engine.recover()


@kind("engine hangs", 40)
async def _engine_hangs(nemesis):
    engine = _engine(nemesis)
    engine.is_hanging = True
    await asyncio.sleep(nemesis.rng.uniform(0.5, 25))
    engine.recover()


@kind("engine starts late", 40)
async def _engine_starts_late(nemesis):
    engine = _engine(nemesis)
    engine.late_seconds = nemesis.rng.choice((3.0, 12.0, 25.0))
    await asyncio.sleep(nemesis.rng.uniform(5, 25))
    engine.recover()


@kind("one container hangs", 40)
async def _one_container_hangs(nemesis):
    engine = _engine(nemesis)
    if (container := _container(nemesis, engine)) is not None:
        engine.hanging.add(container.task)
        await asyncio.sleep(nemesis.rng.uniform(0.5, 25))
        engine.hanging.discard(container.task)
        engine.well_since = nemesis.world.loop.now


@kind("kill a container", 10)
async def _kill_a_container(nemesis):
    engine = _engine(nemesis)
    if (container := _container(nemesis, engine)) is not None:
        code = nemesis.rng.choice((0, 1, 137))
        nemesis.world.trace.note(f"------ {container.task} ends with {code}")
        engine.end(container.task, code, oom=code == 137)


@kind("remove a container by hand", 25)
async def _remove_a_container_by_hand(nemesis):
    engine = _engine(nemesis)
    if (container := _container(nemesis, engine)) is not None:
        nemesis.world.trace.note(f"------ {container.task} is removed by hand")
        engine.remove_by_hand(container)


@kind("a container is unwell", 25)
async def _a_container_is_unwell(nemesis):
    engine = _engine(nemesis)
    container = _container(nemesis, engine)
    if container is None:
        return
    script = script_of(container.spec.labels)
    nemesis.world.trace.note(f"------ {container.task} is unwell")
    nemesis.world.checks.unwell(container)
    container.script = replace(script, health="unhealthy", health_after_ms=0)
    engine.tell(container, "health_status")
    started = container.started_at
    for _ in range(40):
        await asyncio.sleep(0.25)
        if container.started_at != started or container.phase is not Phase.RUNNING:
            break
    container.script = script
    engine.tell(container, "health_status")


@kind("disk of a node is full", 40)
async def _disk_of_a_node_is_full(nemesis):
    disk = nemesis.rng.choice(nemesis.world.agents).medium
    disk.is_full = True
    await asyncio.sleep(nemesis.rng.uniform(1, 20))
    disk.is_full = False


def _engine(nemesis):
    return nemesis.rng.choice(nemesis.world.agents).engine


def _container(nemesis, engine):
    running = [each for each in engine.ours() if each.phase is Phase.RUNNING]
    return nemesis.rng.choice(running) if running else None
