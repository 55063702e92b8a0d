"""Look at the machine and at what its tasks use, every ten seconds, and say what is news.

Everything here is for people, placement and dashboards; no container starts or stops for
it. A newcomer's mistake: reporting every figure every time. An idle node says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from agent import conditions
from agent.inventory import Load, Machine
from agent.runtime.base import EngineFacts, Runtime, RuntimeFailure, Sample
from homeport.model import (
    Condition,
    Inventory,
    NodeStatus,
    TaskId,
    TaskUsage,
    UnknownContainer,
)
from homeport.seams import Clock, Randomness, jittered

LOOK_SECONDS = 10.0
ENGINE_SECONDS = 30.0
"""Between two probes of an engine that is well; one that is not is probed at every look."""
FACTS_SECONDS = 300.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNews:
    """What the node says of itself; the inventory only when it changed."""

    status: NodeStatus
    inventory: Inventory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """What the observer asks the worker."""

    running: Callable[[], Mapping[TaskId, object]]
    unknown_containers: Callable[[], tuple[str, ...]]
    conditions: Callable[[], tuple[Condition, ...]]
    unknown: Callable[[], tuple[UnknownContainer, ...]] = lambda: ()


class Observer:
    """The latest of what was seen of this node."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        machine: Machine,
        clock: Clock,
        randomness: Randomness,
        tasks: Tasks,
        inventory: Inventory,
    ) -> None:
        """`inventory` as it was looked at before the node joined."""
        self.inventory = inventory
        self.status = NodeStatus()
        self.load: Load | None = None
        self.samples: dict[TaskId, tuple[float, Sample]] = {}
        """Of each running task, and the boot time in seconds at which it was taken."""
        self._runtime = runtime
        self._machine = machine
        self._clock = clock
        self._randomness = randomness
        self._tasks = tasks
        self._facts = EngineFacts()
        self._facts_due = 0.0
        self._engine_due = 0.0
        self._engine = Condition(name="engine", ok=True)
        self._loaded_at = 0.0
        self._wall_offset_ms: int | None = None
        self._told: NodeStatus | None = None
        self._told_inventory: Inventory | None = inventory
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look every ten seconds, until cancelled."""
        while True:
            try:
                await self._look()
            except OSError as error:
                # A disk that cannot be asked is no reason to stop looking at the rest.
                log.warning("cannot look at the machine", error=str(error))
            if self._is_news():
                self._wake.set()
            await asyncio.sleep(jittered(LOOK_SECONDS, self._randomness, part=0.1))

    async def news(self) -> NodeNews:
        """What is worth telling; waits until something is."""
        while not self._is_news():
            self._wake.clear()
            await self._wake.wait()
        is_new = self.inventory != self._told_inventory
        self._told, self._told_inventory = self.status, self.inventory
        return NodeNews(status=self.status, inventory=self.inventory if is_new else None)

    def tell_again(self) -> None:
        """Whoever listened is gone: a hello tells the inventory, and news the rest."""
        self._told = None
        self._told_inventory = self.inventory
        self._wake.set()

    def hurry(self) -> None:
        """Something about the node changed that a condition tells: take it in now."""
        if self.status.conditions:
            self.status = replace(
                self.status,
                conditions=self._conditions(),
                unknown_containers=self._tasks.unknown_containers(),
                unknown=self._tasks.unknown(),
            )
            self._wake.set()

    def _is_news(self) -> bool:
        return bool(self.status.conditions) and (
            self.inventory != self._told_inventory or conditions.is_notable(self._told, self.status)
        )

    async def _look(self) -> None:
        now = self._clock.boottime()
        if now >= self._facts_due:
            await self._look_at_engine(now)
        elif self._facts_due > 0:
            # A stick that was plugged in may be what a task waits for. The rest can wait: the size
            # of some file systems changes with what is on them, and each change is written.
            fresh = self._machine.inventory(self._facts)
            self.inventory = replace(
                self.inventory,
                devices=fresh.devices,
                device_patterns=fresh.device_patterns,
                paths=fresh.paths,
                path_patterns=fresh.path_patterns,
            )
        if now >= self._engine_due or not self._engine.ok:
            was_ok = self._engine.ok
            self._engine = await self._runtime.check()
            self._engine_due = now + ENGINE_SECONDS
            if self._engine.ok and not was_ok:
                self._facts_due = 0.0  # it may be another version now
        usages = [await self._sample(task) for task in list(self._tasks.running())]
        self.samples = {task: self.samples[task] for task, usage in usages if usage is not None}
        before, self.load = self.load, self._machine.load(self._facts.data_root)
        seconds, self._loaded_at = now - self._loaded_at, now
        busy = self.load.cpu_seconds - before.cpu_seconds if before is not None else 0.0
        main = self.load.disks[0] if self.load.disks else None
        self.status = NodeStatus(
            conditions=self._conditions(),
            cpu_millis=max(0, round(1000 * busy / seconds)) if seconds > 0 else 0,
            memory_bytes=self.load.memory_total_bytes - self.load.memory_available_bytes,
            disk_used_bytes=main.used_bytes if main is not None else 0,
            disk_total_bytes=main.total_bytes if main is not None else 0,
            tasks=tuple(usage for _, usage in usages if usage is not None),
            unknown_containers=self._tasks.unknown_containers(),
            unknown=self._tasks.unknown(),
        )

    async def _look_at_engine(self, now: float) -> None:
        try:
            self._facts = await self._runtime.facts()
        except RuntimeFailure:
            return  # the engine's condition tells
        self._facts_due = now + FACTS_SECONDS
        self.inventory = self._machine.inventory(self._facts)

    async def _sample(self, task: TaskId) -> tuple[TaskId, TaskUsage | None]:
        try:
            sample = await self._runtime.sample(task)
        except RuntimeFailure:
            sample = None
        if sample is None:
            return task, None
        at = self._clock.boottime()
        before_at, before = self.samples.get(task, (at, sample))
        self.samples[task] = (at, sample)
        return task, usage(task, before, sample, at - before_at)

    def _conditions(self) -> tuple[Condition, ...]:
        wall_ms = self._clock.wall_ms()
        offset_ms = wall_ms - round(self._clock.boottime() * 1000)
        jumped_ms = offset_ms - self._wall_offset_ms if self._wall_offset_ms is not None else 0
        self._wall_offset_ms = offset_ms
        load = self.load
        found = [self._engine, conditions.clock(wall_ms, jumped_ms=jumped_ms)]
        if load is not None:
            found += [
                conditions.disk(load.disks),
                conditions.memory(load.memory_available_bytes, load.memory_total_bytes),
            ]
        found += self._tasks.conditions()
        return conditions.settle(self.status.conditions, found, wall_ms)


def usage(task: TaskId, before: Sample, now: Sample, seconds: float) -> TaskUsage:
    """What a task used between two samples `seconds` apart; 0 CPU where there is one only."""
    # A container that was started again counts from 0.
    cpu_seconds = max(0.0, now.cpu_seconds - before.cpu_seconds)
    return TaskUsage(
        task=task,
        cpu_millis=round(1000 * cpu_seconds / seconds) if seconds > 0 else 0,
        memory_bytes=now.memory_working_set_bytes,
        pids=now.pids,
        receive_bytes=sum(received for _, received, _, _, _ in now.network),
        transmit_bytes=sum(sent for _, _, sent, _, _ in now.network),
    )
