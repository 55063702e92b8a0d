"""The agent's connection to whichever scheduler answers: orders in, reports out.

A session is whole or it is over: any failure of any lane ends all of it, and the next
scheduler is tried. Nothing that runs here depends on one. A newcomer's mistake: acting on
an order before it is journalled, or acknowledging it before it is acted on; the sequence
is judge, journal, act, acknowledge, and `Worker.obey` keeps it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from agent import messages
from agent.bulk import BulkDesk
from agent.heartbeat import Belief, HeartbeatLane
from agent.identity import Identity, IdentityStore
from agent.journal import Journal
from agent.lease import Lease
from agent.orders import Orders, Verdict
from agent.reporter import Reporter
from homeport import codec
from homeport.model import (
    Inventory,
    NodeId,
    NodeStatus,
    OrderId,
)
from homeport.seams import (
    Clock,
    LinkLost,
    Randomness,
    Refused,
    SchedulerLink,
    Stream,
    Transport,
    identifier,
    jittered,
)
from homeport.v1 import dispatcher_pb2

WELCOME_SECONDS = 3.0
GOODBYE_SECONDS = 1.0
RETRY_SECONDS = 0.2
"""Pause before the second retry; the first comes at once, each later one doubles it."""
RETRY_MAX_SECONDS = 5.0
REFUSED_SECONDS = 5.0
SETTLED_SECONDS = 10.0
"""A session that lasted so long was a good one: the next retry comes at once again."""

log = structlog.get_logger(__name__)


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
    bulk: BulkDesk
    node: Node


class Sessions:
    """One session after another, for as long as the agent runs."""

    def __init__(
        self,
        *,
        transport: Transport,
        desk: Desk,
        identities: IdentityStore,
        clock: Clock,
        randomness: Randomness,
        schedulers: tuple[str, ...],
        identity: Identity,
        boot_id: str,
        version: str,
        may_dial: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """`identity` is this node's, which has joined (`agent.joining`).

        `may_dial` says whether to believe a scheduler that names another by this address.
        """
        self.identity = identity
        self._may_dial = may_dial
        self.is_connected = False
        self.connected_to = ""
        self.link: SchedulerLink | None = None
        """The link of the session that is open or opening."""
        self.stopped = asyncio.Event()
        """Set when `run` has returned."""
        self.sessions = 0
        """How many were welcomed since the agent started."""
        self.last_answer_ms = 0
        """Wall clock of the last answer to a heartbeat."""
        self._transport = transport
        self._desk = desk
        self._identities = identities
        self._clock = clock
        self._randomness = randomness
        self._configured = schedulers
        self._boot_id = boot_id
        self._version = version
        self._leader_hint = ""
        self._next = 0
        self._goodbye: tuple[Goodbye, str] | None = None
        self._stop = asyncio.Event()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The schedulers to try, in order: those that we were given and those they named."""
        told = filter(self._may_dial, self.identity.schedulers)
        return tuple(dict.fromkeys([*self._configured, *told]))

    def stop(self, goodbye: Goodbye, reason: str) -> None:
        """Say goodbye and return from `run`."""
        self._goodbye = (goodbye, reason)
        self._stop.set()

    async def run(self) -> None:
        """Hold a session with one scheduler after the other, until `stop`."""
        try:
            await self._hold()
        finally:
            self.stopped.set()

    async def _hold(self) -> None:
        failures = 0
        while not self._stop.is_set():
            address = self._address()
            began = self._clock.boottime()
            pause = 0.0
            try:
                await self._one(address)
            except Refused as error:
                log.warning("refused by the scheduler", scheduler=address, why=str(error))
                pause = REFUSED_SECONDS
            except Ended as error:
                log.info("session ended", scheduler=address, why=str(error))
                is_hint = error.leader not in ("", address) and self._may_dial(error.leader)
                self._leader_hint = error.leader if is_hint else ""
                # Who names the leader sends us there, and there we go at once.
                pause = 0.0 if self._leader_hint else error.retry_seconds
            except LinkLost as error:
                level = log.debug if failures else log.info
                level("no scheduler", scheduler=address, why=str(error))
            except Exception:
                # The connection outlives whatever goes wrong in one session: containers
                # run on meanwhile, and the next session begins from nothing.
                log.exception("a session failed", scheduler=address)
            if self._clock.boottime() - began >= SETTLED_SECONDS:
                failures = 0
            failures += 1
            if failures > 1:
                doubled = RETRY_SECONDS * 2 ** min(failures - 2, 10)
                pause = max(pause, jittered(min(RETRY_MAX_SECONDS, doubled), self._randomness))
            if pause:
                await self._sleep(pause)

    def _address(self) -> str:
        if hint := self._leader_hint:
            self._leader_hint = ""
            return hint
        addresses = self.addresses
        address = addresses[self._next % len(addresses)]
        self._next += 1
        return address

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    # ---------------------------------------------------------------- one session

    async def _one(self, address: str) -> None:
        link = self._transport.connect(address)
        try:
            self.link = link
            await _Session(self, link, address).run()
        except BaseExceptionGroup as group:
            raise _telling(group) from None
        finally:
            self.link = None
            if self.is_connected:
                self.is_connected = False
                # The scheduler that answered is the best first guess for the next session.
                self._next = max(0, self._next - 1)
            self._desk.reporter.lose()
            self._desk.node.tell_again()
            await link.close()

    def _learn(self, schedulers: tuple[str, ...], name: str = "") -> None:
        known = self.identity
        changed = replace(known, schedulers=schedulers or known.schedulers, name=name or known.name)
        if changed != known:
            self.identity = changed
            self._identities.save(changed)

    def _floor(self, order: OrderId) -> None:
        """A scheduler shows where it stands. Raises Ended when that is behind."""
        journal = self._desk.journal
        if order.cluster and order.cluster != self.identity.cluster_id:
            raise Ended(
                f"the scheduler is of cluster {order.cluster}, this node of"
                f" {self.identity.cluster_id}",
                retry_seconds=REFUSED_SECONDS,
            )
        if order.order[:2] < journal.floor:
            raise Ended(
                "the scheduler is behind: it leads no longer, or was restored from a backup"
            )
        journal.show(order.order[:2])


class _Session:
    """One connection, from its hello to its end."""

    def __init__(self, sessions: Sessions, link: SchedulerLink, address: str) -> None:
        self._all = sessions
        self._desk = sessions._desk
        self._link = link
        self._address = address
        self._stream: Stream = link.session()
        self._id = identifier(sessions._randomness)
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        welcome = await self._welcome()
        every = self._all
        every.is_connected, every.connected_to = True, self._address
        every.sessions += 1
        log.info("session open", scheduler=self._address, node=every.identity.name)
        if welcome.send_report:
            self._desk.reporter.ask_complete()
        async with asyncio.TaskGroup() as background:
            background.create_task(self._beat(welcome), name="heartbeat lane")
            background.create_task(self._read(background), name="orders")
            background.create_task(self._report(), name="reports")
            background.create_task(self._node_reports(), name="node reports")
            background.create_task(self._say_goodbye(), name="goodbye")

    async def _welcome(self) -> Any:
        every = self._all
        hello = dispatcher_pb2.Hello(
            cluster_id=every.identity.cluster_id,
            node_id=every.identity.node_id,
            boot_id=every._boot_id,
            wanted_hash=self._desk.wanted_hash(),
            running_hash=self._desk.reporter.running_hash,
            agent_version=every._version,
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
        every._floor(codec.from_message(OrderId, first.welcome.order))
        every._learn(tuple(first.welcome.schedulers), first.welcome.node_name)
        return first.welcome

    async def _send(self, message: Any) -> None:
        async with self._sending:
            await self._stream.send(message)

    async def _beat(self, welcome: Any) -> None:
        every = self._all
        await HeartbeatLane(
            self._link.heartbeat(),
            identity=every.identity,
            session_id=self._id,
            boot_id=every._boot_id,
            clock=every._clock,
            randomness=every._randomness,
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
        every = self._all
        every.last_answer_ms = every._clock.wall_ms()
        every._floor(codec.from_message(OrderId, answer.order))
        every._learn(tuple(answer.schedulers))
        if answer.resend_report:
            self._desk.reporter.ask_complete()

    async def _read(self, background: asyncio.TaskGroup) -> None:
        async for message in self._stream:
            match message.WhichOneof("body"):
                case "assignments":
                    await self._obey(message.assignments)
                case "report_ack":
                    self._desk.reporter.acknowledge(message.report_ack.sequence)
                case "open_bulk":
                    work = self._desk.bulk.work(self._link, message.open_bulk, self._all.identity)
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
        node = NodeId(self._all.identity.node_id)
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
        every = self._all
        await every._stop.wait()
        kind, reason = every._goodbye or (Goodbye.AGENT_RESTARTING, "")
        goodbye = dispatcher_pb2.Goodbye(kind=kind.value, reason=reason)  # type: ignore[arg-type]
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


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the session; a link that broke on the way down adds nothing."""
    leaves: list[BaseException] = []
    heap: list[BaseException] = [group]
    while heap:
        error = heap.pop()
        if isinstance(error, BaseExceptionGroup):
            heap += error.exceptions
        else:
            leaves.append(error)
    for kind in (Ended, Refused, LinkLost):
        found = [error for error in leaves if isinstance(error, kind)]
        if found and len(found) < len(leaves) and kind is LinkLost:
            break  # something unexpected: all of it belongs into the log
        if found:
            return found[0]
    return group
