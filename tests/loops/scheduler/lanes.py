"""A leader's lanes above the transport, on virtual time, for tests.

Real mirror, committer, memory store and dispatcher; the agent is a script.
"""

import asyncio
import random
from contextlib import asynccontextmanager

from homeport import codec
from homeport.lifecycle import TaskState
from homeport.model import (
    Cluster,
    OrderId,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    Task,
    TaskStatus,
)
from homeport.seams import LinkLost
from homeport.spec import ServiceSpec
from homeport.v1 import dispatcher_pb2 as pb
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Dirt, Observed
from scheduler.config import Timers
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.lanes import Lanes
from scheduler.store.authority import Authority
from scheduler.store.base import LEADER_KEY, Fence, Write
from scheduler.store.commit import Committer
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror

WEB = ServiceId("s-web-1")


class LoopClock:
    """Boot time is the loop's virtual time."""

    def boottime(self):
        return asyncio.get_running_loop().time()

    def wall_ms(self):
        return round(self.boottime() * 1000)


class Lane:
    """Both ends of one stream: the scheduler's, and the script's."""

    def __init__(self):
        self.up = asyncio.Queue()
        self.down = asyncio.Queue()
        self.broken = False
        self.is_stuck = False

    async def __aiter__(self):
        while (message := await self.up.get()) is not None:
            yield message

    async def send(self, message):
        if self.broken:
            raise LinkLost("broken")
        while self.is_stuck:  # noqa: ASYNC110 - flow control
            await asyncio.sleep(0.1)
        self.down.put_nowait(message)
        await asyncio.sleep(0)

    async def close(self):
        pass

    def say(self, message):
        self.up.put_nowait(message)

    async def hear(self, body):
        """The next message, which has to be of this kind."""
        async with asyncio.timeout(5):
            message = await self.down.get()
        assert message.WhichOneof("body") == body, message
        return getattr(message, body)

    def silent(self):
        return self.down.empty()


class Leader:
    """A leader's dispatch on a memory store."""

    def __init__(self):
        self.clock = LoopClock()
        self.store = MemoryStore(self.clock)
        self.mirror = Mirror(self.store)
        self.lanes = Lanes()
        self.proven_until = float("inf")
        self.wakes = 0

    async def start(self):
        epoch = await self.store.commit([Write(LEADER_KEY, b"", ABSENT)])
        await self.mirror.start()
        self.authority = Authority(
            mirror=self.mirror,
            committer=Committer(self.store, self.mirror),
            observed=Observed(),
            dirt=Dirt(),
            wake=self._wake,
            clock=self.clock,
            randomness=random.Random(1),
            timers=Timers(),
            fence=Fence(epoch),
            lead_until=lambda: self.proven_until,
        )
        await self.put(Cluster(id="c"))
        self.dispatcher = Dispatcher(self.authority, schedulers=lambda: ("a:1",))
        self.lanes.dispatcher = self.dispatcher

    def _wake(self):
        self.wakes += 1

    async def put(self, *values):
        changes = [Put(each, self.mirror.tables.version(keys.key_of(each)), "t") for each in values]
        await self.authority.commit(changes)

    async def join(self, name="pi"):
        request = pb.JoinRequest(name=name, request_id=f"r-{name}")
        return await self.lanes.join(request)

    async def service(self, *slots, node):
        await self.put(
            Stack(name="s"),
            Service(id=WEB, stack="s", name="web"),
            ServiceGeneration(service=WEB, generation=1, spec=ServiceSpec(name="web")),
            *(task(slot, node) for slot in slots),
        )

    @property
    def observed(self):
        return self.authority.observed

    def state(self, node):
        return self.observed.node(node).state


def task(slot, node, **fields):
    return Task(service=WEB, slot=slot, n=1, node=node, generation=1, **fields)


def status(slot, state=TaskState.RUNNING, attempt=1, **fields):
    return TaskStatus(task=f"{WEB}/{slot}/1", state=state, attempt=attempt, **fields)


def report(sequence, *statuses, complete=False, volumes=()):
    message = pb.Report(sequence=sequence, complete=complete)
    for each in statuses:
        codec.fill(message.statuses.add(), each)
    for volume in volumes:
        codec.fill(message.volumes.add(), volume)
    return pb.SessionRequest(report=message)


def hello(joined, session="s1", boot="b1", **fields):
    return pb.SessionRequest(
        hello=pb.Hello(
            cluster_id=fields.pop("cluster_id", joined.cluster_id),
            node_id=joined.node_id,
            session_id=session,
            boot_id=boot,
            **fields,
        )
    )


def ack(orders):
    message = pb.SessionRequest(order_ack=pb.OrderAck())
    message.order_ack.order.CopyFrom(orders.order)
    return message


@asynccontextmanager
async def session(leader, joined, **fields):
    """An open session: (lane, its complete orders)."""
    lane = Lane()
    async with asyncio.TaskGroup() as background:
        serving = background.create_task(leader.lanes.session(lane))
        lane.say(hello(joined, **fields))
        welcome = await lane.hear("welcome")
        orders = await lane.hear("assignments")
        lane.welcome, lane.serving = welcome, serving
        yield lane, orders
        lane.say(None)


async def settle():
    """Let everything that is ready run."""
    await asyncio.sleep(0.001)


class Beats:
    """A heartbeat lane, driven by a script."""

    def __init__(self, leader, joined, orders, session="s1"):
        self.leader, self.joined, self.session = leader, joined, session
        self.seen = codec.from_message(OrderId, orders.order)
        self.wanted, self.running_hash = orders.wanted_hash, b""
        self.lane = Lane()
        self.clock_rate = 1.0

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as background:
            background.create_task(self.leader.lanes.heartbeat(self.lane))
            yield self
            self.lane.say(None)

    async def beat(self):
        """The answer, or None for silence."""
        self.sent = sent = int(self.leader.clock.boottime() * self.clock_rate * 1e9)
        request = pb.HeartbeatRequest(
            cluster_id=self.joined.cluster_id,
            node_id=self.joined.node_id,
            session_id=self.session,
            sent_boottime_ns=sent,
            wanted_hash=self.wanted,
            running_hash=self.running_hash,
        )
        codec.fill(request.seen, self.seen)
        self.lane.say(request)
        try:
            async with asyncio.timeout(0.1):
                return await self.lane.down.get()
        except TimeoutError:
            return None
