"""Schedulers as an agent sees them: lanes with real messages, and a say over what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from homeport import codec
from homeport.model import Assignment, OrderId, ServiceGeneration, TaskStatus
from homeport.seams import LinkLost, Refused
from homeport.v1 import dispatcher_pb2 as pb
from tests.loops.agent.rig import ORDER


class Lane:
    """One stream; `answer` is called with each request and yields what comes back."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.is_closed = False
        self.broken = ""

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            message = await self.responses.get()
            if isinstance(message, Exception):
                raise message
            if message is None:
                return
            yield message

    async def send(self, message: Any, /) -> None:
        if self.broken:
            raise LinkLost(self.broken)
        copy = type(message)()
        copy.CopyFrom(message)
        self.requests.append(copy)
        self.take(copy)

    def take(self, message: Any) -> None:
        """Overridden by whoever answers."""

    async def close(self) -> None:
        self.is_closed = True

    def give(self, message: Any) -> None:
        self.responses.put_nowait(message)

    def break_off(self, why: str = "connection reset by peer") -> None:
        self.broken = why
        self.responses.put_nowait(LinkLost(why))


@dataclass
class FakeScheduler:
    """One scheduler; the attributes say how it behaves."""

    order: OrderId = ORDER
    is_down: bool = False
    is_silent: bool = False  # takes everything and answers nothing
    beats: bool = True
    acknowledges: bool = True
    welcomes: bool = True
    farewell: Any = None
    refuses: str = ""
    told: list[TaskStatus] = field(default_factory=list)  # what it says that it was told
    greeting: list[Any] = field(default_factory=list)  # sent after the welcome
    dialled: list[float] = field(default_factory=list)
    sessions: list[Lane] = field(default_factory=list)
    heartbeats: list[Any] = field(default_factory=list)
    joins: list[Any] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)
    acks: list[Any] = field(default_factory=list)
    goodbyes: list[Any] = field(default_factory=list)
    bulk: list[Lane] = field(default_factory=list)
    resend_report: bool = False

    def session(self) -> Lane:
        lane = Lane()
        lane.take = lambda message: self._session(lane, message)  # type: ignore[method-assign]
        self.sessions.append(lane)
        return lane

    def _session(self, lane: Lane, message: Any) -> None:
        match message.WhichOneof("body"):
            case "hello" if self.is_silent:
                pass
            case "hello" if self.farewell is not None:
                lane.give(pb.SessionResponse(farewell=self.farewell))
            case "hello":
                welcome = pb.Welcome(node_lease_ms=15_000, heartbeat_ms=1_000, node_name="pi")
                codec.fill(welcome.order, self.order)
                welcome.send_report = True
                for status in self.told:
                    codec.fill(welcome.told.add(), status)
                lane.give(pb.SessionResponse(welcome=welcome))
                for each in self.greeting:
                    lane.give(each)
            case "report":
                self.reports.append(message.report)
                if self.acknowledges:
                    ack = pb.ReportAck(sequence=message.report.sequence)
                    lane.give(pb.SessionResponse(report_ack=ack))
            case "order_ack":
                self.acks.append(message.order_ack)
            case "goodbye":
                self.goodbyes.append(message.goodbye)
                lane.give(None)  # hangs up

    def heartbeat(self) -> Lane:
        lane = Lane()
        lane.take = lambda message: self._beat(lane, message)  # type: ignore[method-assign]
        return lane

    def _beat(self, lane: Lane, message: Any) -> None:
        self.heartbeats.append(message)
        if self.is_silent or not self.beats:
            return
        answer = pb.HeartbeatResponse(
            echoed_boottime_ns=message.sent_boottime_ns, node_lease_ms=15_000
        )
        answer.resend_report, self.resend_report = self.resend_report, False
        codec.fill(answer.order, self.order)
        lane.give(answer)


class FakeLink:
    """An agent's connection to one of them."""

    def __init__(self, scheduler: FakeScheduler) -> None:
        self._scheduler = scheduler

    async def join(self, request: Any, /) -> Any:
        scheduler = self._scheduler
        scheduler.joins.append(request)
        if scheduler.is_down:
            raise LinkLost("connection refused")
        if scheduler.refuses:
            raise Refused(scheduler.refuses)
        return pb.JoinResponse(cluster_id=ORDER.cluster, node_id="n1", name="pi", incarnation=1)

    def heartbeat(self) -> Lane:
        return self._scheduler.heartbeat()

    def session(self) -> Lane:
        if self._scheduler.is_down:
            lane = Lane()
            lane.break_off("connection refused")
            return lane
        return self._scheduler.session()

    def bulk(self) -> Lane:
        lane = Lane()
        self._scheduler.bulk.append(lane)
        return lane

    async def close(self) -> None:
        pass


class FakeTransport:
    """Reaches them by address."""

    def __init__(self, **schedulers: FakeScheduler) -> None:
        self.schedulers = schedulers
        self.dials: list[tuple[float, str]] = []

    def connect(self, address: str, /) -> FakeLink:
        self.dials.append((round(asyncio.get_running_loop().time(), 2), address))
        return FakeLink(self.schedulers[address])


def assignments(
    *works: tuple[Assignment, ServiceGeneration],
    order: OrderId = ORDER,
    applies_to: OrderId | None = None,
) -> Any:
    """The message with these tasks; complete unless it applies to something."""
    kind = pb.Assignments.KIND_INCREMENTAL if applies_to else pb.Assignments.KIND_COMPLETE
    message = pb.Assignments(kind=kind)
    codec.fill(message.order, order)
    if applies_to:
        codec.fill(message.applies_to, applies_to)
    for assignment, generation in works:
        codec.fill(message.tasks.add(), assignment)
        codec.fill(message.specs.add(), generation)
    return pb.SessionResponse(assignments=message)
