"""A whole scheduler on a real etcd, and nodes that are ready and run nothing.

The product's Core as it is: mirror, watch, election, control loop, committer, dispatcher, with the
timers that users have. Missing are its listeners and the agents: instead of their sessions, the
nodes count as heard and reported, and what is to stop there is said to be gone at once. What is
asked for is written with the committer and the fence that the API uses; gRPC and admission are
left out.
"""

import asyncio
import itertools
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from homeport import logs
from homeport.lifecycle import Desired, TaskState
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
DEADLINE_SECONDS = 120.0
LOST = "this scheduler lost its leadership: the machine is too slow for the timers of users"
PER_STACK = 500
"""Services in one stack: what one record lists."""


class NotPlaced(Exception):
    """The pods were not placed, or this scheduler stopped leading meanwhile; why, in words."""


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
        """Records of tasks of services that are counted."""
        self.is_lost = False
        self._counted: set[ServiceId] = set()
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)
        core.mirror.subscribe(self._committed)

    @property
    def authority(self) -> Authority:
        """Of this term; there is one as long as we lead."""
        lead = self.core.control.lead
        if lead is None or self.is_lost:
            raise NotPlaced(LOST)
        return lead.authority

    def _committed(self, changes: Sequence[MirrorChange]) -> None:
        before = self.tasks
        for change in changes:
            task = change.new or change.old
            if not isinstance(task, Task):
                continue
            if task.service in self._counted:
                self.tasks += (change.new is not None) - (change.old is not None)
            if isinstance(change.new, Task) and change.new.desired is not Desired.RUNNING:
                self._stop(change.new)
        if self.tasks != before:
            self._news.set()

    def lost(self) -> None:
        """We lead no more. Whatever leads next has heard of no node."""
        self.is_lost = True
        self._news.set()

    def _stop(self, task: Task) -> None:
        """Say what an agent would, had it obeyed."""
        state = TaskState.SHUTDOWN if task.desired is Desired.SHUTDOWN else TaskState.REMOVED
        authority = self.authority
        if authority.observed.put_status(TaskStatus(task=task.id, state=state)):
            authority.dirt.service(task.service)
            authority.wake()

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

    async def apply(
        self, specs: Iterable[ServiceSpec], *, per_stack: int = PER_STACK, is_counted: bool = True
    ) -> list[Service]:
        """Store these services in stacks of their own, and count their tasks."""
        changes: list[Change] = []
        found: list[Service] = []
        pending = iter(specs)
        while some := list(itertools.islice(pending, per_stack)):
            stack = f"stack-{next(self._numbers):05}"
            names = tuple(each.name for each in some)
            changes.append(Put(Stack(name=stack, services=names), ABSENT, "apply"))
            for spec in some:
                service = Service(
                    id=ServiceId(f"{stack}-{spec.name}-1"),
                    stack=stack,
                    name=spec.name,
                    replicas=spec.replicas,
                    created_ms=1_000_000,
                )
                edition = ServiceGeneration(service=service.id, generation=1, spec=spec)
                changes += [Put(edition, ABSENT, "apply"), Put(service, ABSENT, "apply")]
                found.append(service)
        if is_counted:
            self._counted |= {service.id for service in found}
        await self.write(changes)
        return found

    async def remove(self, service: Service) -> None:
        """What `rm` writes."""
        tables = self.core.mirror.tables
        known = tables.service(service.id)
        if known is not None and not known.removing:
            version = tables.version(keys.service(service.id))
            await self.write([Put(replace(known, removing=True), version, "rm")])

    async def drop(self, value: Node) -> None:
        """Delete a node's record."""
        key = keys.key_of(value)
        if version := self.core.mirror.tables.version(key):
            await self.write([Delete(key, version, "it left")])

    @asynccontextmanager
    async def every(self, seconds: float, work: Callable[[int], Awaitable[None]]) -> AsyncIterator:
        """Do this work beside what is in the block, at so many moments a second, from 1 on."""

        async def loop() -> None:
            began = time.perf_counter()
            for turn in itertools.count(1):
                await work(turn)
                await asyncio.sleep(max(0.0, began + turn * seconds - time.perf_counter()))

        async with asyncio.TaskGroup() as background:
            beside = background.create_task(loop())
            yield
            beside.cancel()

    async def settled(self, tasks: int) -> None:
        """Return when so many records of tasks are durable and the watch has told of them."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while self.tasks < tasks:
                    self._news.clear()
                    await self._news.wait()
                    if self.is_lost:
                        raise NotPlaced(LOST)
                await self.core.mirror.wait_for(self.core.mirror.newest)
        except TimeoutError as error:
            raise NotPlaced(f"{self.tasks} of {tasks} in {DEADLINE_SECONDS:g} s") from error
        assert self.tasks == tasks, f"{self.tasks} tasks where {tasks} were asked for"

    def count_anew(self) -> None:
        """What was applied up to now counts no more."""
        self._counted.clear()
        self.tasks = 0

    async def wait_in_vain(self, specs: Iterable[ServiceSpec]) -> None:
        """Apply what cannot be placed, and return when it is known to wait."""
        services = await self.apply(specs, is_counted=False)
        waiting = self.authority.observed.waiting
        async with asyncio.timeout(DEADLINE_SECONDS):
            # Looked at now and then: an event of the core would be one that only we use.
            while any(service.id not in waiting for service in services):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def placed(self, services: Iterable[Service]) -> Counter[str]:
        """The tasks of these services by the name of their node."""
        tables = self.core.mirror.tables
        names = {node.id: node.name for node in tables.nodes()}
        return Counter(
            names[task.node] for each in services for task in tables.tasks_of_service(each.id)
        )


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """Log as a scheduler does that nobody told anything else, into a file."""
    root = logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers[:], root.level
    with file.open("w") as stream:
        logs.configure(stream=stream)
        try:
            yield
        finally:
            structlog.configure(**before)
            root.handlers[:] = handlers
            root.setLevel(level)


@asynccontextmanager
async def leading(endpoints: Sequence[str]) -> AsyncIterator[Rig]:
    """A scheduler that leads, on a prefix of its own in this etcd."""
    clock, randomness = SystemClock(), system_randomness()
    prefix = f"/bench/{os.getpid()}-{time.monotonic_ns()}/"
    store = EtcdStore(EtcdOptions(endpoints=tuple(endpoints), prefix=prefix), randomness)
    with tempfile.TemporaryDirectory() as folder, logged(Path(folder) / "log"):
        images = Images(Path(folder))
        core = Core(
            store=store, me=Leader(id="bench", address="bench"), timers=Timers(), clock=clock,
            randomness=randomness, images=images, writer="bench",
        )  # fmt: skip
        leads = asyncio.Event()
        rigs: list[Rig] = []

        async def on_leading(is_leading: bool) -> None:
            if is_leading:
                leads.set()
            else:
                for each in rigs:
                    each.lost()

        core.on_leading = on_leading
        async with asyncio.TaskGroup() as background:
            running = background.create_task(core.run())
            await leads.wait()
            try:
                rigs.append(Rig(core))
                yield rigs[0]
            finally:
                running.cancel()
        await store.close()
        images.close()


def node(number: int, *, name: str = "", labels: object = (), **fields) -> Node:
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
            capacity=Resources(cpu_millis=4_000, memory_bytes=32 * 1024 * MIB),
            drivers=("DOCKER",),
        ),
        **fields,
    )


def pod(name: str, *, cpu: int = 100, memory: int = 500, **fields) -> ServiceSpec:
    """The service of a pod such as scheduler_perf has: a tenth of a core, 500 MiB."""
    return ServiceSpec(
        name=name,
        container=ContainerSpec(image="registry.k8s.io/pause:3.10", expose=("80",)),
        reservations=Resources(cpu_millis=cpu, memory_bytes=memory * MIB),
        **fields,
    )
