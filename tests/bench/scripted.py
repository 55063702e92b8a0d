"""Agents for measuring a scheduler: they speak the wire's messages, and run nothing.

A scripted agent opens the same lanes as a real one and says what a real one would say when
all goes well: it acknowledges orders, reports tasks RUNNING, and removes what it is told to.
Its runners, journal and runtime are missing, so that a hundred of them with a thousand
tasks each fit beside the scheduler that is measured. Nothing of the scheduler is replaced.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

from homeport import codec
from homeport.digests import running_hash, wanted_hash
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Assignment,
    Inventory,
    Node,
    NodeId,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    Task,
    TaskId,
    TaskStatus,
    Tombstone,
)
from homeport.seams import LinkLost
from homeport.spec import ContainerSpec, Driver, Resources, ServiceSpec
from homeport.v1 import dispatcher_pb2 as pb
from scheduler.cluster import keys
from scheduler.store.base import ANY, OPERATIONS_MAX, Write

NODE_NUMBER = "{:04}"
REPLICAS = 10
"""Of each service of a populated cluster."""

STATES = {
    Desired.RUNNING: TaskState.RUNNING,
    Desired.SHUTDOWN: TaskState.SHUTDOWN,
}


def inventory(tasks: int = 1_000) -> Inventory:
    """Of a machine with room for so many tasks of a populated cluster, twice over."""
    return Inventory(
        hostname="bench",
        os="linux",
        architecture="x86_64",
        capacity=Resources(cpu_millis=20 * tasks, memory_bytes=tasks << 25),
        drivers=("SIMULATED",),
    )


def node_id(number: int) -> NodeId:
    return NodeId(f"node-{NODE_NUMBER.format(number)}")


async def populate(store: Any, *, nodes: int, tasks: int) -> dict[NodeId, list[TaskId]]:
    """Write such a cluster's records through the store; which node has which tasks.

    A hundred services to a stack, ten replicas to a service, over all nodes in turn, each
    with a reservation: what a hundred thousand placements would have left behind.
    """
    placed: dict[NodeId, list[TaskId]] = {node_id(number): [] for number in range(1, nodes + 1)}
    room = inventory(tasks // nodes)

    def records() -> Any:
        for number in range(1, nodes + 1):
            name = NODE_NUMBER.format(number)
            yield Node(id=node_id(number), name=name, number=number, inventory=room)
        home = itertools.cycle(placed)
        for index in range(tasks // REPLICAS):
            stack = f"stack{index // 100:03}"
            if index % 100 == 0:
                names = tuple(f"service{n:02}" for n in range(100))
                yield Stack(name=stack, services=names)
            name = f"service{index % 100:02}"
            service = ServiceId(f"{stack}-{name}-0")
            yield Service(
                id=service, stack=stack, name=name, replicas=REPLICAS, created_ms=1_000_000
            )
            yield ServiceGeneration(
                service=service,
                generation=1,
                spec=ServiceSpec(
                    name=name,
                    replicas=REPLICAS,
                    driver=Driver.SIMULATED,
                    container=ContainerSpec(image="example"),
                    reservations=Resources(cpu_millis=10, memory_bytes=16 << 20),
                ),
            )
            for slot in range(1, REPLICAS + 1):
                node = next(home)
                task = Task(
                    service=service, slot=slot, n=1, node=node, generation=1,
                    reason="the node with the most room", created_ms=1_000_000,
                )  # fmt: skip
                placed[node].append(task.id)
                yield task

    values = iter(records())
    while some := list(itertools.islice(values, OPERATIONS_MAX)):
        await store.commit(
            [Write(keys.key_of(value), codec.encode_record(value), ANY) for value in some]
        )
    return placed


class Agent:
    """One scripted agent."""

    def __init__(self, cluster: str, node: NodeId, tasks: list[TaskId] | None = None) -> None:
        self.node = node
        self.statuses = {
            task: TaskStatus(task=task, state=TaskState.RUNNING) for task in tasks or ()
        }
        self.wanted: dict[TaskId, Assignment] = {}
        self.on_task: Callable[[Assignment], None] = lambda assignment: None
        """Called with each task, the moment that its order has been read."""
        self.told = asyncio.Event()
        """The first, complete orders are here."""
        self.heard = asyncio.Event()
        """The scheduler has taken in the first, complete report."""
        self._cluster = cluster
        self._seen = pb.Assignments().order
        self._sequence = itertools.count(1)
        self._stream: Any = None
        self._session = f"session-{node}"
        self._wanted_hash = self._running_hash = b""
        self.heartbeat_seconds = 1.0

    async def run(self, link: Any, *, phase: float = 0.0) -> None:
        """One session with its heartbeats, until it is cancelled or the link is lost."""
        self._stream = link.session()
        hello = pb.Hello(
            cluster_id=self._cluster, node_id=self.node, session_id=self._session, boot_id="boot"
        )
        await self._stream.send(pb.SessionRequest(hello=hello))
        async with asyncio.TaskGroup() as background:
            background.create_task(self._read())
            background.create_task(self._beat(link.heartbeat(), phase))

    async def report(self, *statuses: TaskStatus, complete: bool = False) -> None:
        """Say what tasks do."""
        message = pb.Report(sequence=next(self._sequence), complete=complete)
        for status in statuses:
            if status.state is TaskState.REMOVED:
                self.statuses.pop(status.task, None)
            else:
                self.statuses[status.task] = status
            codec.fill(message.statuses.add(), status)
        self._running_hash = b""
        await self._stream.send(pb.SessionRequest(report=message))

    async def _read(self) -> None:
        async for message in self._stream:
            body = message.WhichOneof("body")
            if body == "assignments":
                await self._obey(message.assignments)
            elif body == "welcome":
                self.heartbeat_seconds = message.welcome.heartbeat_ms / 1000
                await self.report(*self.statuses.values(), complete=True)
            elif body == "report_ack":
                self.heard.set()
            elif body == "farewell":
                raise LinkLost(message.farewell.reason)

    async def _obey(self, orders: Any) -> None:
        done = []
        for order in orders.tasks:
            assignment = codec.from_message(Assignment, order)
            self.on_task(assignment)
            self.wanted[assignment.task] = assignment
            state = STATES[assignment.desired]
            known = self.statuses.get(assignment.task)
            if known is None or (known.state is TaskState.RUNNING and state is not known.state):
                done.append(TaskStatus(task=assignment.task, state=state))
        for order in orders.tombstones:
            task = codec.from_message(Tombstone, order).task
            self.wanted.pop(task, None)
            done.append(TaskStatus(task=task, state=TaskState.REMOVED))
        self._seen = orders.order
        self._wanted_hash = orders.wanted_hash
        ack = pb.OrderAck(order=orders.order, wanted_hash=orders.wanted_hash)
        await self._stream.send(pb.SessionRequest(order_ack=ack))
        if done:
            await self.report(*done)
        self.told.set()

    async def _beat(self, stream: Any, phase: float) -> None:
        await self.heard.wait()
        await asyncio.sleep(phase)
        async with asyncio.TaskGroup() as background:
            background.create_task(self._answers(stream))
            while True:
                if not self._running_hash:
                    self._running_hash = running_hash(self.statuses.values())
                beat = pb.HeartbeatRequest(
                    cluster_id=self._cluster, node_id=self.node, session_id=self._session,
                    boot_id="boot", wanted_hash=self._wanted_hash,
                    running_hash=self._running_hash, seen=self._seen,
                )  # fmt: skip
                await stream.send(beat)
                await asyncio.sleep(self.heartbeat_seconds)

    async def _answers(self, stream: Any) -> None:
        async for answer in stream:
            assert not answer.resend_assignments, f"{self.node}: wanted hashes differ"
            if answer.resend_report:  # it has not heard from us for a while
                await self.report(*self.statuses.values(), complete=True)
            if answer.next_heartbeat_ms:
                self.heartbeat_seconds = answer.next_heartbeat_ms / 1000

    def believes_what_it_was_told(self) -> bool:
        """Whether its own hash of what is wanted is the scheduler's."""
        return wanted_hash(self.wanted.values()) == self._wanted_hash


class Lane:
    """One end of an in-process stream."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    async def __aiter__(self) -> Any:
        while (message := await self._incoming.get()) is not None:
            yield message

    async def send(self, message: Any) -> None:
        self._outgoing.put_nowait(message)

    async def close(self) -> None:
        self._outgoing.put_nowait(None)


class InProcessLink:
    """A link to the lanes of a Core in this process: no sockets, no gRPC, the same messages."""

    def __init__(self, lanes: Any, background: asyncio.TaskGroup) -> None:
        self._lanes, self._background = lanes, background
        self._serving: list[asyncio.Task[None]] = []

    def close(self) -> None:
        """End all lanes at once."""
        for each in self._serving:
            each.cancel()

    def session(self) -> Lane:
        return self._open(self._lanes.session)

    def heartbeat(self) -> Lane:
        return self._open(self._lanes.heartbeat)

    def _open(self, serve: Any) -> Lane:
        up: Any = asyncio.Queue()
        down: Any = asyncio.Queue()
        self._serving.append(self._background.create_task(serve(Lane(up, down))))
        return Lane(down, up)


async def _connected(agent: Agent, transport: Any, address: str, phase: float) -> None:
    """Run the agent, over one connection after the other; until cancelled."""
    while True:
        try:
            await agent.run(transport.connect(address), phase=phase)
        except* LinkLost as lost:
            print(f"{agent.node}: {lost.exceptions[0]}", file=sys.stderr, flush=True)
        await asyncio.sleep(1)


async def crowd(address: str, cluster: str, nodes: dict[NodeId, list[TaskId]]) -> None:
    """Connect an agent for each node by gRPC, one connection each; until cancelled.

    Prints "ready" when the scheduler has taken in all their reports.
    """
    from agent.grpc_transport import GrpcTransport

    transport = GrpcTransport()
    agents = [Agent(cluster, node, tasks) for node, tasks in nodes.items()]
    async with asyncio.TaskGroup() as background:
        for place, agent in enumerate(agents):
            phase = place / len(agents)
            background.create_task(_connected(agent, transport, address, phase))
            await agent.told.wait()
            await agent.heard.wait()
            assert agent.believes_what_it_was_told()
        print("ready", flush=True)


def main() -> None:
    """`python -m tests.bench.scripted ADDRESS CLUSTER FILE`: FILE is {node: [task, …]}."""
    address, cluster, file = sys.argv[1:]
    with open(file) as text:
        nodes = json.load(text)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(crowd(address, cluster, nodes))


if __name__ == "__main__":
    main()
