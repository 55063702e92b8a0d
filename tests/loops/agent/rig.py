"""An agent's worker on a simulated machine: what outlives the agent, and the agent itself."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

from agent.guarding import Guarding
from agent.journal import Journal, MemorySecrets
from agent.keylog import MemoryMedium
from agent.lease import Lease
from agent.orders import Orders, Verdict
from agent.reporter import Reporter
from agent.runtime.base import Phase
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from agent.worker import Worker
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Assignment,
    Cause,
    OrderId,
    ServiceGeneration,
    ServiceId,
    TaskId,
    TaskStatus,
    Tombstone,
    task_id,
)
from homeport.spec import ContainerSpec, Driver, RestartPolicy, ServiceSpec, pairs
from tests.loops.agent.guards import LoopGuards, MemoryBoard

CLUSTER = "c1"
WALL_MS = 1_800_000_000_000
ORDER = OrderId(cluster=CLUSTER, incarnation=1, epoch=1, revision=1)


class LoopClock:
    """The loop's virtual time since a boot long ago."""

    def boottime(self) -> float:
        return 10_000 + asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return WALL_MS + round(asyncio.get_running_loop().time() * 1000)


class Still:
    """Randomness without chance: every jitter is at its middle."""

    def random(self) -> float:
        return 0.5

    def getrandbits(self, k: int, /) -> int:
        return random.getrandbits(k)


@dataclass
class Rig:
    """The machine. `start` runs an agent on it, `crash` kills that."""

    clock: LoopClock = field(default_factory=LoopClock)
    medium: MemoryMedium = field(default_factory=MemoryMedium)
    secrets: MemorySecrets = field(default_factory=MemorySecrets)
    boot_id: str = "boot-1"
    starts_in_flight: int = 4
    unfenced: str = ""
    told: list[tuple[float, TaskStatus]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = SimulatedEngine(self.clock)
        self.runtime = SimulatedRuntime(self.engine, CLUSTER)
        self.board = MemoryBoard()
        self.guards = LoopGuards(self.board, self.engine, self.clock)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.journal = Journal(self.medium, self.secrets)
        self.reporter = Reporter()
        self.lease = Lease()
        self.guarding = Guarding(
            self.board, self.guards, self.clock, unfenced=lambda: self.unfenced
        )
        self.guarding.keep_lease(self.lease)
        self._listen()
        self.worker = Worker(
            runtime=self.runtime,
            driver=Driver.SIMULATED,
            clock=self.clock,
            randomness=Still(),
            journal=self.journal,
            lease=self.lease,
            reporter=self.reporter,
            ensure_image=self._ensure_image,
            starts_in_flight=self.starts_in_flight,
            boot_id=self.boot_id,
            guarding=self.guarding,
        )
        self._running = asyncio.create_task(self._run())
        await settle()

    async def ensure_started(self) -> None:
        """Start with the first order: a fixture does not run on the test's virtual time."""
        if self._running is None:
            await self.start()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as background:
            background.create_task(self.worker.run())
            background.create_task(self.journal.run())
            background.create_task(self.guarding.run())

    async def crash(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None

    async def power_cut(self) -> None:
        await self.crash()
        self.medium.cut_power()
        self.secrets.data.clear()
        self.engine.reboot()
        for each in self.guards.alive:
            each.kill()
        self.board.marks, self.board.lease_until_ns, self.board.lapsed_ns = (), 0, 0
        self.boot_id += "+"

    async def obey(self, orders: Orders) -> Verdict:
        await self.ensure_started()
        verdict = await self.worker.obey(orders)
        await settle()
        return verdict

    async def apply(self, *works: tuple[Assignment, ServiceGeneration], revision: int = 0) -> None:
        """Incremental orders for these tasks."""
        await self.ensure_started()
        seen = self.journal.seen
        order = replace(ORDER, revision=revision or seen.revision + 1)
        orders = Orders(
            order=order,
            applies_to=seen,
            tasks=tuple(work[0] for work in works),
            specs=tuple(work[1] for work in works),
        )
        assert await self.obey(orders) is Verdict.OBEY

    async def bury(self, *tasks: TaskId, cause: Cause = Cause.OPERATOR) -> None:
        seen = self.journal.seen
        orders = Orders(
            order=replace(ORDER, revision=seen.revision + 1),
            applies_to=seen,
            tombstones=tuple(Tombstone(task=task, cause=cause) for task in tasks),
        )
        assert await self.obey(orders) is Verdict.OBEY

    def grant(self, *, seconds: float = 15) -> None:
        """A scheduler has said all that is wanted, and answered a heartbeat sent now."""
        now = self.clock.boottime()
        self.lease.hear(now)
        self.renew(now, seconds=seconds)

    def renew(self, sent_seconds: float, *, seconds: float = 15) -> bool:
        """The answer to the heartbeat sent then is heard now."""
        return self.lease.renew(
            sent_seconds=sent_seconds,
            heard_seconds=self.clock.boottime(),
            lease_seconds=seconds,
        )

    async def beat(self, *, seconds: float) -> None:
        """Have the lease renewed every second for so long."""
        for _ in range(round(seconds)):
            self.grant()
            await asyncio.sleep(1)

    def state(self, task: TaskId) -> tuple[int, TaskState]:
        status = self.reporter.statuses[task]
        return status.attempt, status.state

    def phases(self) -> dict[TaskId, Phase]:
        return {each.task: each.phase for each in self.engine.all()}

    def story(self, task: TaskId) -> list[tuple[float, int, str]]:
        """(seconds, attempt, state) of all that was told of a task."""
        found: list[tuple[float, int, str]] = []
        for at, status in self.told:
            if status.task == task:
                entry = (at, status.attempt, status.state.name)
                if not found or found[-1][1:] != entry[1:]:
                    found.append(entry)
        return found

    def _listen(self) -> None:
        put = self.reporter.put

        def listening(status: TaskStatus) -> None:
            self.told.append((round(asyncio.get_running_loop().time(), 3), status))
            put(status)

        self.reporter.put = listening  # type: ignore[method-assign]

    async def _ensure_image(self, image_id: str, progress: Any) -> None:
        self.engine.images.add(image_id)


def work(
    slot: int = 1,
    *,
    service: str = "s-web-1",
    restart: RestartPolicy | None = None,
    desired: Desired = Desired.RUNNING,
    generation: int = 1,
    exclusive: bool = False,
    pinned: bool = False,
    priority: int = 0,
    container: ContainerSpec | None = None,
    **script: object,
) -> tuple[Assignment, ServiceGeneration]:
    """A task and its spec; further arguments are its script (`run_for_ms=500`)."""
    labels = pairs({f"sim.{key}": str(value) for key, value in script.items()})
    container = container or ContainerSpec(image="example")
    spec = ServiceSpec(
        name="web",
        driver=Driver.SIMULATED,
        container=replace(container, labels=labels),
        restart=restart or RestartPolicy(),
        priority=priority,
    )
    assignment = Assignment(
        task=task_id(ServiceId(service), slot, 1),
        stack="s",
        service_name="web",
        generation=generation,
        desired=desired,
        exclusive=exclusive,
        pinned=pinned,
    )
    return assignment, ServiceGeneration(
        service=ServiceId(service), generation=generation, spec=spec
    )


async def settle() -> None:
    """Let everything happen that needs no time."""
    await asyncio.sleep(0.001)
