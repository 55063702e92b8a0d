"""The agents' side of a leader: who is connected, who is silent, and what changed for whom.

Exists for one epoch. The mirror tells it of every commit; it marks the sessions concerned
and leaves the sending to them. It is the one writer of liveness and statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from homeport import codec
from homeport.lifecycle import TERMINAL
from homeport.model import (
    Cluster,
    Inventory,
    Node,
    NodeId,
    NodeState,
    OrderId,
    Task,
)
from homeport.seams import Refused, Stream, identifier
from homeport.v1 import dispatcher_pb2
from scheduler.cluster import keys
from scheduler.cluster.observed import Liveness
from scheduler.config import Timers
from scheduler.dispatch import clocks, doubts, heartbeat, joining, liveness
from scheduler.dispatch.bulk import Bulk
from scheduler.dispatch.leases import Leases
from scheduler.dispatch.said import Said
from scheduler.dispatch.session import Session
from scheduler.dispatch.turns import Turns
from scheduler.dispatch.wording import Wording
from scheduler.store.authority import Authority
from scheduler.store.base import Conflict, StoreError
from scheduler.store.images import Images
from scheduler.store.mirror import MirrorChange

JOIN_TRIES = 5
CHECK_SECONDS_MIN = 0.05
REFUSED_RETRY_MS = 30_000
DOUBT_RETRY_MS = 5_000
"""Well below the silence after which a node is down, which counts from an operator's word."""
FAREWELL_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Dispatcher:
    """All sessions of one epoch."""

    def __init__(
        self,
        authority: Authority,
        *,
        schedulers: Callable[[], tuple[str, ...]],
        images: Images | None = None,
    ) -> None:
        """`schedulers`: the addresses that agents are told, best first."""
        self.bulk = Bulk(authority.randomness, self._post, images)
        self.sessions: dict[NodeId, Session] = {}
        self._authority = authority
        self._schedulers = schedulers
        self._said: dict[NodeId, Said] = {}
        self._turns = Turns()
        self._wording = Wording()
        self._boots: dict[NodeId, liveness.Boots] = {}
        self._lenient: dict[NodeId, float] = {}
        self._news = asyncio.Event()  # a node's state changed: its next deadline is another
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_closing = False
        self._leases = Leases(authority.mirror.tables)
        self._pacing: dict[NodeId, clocks.Pacing] = {}
        now = authority.clock.boottime()
        self._nodes = 0
        for node in authority.mirror.tables.nodes():
            self._nodes += 1
            unheard = liveness.unheard(now)
            if node.lost_ms:
                unheard = liveness.lost(unheard, now)
            authority.observed.put_liveness(node.id, unheard)
        self._unsubscribe = authority.mirror.subscribe(self._committed)

    @property
    def timers(self) -> Timers:
        """The timers for as many nodes as there are."""
        return self._authority.timers.scaled(self._nodes)

    # ------------------------------------------------------------ the silence of nodes

    async def run(self) -> None:
        """Notice silent nodes, until cancelled."""
        observed, clock = self._authority.observed, self._authority.clock
        due = clock.boottime()
        while True:
            now = clock.boottime()
            timers = self.timers
            if not may_judge(self._authority, now - due, timers):
                # We were held up ourselves: what nodes said meanwhile is still to be read.
                due = now + timers.heartbeat_seconds
                await asyncio.sleep(timers.heartbeat_seconds)
                continue
            for node, each in list(observed.liveness.items()):
                is_lenient = self._lenient.get(node, 0.0) > now
                changed = liveness.overdue(each, now, timers, lenient=is_lenient)
                if changed is not None:
                    self._set(node, changed)
            self._news.clear()
            due = liveness.next_check(observed.liveness, timers, self._lenient, now)
            due = max(due, now + CHECK_SECONDS_MIN)
            try:
                async with asyncio.timeout(due - now):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _set(self, node: NodeId, new: Liveness) -> None:
        """Keep what is thought of a node, and tell those whom a change concerns."""
        authority = self._authority
        old = authority.observed.node(node)
        if liveness.was_false(old, new):
            self._lenient[node] = authority.clock.boottime() + liveness.LENIENT_SECONDS
        if _shown(old) == _shown(new):
            authority.observed.touch(node, new)
            return
        authority.observed.put_liveness(node, new)
        if old.state is not new.state:
            self._news.set()
            self._tell_state(node, old, new)
        if (old.state, old.unfenced) != (new.state, new.unfenced):
            authority.dirt.node(node)
            authority.dirt.capacity = True
        if new.reported and not old.reported:
            authority.dirt.node(node)
            for task in authority.mirror.tables.tasks_of_node(node):
                authority.dirt.service(task.service)
        if authority.dirt:
            authority.wake()

    def _tell_state(self, node: NodeId, old: Liveness, new: Liveness) -> None:
        stored, name = self._authority.mirror.tables.node(node), self._name(node)
        silent = self._authority.clock.boottime() - old.last_seen
        sentences = {
            NodeState.READY: (
                f"node {name} is ready"
                if old.state is NodeState.UNKNOWN
                else f"node {name} is back after {silent:.1f} s"
            ),
            NodeState.SUSPECT: (
                f"node {name} has been silent for {silent:.1f} s; its replicas may be replaced"
                if silent >= 1
                else f"node {name} says that it goes down"
            ),
            NodeState.DOWN: f"node {name} has been silent for {silent:.1f} s and is taken for down",
            NodeState.UNKNOWN: f"nothing has been heard of node {name}",
        }
        message = sentences[new.state]
        if new.state is NodeState.DOWN and stored is not None and stored.lost_ms:
            message = f"node {name} is lost, by the operator's word"
        log.info("node state changed", node=name, state=new.state.name, was=old.state.name)
        reason = f"Node{new.state.name.capitalize()}"
        self._authority.tell("node", name, reason, message, node=name)

    def _alive(self, node: NodeId) -> None:
        clock = self._authority.clock
        now = clock.boottime()
        old = self._authority.observed.node(node)
        if old.state in (NodeState.SUSPECT, NodeState.DOWN) and node in self.sessions:
            self.sessions[node].wants_report = True
        self._set(node, liveness.seen(old, now, clock.wall_ms()))

    # ------------------------------------------------------------ what was committed

    def _committed(self, changes: Sequence[MirrorChange]) -> None:
        for change in changes:
            record = change.new if change.new is not None else change.old
            if isinstance(record, Task):
                self._leases.superseded.changed(
                    self._authority.mirror.tables, _task(change.old), _task(change.new)
                )
                if change.new is None:
                    self._authority.observed.forget(record.id)
                if session := self.sessions.get(record.node):
                    session.mark(record.id)
            elif isinstance(record, Node):
                self._node_committed(record, change)
            elif isinstance(record, Cluster) and _begins_anew(change):
                self._begin_anew()

    def _begin_anew(self) -> None:
        """An operator accepted what the store holds: the next incarnation begins."""
        # Also what no record changes is another now: fence tokens carry the incarnation.
        for session in self.sessions.values():
            session.tell_all_again()
        # Whoever was silent because nobody was let in is not judged by that.
        now = self._authority.clock.boottime()
        for node, each in list(self._authority.observed.liveness.items()):
            stored = self._authority.mirror.tables.node(node)
            if stored is not None and not stored.lost_ms and node not in self.sessions:
                self._set(node, liveness.unjudged(each, now))

    def _node_committed(self, node: Node, change: MirrorChange) -> None:
        if change.new is None:
            self._nodes -= 1
            self._authority.observed.liveness.pop(node.id, None)
            self._said.pop(node.id, None)
            self._boots.pop(node.id, None)
            self._pacing.pop(node.id, None)
            self._leases.forget(node.id)
            if session := self.sessions.get(node.id):
                session.end(
                    f"node {node.name} was removed from the cluster",
                    retry_after_ms=REFUSED_RETRY_MS,
                )
        elif change.old is None:
            self._nodes += 1
            now = self._authority.clock.boottime()
            self._authority.observed.put_liveness(node.id, liveness.unheard(now))
            self._news.set()
        elif isinstance(change.old, Node) and node.lost_ms and not change.old.lost_ms:
            old = self._authority.observed.node(node.id)
            if session := self.sessions.get(node.id):
                # Should it live after all, it begins anew, and hears first what has moved.
                session.end(f"the operator said that node {node.name} is off")
            self._set(node.id, liveness.lost(old, self._authority.clock.boottime()))

    # ------------------------------------------------------------ the lanes

    async def join(self, request: dispatcher_pb2.JoinRequest) -> dispatcher_pb2.JoinResponse:
        """Give a machine its identity. Raises Refused, StoreError."""
        authority = self._authority
        try:
            inventory = codec.from_message(Inventory, request.inventory)
        except codec.CodecError as error:
            raise Refused(f"the inventory cannot be read: {error}") from error
        wish = joining.Wish(
            name=request.name,
            inventory=inventory,
            node_id=NodeId(request.node_id),
            request_id=request.request_id,
        )
        for _ in range(JOIN_TRIES):
            cluster = authority.mirror.tables.cluster
            assert cluster is not None, "the cluster's record is made before anything is served"
            verdict = joining.decide(
                authority.mirror.tables,
                cluster,
                wish,
                minted=identifier(authority.randomness, 32),
                now_ms=authority.clock.wall_ms(),
            )
            if isinstance(verdict, joining.Turned):
                raise Refused(verdict.reason)
            if verdict.changes:
                try:
                    await authority.commit(verdict.changes)
                except Conflict:
                    continue  # another machine joined at the same moment
                authority.tell(
                    "node",
                    verdict.node.name,
                    "NodeJoined",
                    f"node {verdict.node.name} joined",
                    node=verdict.node.name,
                )
            return dispatcher_pb2.JoinResponse(
                cluster_id=cluster.id,
                node_id=verdict.node.id,
                name=verdict.node.name,
                incarnation=cluster.incarnation,
                schedulers=self._schedulers(),
            )
        raise StoreError("many machines join at once; try again")

    async def heartbeat(self, stream: Stream, requests: AsyncIterator[Any]) -> None:
        """Serve one heartbeat lane until it ends."""
        async for request in requests:
            session = self.sessions.get(NodeId(request.node_id))
            if session is not None and session.id == request.session_id:
                # Only who was welcomed knows of this session: a hello alone may be an old one.
                boots = self._boots.setdefault(session.node, liveness.Boots())
                liveness.booted(boots, session.boot_id, self._authority.clock.boottime())
                self._judge(session, request.sent_boottime_ns / 1e9)
            response = heartbeat.answer(
                self._authority,
                request,
                session,
                self.timers,
                self._schedulers(),
                self._alive,
                self._leases,
            )
            if response is not None:
                await stream.send(response)

    def _judge(self, session: Session, sent: float) -> None:
        """Whether the node's clock, and its being one machine, can be relied upon."""
        node, now = session.node, self._authority.clock.boottime()
        pacing = self._pacing.setdefault(node, clocks.Pacing())
        clocks.heard(pacing, session.boot_id, sent, now)
        why = liveness.contested(self._boots.setdefault(node, liveness.Boots()), now)
        why = why or clocks.objection(clocks.rate(pacing))
        old = self._authority.observed.node(node)
        if bool(old.unfenced) == bool(why):
            return  # the figure in the sentence may be another; that is no news
        self._set(node, replace(old, unfenced=why))
        name = self._name(node)
        if why:
            message = f"node {name} gets no exclusive task: {why}"
            self._authority.tell("node", name, "Unfenced", message, node=name)
            log.warning("no exclusive task for a node", node=name, why=why)
        else:
            message = f"node {name} may have exclusive tasks again; before, {old.unfenced}"
            self._authority.tell("node", name, "Fenced", message, node=name)

    def _name(self, node: NodeId) -> str:
        stored = self._authority.mirror.tables.node(node)
        return stored.name if stored is not None else node

    async def session(self, stream: Stream, hello: Any, requests: AsyncIterator[Any]) -> None:
        """Serve one session, whose hello has been read, until it ends."""
        await self._weigh(hello)
        refusal = self._refusal(hello)
        if refusal is not None:
            is_doubt = self._authority.doubt is not None
            pause_ms = DOUBT_RETRY_MS if is_doubt else REFUSED_RETRY_MS
            farewell = dispatcher_pb2.Farewell(reason=refusal, retry_after_ms=pause_ms)
            await stream.send(dispatcher_pb2.SessionResponse(farewell=farewell))
            return
        node = NodeId(hello.node_id)
        said = self._said.setdefault(node, Said())
        session = Session(
            self._authority,
            node,
            hello.session_id,
            hello.boot_id,
            stream,
            said,
            self._turns,
            self._wording,
        )
        self._replace(session)
        clock = self._authority.clock
        old = self._authority.observed.node(node)
        opened = liveness.opened(
            old,
            clock.boottime(),
            clock.wall_ms(),
            session=hello.session_id,
            boot_id=hello.boot_id,
        )
        # What was known of its tasks counts only if nothing has happened to them meanwhile. After a
        # silence that is for a report to say: also this hello may have been long on its way.
        knows = (
            opened.reported and old.state is NodeState.READY and said.digest == hello.running_hash
        )
        other_until = max(opened.other_until, self._leases.other_until(node, hello.boot_id))
        self._set(node, replace(opened, reported=knows, other_until=other_until))
        session.post(self._welcome(node, send_report=not knows))
        try:
            await session.run(requests, self._taken_in, _inventory(hello))
        finally:
            self._ended(session)

    async def _weigh(self, hello: Any) -> None:
        """See whether the agent has journalled orders that this store cannot have given."""
        authority = self._authority
        seen = codec.from_message(OrderId, hello.seen)
        order = authority.order()
        if hello.cluster_id != order.cluster or not doubts.is_ahead(seen, order):
            return
        try:
            # Who leads no more is behind for another reason, and hears of it here.
            revision = await authority.commit(())
        except StoreError as error:
            log.warning("cannot see whether the store was restored", why=str(error))
            return
        order = replace(order, revision=max(revision, authority.mirror.newest))
        known = authority.mirror.tables.node(NodeId(hello.node_id))
        if known is None or not doubts.is_ahead(seen, order):
            return
        doubt = doubts.raised(known.name, seen, order, now=authority.clock.boottime())
        if authority.observed.doubt is None:
            log.error("the store is behind what agents have seen", why=doubt.why)
            authority.tell("scheduler", "store", "StoreIsBehind", doubt.why, node=known.name)
        authority.observed.doubt = doubts.of_both(authority.observed.doubt, doubt)
        for session in self.sessions.values():
            session.end(doubt.why, retry_after_ms=DOUBT_RETRY_MS)

    def _refusal(self, hello: Any) -> str | None:
        if (doubt := self._authority.doubt) is not None:
            return doubt.why
        order = self._authority.order()
        node = NodeId(hello.node_id)
        if hello.cluster_id != order.cluster:
            return (
                f"this is cluster {order.cluster}, and the agent belongs to {hello.cluster_id}:"
                " give it this cluster's schedulers, or empty its state directory to join here"
            )
        known = self._authority.mirror.tables.node(node)
        if known is None:
            return f"node {node} was removed; empty the agent's state directory to join anew"
        if codec.from_message(OrderId, hello.seen).order[:2] > order.order[:2]:
            return "this scheduler is behind what the agent has seen; it tries the next one"
        boots = self._boots.setdefault(node, liveness.Boots())
        now = self._authority.clock.boottime()
        identity = liveness.identity(boots, hello.boot_id, now, session=hello.session_id)
        if identity is liveness.Identity.RETURNS:
            boots.returned = hello.session_id
            return f"node {known.name} has been started since this agent was; say it again"
        if identity is liveness.Identity.DUPLICATE:
            # Both are fenced: which of them is the node is not for us to say.
            boots.contested_until = now + liveness.ALTERNATION_SECONDS
            reason = f"node {known.name}: {liveness.contested(boots, now)}"
            log.error("duplicate identity", node=node, boot=hello.boot_id)
            self._authority.tell("node", known.name, "DuplicateIdentity", reason, node=known.name)
            if node in self.sessions or not self._is_missed(node):
                return reason
            # The other one is gone: this one may run what it runs, and has no lease for a while.
        return None

    def _is_missed(self, node: NodeId) -> bool:
        """Whether the node has been silent for long enough to be suspected, or longer."""
        state = self._authority.observed.node(node).state
        return state in (NodeState.SUSPECT, NodeState.DOWN)

    def _replace(self, session: Session) -> None:
        older = self.sessions.get(session.node)
        if older is not None:
            older.end("a newer session of this node takes its place")
        self.sessions[session.node] = session
        self._empty.clear()
        if self._is_closing:
            session.end("this scheduler leads no more")

    def _welcome(self, node: NodeId, *, send_report: bool) -> dispatcher_pb2.SessionResponse:
        stored = self._authority.mirror.tables.node(node)
        assert stored is not None, "checked by _refusal"
        timers = self.timers
        welcome = dispatcher_pb2.Welcome(
            node_lease_ms=round(timers.node_lease_seconds * 1000),
            heartbeat_ms=round(timers.heartbeat_seconds * 1000),
            node_name=stored.name,
            schedulers=self._schedulers(),
            send_report=send_report,
        )
        codec.fill(welcome.order, self._authority.order())
        if send_report:
            for each in self._authority.mirror.tables.tasks_of_node(node):
                known = self._authority.observed.status(each.id)
                if known is not None and known.state not in TERMINAL:
                    # Field by field: after an outage there are as many as the cluster has tasks.
                    state: Any = known.state.value
                    welcome.told.add(task=each.id, attempt=known.attempt, state=state)
        return dispatcher_pb2.SessionResponse(welcome=welcome)

    def _taken_in(self, session: Session, is_complete: bool) -> None:
        if self.sessions.get(session.node) is not session:
            return
        self._alive(session.node)
        if is_complete:
            session.wants_report = False
            old = self._authority.observed.node(session.node)
            self._set(session.node, liveness.reported(old))

    def _ended(self, session: Session) -> None:
        if self.sessions.get(session.node) is not session:
            return  # a newer one has taken its place
        del self.sessions[session.node]
        if not self.sessions:
            self._empty.set()
        node = session.node
        if node not in self._authority.observed.liveness:
            return  # removed
        old = liveness.closed(self._authority.observed.node(node), session.id)
        goodbye = session.goodbye
        if goodbye is not None:
            if goodbye.kind == dispatcher_pb2.GOODBYE_KIND_AGENT_RESTARTING:
                old = liveness.restarting(old)
            else:
                old = liveness.going_down(old, self._authority.clock.boottime())
        self._set(node, old)

    def _post(self, node: NodeId, message: dispatcher_pb2.SessionResponse) -> bool:
        session = self.sessions.get(node)
        if session is None:
            return False
        session.post(message)
        return True

    async def close(self, reason: str, *, leader: str = "") -> None:
        """Say farewell to all agents and wait a moment until they have heard it."""
        if not self._is_closing:
            self._is_closing = True
            self._unsubscribe()
        for session in list(self.sessions.values()):
            session.end(reason, leader=leader)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            log.info("some agents did not hear the farewell", agents=len(self.sessions))


def may_judge(authority: Authority, late_seconds: float, timers: Timers) -> bool:
    """Whether silence means anything now: not to a leader that was held up, or leads no more."""
    return authority.is_proven and late_seconds < timers.heartbeat_seconds


def _shown(node: Liveness) -> tuple[object, ...]:
    """What a change of which is news."""
    return node.state, node.reported, node.session, node.unfenced


def _begins_anew(change: MirrorChange) -> bool:
    """Whether this is the beginning of another incarnation."""
    old, new = change.old, change.new
    return (
        isinstance(old, Cluster) and isinstance(new, Cluster) and new.incarnation != old.incarnation
    )


def _task(value: keys.Stored | None) -> Task | None:
    return value if isinstance(value, Task) else None


def _inventory(hello: Any) -> Inventory | None:
    if not hello.HasField("inventory"):
        return None
    try:
        return codec.from_message(Inventory, hello.inventory)
    except codec.CodecError as error:
        log.warning("an inventory cannot be read", node=hello.node_id, why=str(error))
        return None
