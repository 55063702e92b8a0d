"""One session with one scheduler: orders in, reports out, heartbeats beside them.

A session is whole or it is over: any failure of any lane ends all of it. A newcomer's
mistake: acting on an order before it is journalled, or acknowledging it before it is acted
on; the sequence is judge, journal, act, acknowledge, and `Worker.obey` keeps it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from agent import messages
from agent.bulk import BulkDesk
from agent.heartbeat import Belief, HeartbeatLane
from agent.identity import Identity
from agent.journal import Journal
from agent.lease import Lease
from agent.orders import Orders, Verdict
from agent.reporter import Reporter
from homeport import codec
from homeport.model import Inventory, NodeId, NodeStatus, OrderId, TaskStatus
from homeport.seams import Clock, LinkLost, Randomness, SchedulerLink, Stream, identifier
from homeport.v1 import dispatcher_pb2

WELCOME_SECONDS = 3.0
GOODBYE_SECONDS = 1.0
REFUSED_SECONDS = 5.0
"""Pause before the next try where this scheduler will say the same again."""


class Goodbye(enum.Enum):
    """Why an agent goes; the wire's numbers."""

    AGENT_RESTARTING = 1
    MACHINE_GOING_DOWN = 2
    LEAVING = 3


class Ended(Exception):
    """This session is over; says why."""

    def __init__(self, reason: str, *, retry_seconds: float = 0.0, leader: str = "") -> None:
        """`retry_seconds`: how long to wait first; `leader`: whom to try, where it is known."""
        super().__init__(reason)
        self.retry_seconds = retry_seconds
        self.leader = leader


class News(Protocol):
    """What the node says of itself."""

    @property
    def status(self) -> NodeStatus:
        """How it is."""
        ...

    @property
    def inventory(self) -> Inventory | None:
        """What it has; None when that has not changed."""
        ...


class Node(Protocol):
    """What a session needs to know of the machine."""

    @property
    def inventory(self) -> Inventory:
        """What it has, as last looked at."""
        ...

    async def news(self) -> News:
        """What is worth telling; waits until something is."""
        ...

    def tell_again(self) -> None:
        """Whoever listened is gone: the next news comes at once and is whole."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts of the agent that a session talks to."""

    obey: Callable[[Orders], Awaitable[Verdict]]
    wanted_hash: Callable[[], bytes]
    reporter: Reporter
    journal: Journal
    lease: Lease
    remind: Callable[[Iterable[TaskStatus]], None]
    bulk: BulkDesk
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a session needs of whoever holds one after the other."""

    boot_id: str
    version: str
    clock: Clock
    randomness: Randomness
    identity: Callable[[], Identity]
    opened: Callable[[], None]
    """The scheduler has welcomed this node."""
    answered: Callable[[], None]
    """It has answered a heartbeat."""
    learn: Callable[[tuple[str, ...], str], None]
    """It named the schedulers, and what this node is called; empty: nothing new."""
    floor: Callable[[OrderId], None]
    """It showed where it stands. Raises Ended when that is behind."""
    goodbye: Callable[[], Awaitable[tuple[Goodbye, str]]]
    """Returns when the agent is to go: how, and why."""


class Connection:
    """One session, from its hello to its end."""

    def __init__(self, link: SchedulerLink, desk: Desk, holder: Holder) -> None:
        """Opens the session's stream."""
        self._desk = desk
        self._holder = holder
        self._link = link
        self._stream: Stream = link.session()
        self._id = identifier(holder.randomness)
        self._opened_seconds = holder.clock.boottime()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Hold the session until it ends, which is always by an exception.

        Raises Ended, Refused, LinkLost, alone or in a group.
        """
        welcome = await self._welcome()
        self._holder.opened()
        self._desk.remind(messages.told(welcome))
        if welcome.send_report:
            self._desk.reporter.ask_complete()
        async with asyncio.TaskGroup() as background:
            background.create_task(self._beat(welcome), name="heartbeat lane")
            background.create_task(self._read(background), name="orders")
            background.create_task(self._report(), name="reports")
            background.create_task(self._node_reports(), name="node reports")
            background.create_task(self._say_goodbye(), name="goodbye")

    async def _welcome(self) -> Any:
        holder = self._holder
        hello = dispatcher_pb2.Hello(
            cluster_id=holder.identity().cluster_id,
            node_id=holder.identity().node_id,
            boot_id=holder.boot_id,
            wanted_hash=self._desk.wanted_hash(),
            running_hash=self._desk.reporter.running_hash,
            agent_version=holder.version,
            session_id=self._id,
        )
        codec.fill(hello.inventory, self._desk.node.inventory)
        codec.fill(hello.seen, self._desk.journal.seen)
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                await self._send(dispatcher_pb2.SessionRequest(hello=hello))
                first = await anext(aiter(self._stream), None)
        except TimeoutError:
            raise LinkLost(f"no welcome for {WELCOME_SECONDS:g} s") from None
        if first is None:
            raise LinkLost("the scheduler closed the session without a word")
        if first.HasField("farewell"):
            raise _ended(first.farewell)
        if not first.HasField("welcome"):
            raise Ended("the scheduler began with something else than a welcome")
        holder.floor(codec.from_message(OrderId, first.welcome.order))
        holder.learn(tuple(first.welcome.schedulers), first.welcome.node_name)
        return first.welcome

    async def _send(self, message: Any) -> None:
        async with self._sending:
            await self._stream.send(message)

    async def _beat(self, welcome: Any) -> None:
        holder = self._holder
        await HeartbeatLane(
            self._link.heartbeat(),
            identity=holder.identity(),
            session_id=self._id,
            boot_id=holder.boot_id,
            clock=holder.clock,
            randomness=holder.randomness,
            lease=self._desk.lease,
            period_seconds=max(0.05, (welcome.heartbeat_ms or 1000) / 1000),
            belief=lambda: Belief(
                wanted_hash=self._desk.wanted_hash(),
                running_hash=self._desk.reporter.running_hash,
                seen=self._desk.journal.seen,
            ),
            on_answer=self._answered,
        ).run()

    def _answered(self, answer: Any) -> None:
        self._holder.answered()
        self._holder.floor(codec.from_message(OrderId, answer.order))
        self._holder.learn(tuple(answer.schedulers), "")
        if answer.resend_report:
            self._desk.reporter.ask_complete()
        if self._desk.lease.lacks_word(self._opened_seconds):
            raise Ended("this node was silent for longer than its lease; asks what is wanted now")

    async def _read(self, background: asyncio.TaskGroup) -> None:
        async for message in self._stream:
            match message.WhichOneof("body"):
                case "assignments":
                    await self._obey(message.assignments)
                case "report_ack":
                    self._desk.reporter.acknowledge(message.report_ack.sequence)
                case "open_bulk":
                    identity = self._holder.identity()
                    work = self._desk.bulk.work(self._link, message.open_bulk, identity)
                    background.create_task(work, name="bulk work")
                case "farewell":
                    raise _ended(message.farewell)
                case other:
                    raise Ended(f"the scheduler said {other or 'something of a newer version'}")
        raise LinkLost("the scheduler closed the session without a farewell")

    async def _obey(self, message: Any) -> None:
        try:
            orders = messages.orders(message)
        except codec.CodecError as error:
            # A newer scheduler: what cannot be read is not acted on, and nothing stops.
            raise Ended(f"orders that cannot be read: {error}", retry_seconds=5.0) from error
        try:
            verdict = await self._desk.obey(orders)
        except OSError as error:
            raise Ended(f"orders cannot be journalled: {error}", retry_seconds=5.0) from error
        if verdict is Verdict.OBEY and orders.is_complete:
            self._desk.lease.hear(self._opened_seconds)
        match verdict:
            case Verdict.OBEY | Verdict.REPEAT:
                ack = dispatcher_pb2.OrderAck(wanted_hash=self._desk.wanted_hash())
                codec.fill(ack.order, orders.order)
                await self._send(dispatcher_pb2.SessionRequest(order_ack=ack))
            case Verdict.LOWER:
                raise Ended("the scheduler gave orders older than those that are journalled")
            case Verdict.GAP:
                raise Ended("an order is missing before the one that came; asks for all")
            case Verdict.FOREIGN:
                raise Ended(
                    f"orders of another cluster, {orders.order.cluster}",
                    retry_seconds=REFUSED_SECONDS,
                )

    async def _report(self) -> None:
        node = NodeId(self._holder.identity().node_id)
        while True:
            batch = await self._desk.reporter.next()
            await self._send(dispatcher_pb2.SessionRequest(report=messages.report(batch, node)))

    async def _node_reports(self) -> None:
        while True:
            news = await self._desk.node.news()
            report = dispatcher_pb2.NodeReport()
            codec.fill(report.status, news.status)
            if news.inventory is not None:
                codec.fill(report.inventory, news.inventory)
            await self._send(dispatcher_pb2.SessionRequest(node_report=report))

    async def _say_goodbye(self) -> None:
        kind, reason = await self._holder.goodbye()
        goodbye = dispatcher_pb2.Goodbye(
            kind=dispatcher_pb2.GoodbyeKind.ValueType(kind.value), reason=reason
        )
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._send(dispatcher_pb2.SessionRequest(goodbye=goodbye))
                await self._stream.close()
                # The scheduler hangs up, which ends the session's reader. To stop reading before
                # would cancel the call, and with it the goodbye.
                await asyncio.Event().wait()
        except TimeoutError:
            pass  # the scheduler will notice
        raise Ended("said goodbye")


def _ended(farewell: Any) -> Ended:
    return Ended(
        farewell.reason or "the scheduler said farewell",
        retry_seconds=farewell.retry_after_ms / 1000,
        leader=farewell.leader,
    )
