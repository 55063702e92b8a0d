"""One connected agent: its reports in, its orders out, until either side goes.

A session lives above the transport: it is given a `homeport.seams.Stream` and knows
nothing of gRPC. One coroutine reads, one writes; whatever ends one ends both. Orders are
coalesced: what changes while a message is being sent goes into the next one. Nothing is
ordered unless the leadership is proven at that moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from homeport import codec
from homeport.lifecycle import TERMINAL, Desired
from homeport.model import (
    Event,
    Inventory,
    NodeId,
    NodeStatus,
    OrderId,
    TaskId,
    TaskStatus,
    Volume,
)
from homeport.seams import LinkLost, Stream
from homeport.v1 import dispatcher_pb2
from scheduler.cluster.changes import Change
from scheduler.dispatch import assignments, joining, reports
from scheduler.dispatch.said import Said
from scheduler.dispatch.turns import Turn, Turns
from scheduler.dispatch.wording import Wording
from scheduler.store.authority import Authority
from scheduler.store.base import Conflict, StoreError

RETRY_AFTER_MS = 1_000
OUTBOX_MAX = 10_000

log = structlog.get_logger(__name__)


class SessionOver(Exception):
    """The session ends in an orderly way."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """One message of orders on its way."""

    order: OrderId
    ends: frozenset[TaskId]  # the tasks that it ends
    briefs: bool  # with it the agent has heard of all that is wanted


class Session:
    """One agent's session on a leader."""

    def __init__(
        self,
        authority: Authority,
        node: NodeId,
        session_id: str,
        boot_id: str,
        stream: Stream,
        said: Said,
        turns: Turns,
        wording: Wording,
    ) -> None:
        """`said`: what this node's agent last said of its tasks; outlives the session.

        `turns` and `wording` are common to all sessions of a leader.
        """
        self.node = node
        self.id = session_id
        self.boot_id = boot_id
        self.told = assignments.Told()
        self.said = said
        self.acknowledged: OrderId | None = None
        self.goodbye: dispatcher_pb2.Goodbye | None = None
        self.wants_report = False  # after a silence: what was known of its tasks is old
        self._authority = authority
        self._stream = stream
        self._outbox: deque[Any] = deque()
        self._changed: set[TaskId] = set()
        self._turns = turns
        self._wording = wording
        self._turn: Turn | None = None  # asked for, because there are orders to send
        self._farewell: dispatcher_pb2.Farewell | None = None
        self._wake = asyncio.Event()
        self._wake.set()
        self._sent: deque[_Sent] = deque()  # orders that the agent has not acknowledged
        self._is_briefed = False
        self._odd: dict[str, bytes] = {}
        self._last_report = 0  # the number of the last report that was taken in

    # ------------------------------------------------------------ what others tell it

    def mark(self, task: TaskId) -> None:
        """A task of the node was written or deleted."""
        self._changed.add(task)
        self._wake.set()

    def post(self, message: dispatcher_pb2.SessionResponse) -> None:
        """Send this ahead of orders. An agent that does not read loses its session."""
        if len(self._outbox) >= OUTBOX_MAX:
            self.end("the agent does not read what it is sent")
            return
        self._outbox.append(message)
        self._wake.set()

    def end(self, reason: str, *, retry_after_ms: int = RETRY_AFTER_MS, leader: str = "") -> None:
        """Say farewell, with the sentence `reason`, and close."""
        if self._farewell is None:
            self._farewell = dispatcher_pb2.Farewell(
                reason=reason, retry_after_ms=retry_after_ms, leader=leader
            )
            self._wake.set()

    def tell_all_again(self) -> None:
        """The agent believes something else: begin with a COMPLETE message again."""
        self.told = assignments.Told()
        self._wake.set()

    # ------------------------------------------------------------ what the agent knows

    @property
    def is_briefed(self) -> bool:
        """Whether the agent has acknowledged all that is wanted of it, once in this session.

        Before that it may believe what a power cut made of its journal.
        """
        return self._is_briefed

    def has_given_up(self, task: TaskId) -> bool:
        """Whether the agent has acknowledged that this task is to end, and does not run it."""
        assignment = self.told.tasks.get(task)
        is_told = task in self.told.tombstones or (
            assignment is not None and assignment.desired is not Desired.RUNNING
        )
        if not is_told or any(task in sent.ends for sent in self._sent):
            return False
        heard = self.said.of(task)
        return heard is None or heard.state in TERMINAL

    def _acknowledge(self, order: OrderId) -> None:
        """Acks come in the order of the messages, one for each."""
        self.acknowledged = order
        if self._sent and self._sent[0].order == order:
            sent = self._sent.popleft()
            self._is_briefed = self._is_briefed or sent.briefs

    # ------------------------------------------------------------ hashes from heartbeats

    def wanted_differs(self, theirs: bytes, seen: OrderId) -> bool:
        """Whether the agent lacks orders, by its hash; two heartbeats in a row must say so."""
        told = self.told.order
        if told is None or seen.order != told.order or self._changed:
            self._odd.pop("wanted", None)
            return False  # something is on its way
        return self._twice("wanted", theirs, self.told.wanted_hash)

    def running_differs(self, theirs: bytes) -> bool:
        """Whether reports were lost, by the agent's hash; two heartbeats in a row must say so."""
        return self._twice("running", theirs, self.said.digest)

    def _twice(self, what: str, theirs: bytes, ours: bytes) -> bool:
        if not theirs or theirs == ours:
            self._odd.pop(what, None)
            return False
        if self._odd.get(what) == theirs:
            del self._odd[what]
            return True
        self._odd[what] = theirs
        return False

    # ------------------------------------------------------------ the two coroutines

    async def run(
        self,
        incoming: AsyncIterator[Any],
        taken_in: Callable[[Session, bool], None],
        inventory: Inventory | None,
    ) -> None:
        """Until the session ends. `taken_in` is called after each message, with whether it
        was a complete report; `inventory` is what the hello brought."""
        try:
            async with asyncio.TaskGroup() as background:
                background.create_task(self._write(), name=f"orders to {self.node}")
                reading = self._read(incoming, taken_in, inventory)
                background.create_task(reading, name=f"reports from {self.node}")
        except* SessionOver:
            pass
        except* LinkLost as lost:
            log.debug("a session's link was lost", node=self.node, why=str(lost.exceptions[0]))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self._stream.send(self._outbox.popleft())
            if self._farewell is None and not self._authority.is_proven:
                self.end("this scheduler may not lead any more")
            if self._farewell is not None:
                await self._stream.send(dispatcher_pb2.SessionResponse(farewell=self._farewell))
                raise SessionOver
            if (self._changed or self.told.order is None) and self._has_turn():
                for orders in self._orders():
                    if not self._authority.is_proven:
                        break  # the farewell comes next
                    await self._stream.send(self._wording.message(orders))

    def _has_turn(self) -> bool:
        """Whether this session may send its orders now; it is woken when it may."""
        if self._turn is None:
            self._turn = self._turns.ask(self._wake.set)
        if not self._turn.has_come:
            return False
        self._turn = None
        return True

    def _orders(self) -> list[assignments.Orders]:
        changed, self._changed = self._changed, set()
        view = self._authority.mirror.tables
        is_first = self.told.order is None
        tasks = view.tasks_of_node(self.node) if is_first else ()
        messages = assignments.plan(self.told, view, tasks, self._authority.order(), changed)
        for orders in messages:
            briefs = is_first and orders is messages[-1]
            self._sent.append(_Sent(orders.order, assignments.ends(orders), briefs))
        if is_first:
            self._is_briefed = False
        return messages

    async def _read(
        self,
        incoming: AsyncIterator[Any],
        taken_in: Callable[[Session, bool], None],
        inventory: Inventory | None,
    ) -> None:
        if inventory is not None:
            await self._take_inventory(inventory)
        async for request in incoming:
            body = request.WhichOneof("body")
            is_complete = False
            if body == "report":
                await self._report(request.report)
                is_complete = request.report.complete
            elif body == "node_report":
                await self._node_report(request.node_report)
            elif body == "order_ack":
                self._acknowledge(codec.from_message(OrderId, request.order_ack.order))
                await self._found()
            elif body == "goodbye":
                self.goodbye = request.goodbye
                raise SessionOver
            else:
                self.end(f"a session cannot go on with {body or 'a message of a newer version'}")
            taken_in(self, is_complete)
        raise SessionOver

    # ------------------------------------------------------------ taking in

    async def _report(self, report: dispatcher_pb2.Report) -> None:
        if report.sequence <= self._last_report:
            return  # something on the way repeats what has been heard; newer things count
        if self._farewell is not None:
            return  # late: a newer session's agent was told what had been heard until then
        self._last_report = report.sequence
        authority = self._authority
        observed, dirt = authority.observed, authority.dirt
        statuses = self._readable(report.statuses, TaskStatus)
        heard = reports.hear(
            authority.mirror.tables, self.node, statuses, is_complete=report.complete
        )
        if heard.foreign:
            log.debug("tasks without a record here", node=self.node, tasks=heard.foreign[:10])
        self.said.hear(statuses, is_complete=report.complete)
        for task in heard.missing:
            self._tell_end_again(task)
            if observed.status(task) is not None:
                observed.forget(task)
                dirt.service(_service(authority, task))
        for status in heard.statuses:
            if observed.put_status(status):
                if status.state in TERMINAL:
                    dirt.service(_service(authority, status.task))
                    dirt.capacity = True
                else:
                    dirt.progress(_service(authority, status.task))
        node = authority.mirror.tables.node(self.node)
        said = self._readable(report.events, Event)
        for event in reports.events(node.name if node is not None else self.node, said):
            observed.add_event(event)
        volumes = self._readable(report.volumes, Volume)
        changes = reports.volume_changes(authority.mirror.tables, self.node, volumes)
        is_stored = not changes or await self._commit(changes)
        if dirt:
            authority.wake()
        self._odd.pop("running", None)
        if not is_stored:
            return
        self.post(
            dispatcher_pb2.SessionResponse(
                report_ack=dispatcher_pb2.ReportAck(sequence=report.sequence)
            )
        )

    def _tell_end_again(self, task: TaskId) -> None:
        """The agent has nothing of this task. Where it was told to end it, it is told again.

        It has said that the task is gone, and was heard, but nobody could write that down. Told
        again, it says so again.
        """
        if self.told.tombstones.pop(task, None) is not None:
            self.mark(task)

    async def _node_report(self, report: dispatcher_pb2.NodeReport) -> None:
        observed = self._authority.observed
        if report.HasField("status"):
            for status in self._readable([report.status], NodeStatus):
                before = observed.node(self.node).status.conditions
                observed.put_node_status(self.node, status)
                if before != status.conditions:
                    # One that keeps new tasks away may have come or gone.
                    self._authority.dirt.node(self.node)
                    self._authority.wake()
        if report.HasField("inventory"):
            for inventory in self._readable([report.inventory], Inventory):
                await self._take_inventory(inventory)

    async def _found(self) -> None:
        """A node that was said to be off is back, and knows what has moved meanwhile."""
        if not self._is_briefed:
            return
        change = joining.found_change(self._authority.mirror.tables, self.node)
        if change is not None:
            await self._commit([change])

    async def _take_inventory(self, inventory: Inventory) -> None:
        """Remember what the machine has, if that differs."""
        change = joining.inventory_change(self._authority.mirror.tables, self.node, inventory)
        if change is not None and await self._commit([change]):
            self._authority.dirt.node(self.node)
            self._authority.dirt.capacity = True
            self._authority.wake()

    async def _commit(self, changes: list[Change]) -> bool:
        """Write, or end the session: the agent then tells it again to whoever leads."""
        try:
            await self._authority.commit(changes)
        except Conflict:
            log.info("somebody else wrote first; the agent will say it again", node=self.node)
            self.end("the report crossed another change; please repeat it", retry_after_ms=50)
        except StoreError as error:
            log.warning("a report cannot be stored", node=self.node, why=str(error))
            self.end(f"the store does not take what was reported: {error}")
        else:
            return True
        return False

    def _readable(self, messages: Any, kind: type[Any]) -> list[Any]:
        """Those that this version understands; one that it does not concerns only itself."""
        values = []
        for message in messages:
            try:
                values.append(codec.from_message(kind, message))
            except codec.CodecError as error:
                log.warning("part of a report cannot be read", node=self.node, why=str(error))
        return values


def _service(authority: Authority, task: TaskId) -> Any:
    stored = authority.mirror.tables.task(task)
    assert stored is not None, "reports.hear lets only recorded tasks through"
    return stored.service
