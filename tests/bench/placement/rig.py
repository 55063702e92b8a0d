"""A whole scheduler on a real etcd, and nodes that are ready and run nothing.

The product's Core as it is: mirror, watch, election, control loop, committer, dispatcher, with the
timers that users have. Missing are its listeners and the agents: instead of their sessions, the
nodes are told of as heard and reported. What is asked for is written with the committer and the
fence that the API uses; gRPC and admission are left out.
"""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from homeport.lifecycle import TaskState
from homeport.model import (
    Inventory,
    Leader,
    Node,
    NodeId,
    NodeState,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    Task,
    TaskId,
    TaskStatus,
)
from homeport.seams import SystemClock, system_randomness
from homeport.spec import ContainerSpec, Resources, ServiceSpec, pairs
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Change, Delete, Put
from scheduler.cluster.observed import Liveness
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.authority import Authority
from scheduler.store.etcd import EtcdOptions, EtcdStore
from scheduler.store.images import Images
from scheduler.store.mirror import MirrorChange

MIB = 1 << 20
DEADLINE_SECONDS = 300.0
PER_STACK = 500
"""Services in one stack: what one record lists."""


@dataclass(frozen=True, slots=True)
class Took:
    """What a stretch of work took."""

    seconds: float
    cpu_seconds: float  # of this process: the scheduler, without etcd

    def rate(self, count: int) -> float:
        """Of so many things, a second."""
        return count / self.seconds


class Stopwatch:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Took:
        """Since then."""
        return Took(time.perf_counter() - self._began, time.process_time() - self._cpu)


class Rig:
    """A leading scheduler."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.tasks = 0
        """Records of tasks that are in the mirror."""
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)
        core.mirror.subscribe(self._count)

    @property
    def authority(self) -> Authority:
        """Of this term; there is one as long as we lead."""
        lead = self.core.control.lead
        assert lead is not None, "this scheduler lost its leadership: it stood still for too long"
        return lead.authority

    def _count(self, changes: Sequence[MirrorChange]) -> None:
        before = self.tasks
        for change in changes:
            if isinstance(change.new or change.old, Task):
                self.tasks += (change.new is not None) - (change.old is not None)
        if self.tasks != before:
            self._news.set()

    async def write(self, changes: Iterable[Change]) -> None:
        """Make these changes, many in one transaction."""
        some = list(changes)
        result = await self.authority.committer.commit_batched(some, self.authority.fence)
        assert not result.failed, f"not written: {result.failed[0]}"

    async def add_nodes(self, nodes: Iterable[Node]) -> None:
        """Store them, and have heard of them."""
        some = list(nodes)
        await self.write(Put(node, ABSENT, "it joined") for node in some)
        self.hear(node.id for node in some)

    def hear(self, nodes: Iterable[NodeId]) -> None:
        """These nodes have just sent a heartbeat, and have said what they run."""
        authority = self.authority
        now, now_ms = authority.clock.boottime(), authority.clock.wall_ms()
        for node in nodes:
            heard = Liveness(
                state=NodeState.READY, reported=True, last_seen=now, last_seen_ms=now_ms, since=now
            )
            authority.observed.put_liveness(node, heard)
            authority.dirt.node(node)
        authority.wake()

    async def apply(self, specs: Iterable[ServiceSpec]) -> list[ServiceId]:
        """Store these services in stacks of their own; returns their ids.

        A stack's record comes last of its own, as it does when one is applied.
        """
        changes: list[Change] = []
        found: list[ServiceId] = []
        pending = iter(specs)
        while some := list(itertools.islice(pending, PER_STACK)):
            stack = f"stack-{next(self._numbers):05}"
            changes.append(
                Put(Stack(name=stack, services=tuple(each.name for each in some)), ABSENT, "apply")
            )
            for spec in some:
                service = Service(
                    id=ServiceId(f"{stack}-{spec.name}-1"),
                    stack=stack,
                    name=spec.name,
                    mode=spec.mode,
                    replicas=spec.replicas,
                    created_ms=1_000_000,
                )
                edition = ServiceGeneration(service=service.id, generation=1, spec=spec)
                changes += [Put(edition, ABSENT, "apply"), Put(service, ABSENT, "apply")]
                found.append(service.id)
        await self.write(changes)
        return found

    async def settled(self, tasks: int) -> None:
        """Return when so many records of tasks are durable and the watch has told of them."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.tasks < tasks:
                self._news.clear()
                await self._news.wait()
            await self.core.mirror.wait_for(self.core.mirror.newest)
        assert self.tasks == tasks, f"{self.tasks} tasks where {tasks} were asked for"

    def placed(self) -> dict[NodeId, int]:
        """How many tasks each node has that has some."""
        found: dict[NodeId, int] = {}
        for task in self.core.mirror.tables.tasks():
            found[task.node] = found.get(task.node, 0) + 1
        return found


@asynccontextmanager
async def leading(endpoints: Sequence[str]) -> AsyncIterator[Rig]:
    """A scheduler that leads, on a prefix of its own in this etcd."""
    clock, randomness = SystemClock(), system_randomness()
    prefix = f"/bench/{os.getpid()}-{time.monotonic_ns()}/"
    store = EtcdStore(EtcdOptions(endpoints=tuple(endpoints), prefix=prefix), randomness)
    with tempfile.TemporaryDirectory() as folder:
        images = Images(Path(folder))
        core = Core(
            store=store, me=Leader(id="bench", address="bench"), timers=Timers(), clock=clock,
            randomness=randomness, images=images, writer="bench",
        )  # fmt: skip
        leads = asyncio.Event()

        async def on_leading(is_leading: bool) -> None:
            if is_leading:
                leads.set()

        core.on_leading = on_leading
        async with asyncio.TaskGroup() as background:
            running = background.create_task(core.run())
            await leads.wait()
            try:
                yield Rig(core)
            finally:
                running.cancel()
        await store.close()
        images.close()


def node(number: int, *, name: str = "", cores: float = 4, labels: object = (), **fields) -> Node:
    """A node such as scheduler_perf has: 4 cores, 32 GiB."""
    name = name or f"node-{number:05}"
    return Node(
        id=NodeId(f"id-{name}"),
        name=name,
        number=number,
        labels=pairs(labels),
        inventory=Inventory(
            hostname=name,
            os="linux",
            architecture="x86_64",
            capacity=Resources(cpu_millis=round(cores * 1000), memory_bytes=32 * 1024 * MIB),
            drivers=("DOCKER",),
        ),
        **fields,
    )


def pod(name: str, *, cpu: int = 100, memory: int = 500, **fields) -> ServiceSpec:
    """The service of such a pod: 100 thousandths of a core, 500 MiB, a port that is not published."""
    return ServiceSpec(
        name=name,
        container=ContainerSpec(image="registry.k8s.io/pause:3.10", expose=("80",)),
        reservations=Resources(cpu_millis=cpu, memory_bytes=memory * MIB),
        **fields,
    )
