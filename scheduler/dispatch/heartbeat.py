"""Answer signs of life, and with each answer grant the node's lease.

A lease is granted only while this scheduler certainly leads: two leaders that both grant
could let one exclusive task run twice. An agent that gets no answer turns to the next
scheduler by itself, so silence is the right answer in every doubtful case. An answer without
a lease is for a node that is well and may still run what has moved away from it.
"""

from __future__ import annotations

from collections.abc import Callable

from homeport import codec
from homeport.model import NodeId, OrderId
from homeport.v1 import dispatcher_pb2
from scheduler.config import Timers
from scheduler.dispatch.leases import Leases
from scheduler.dispatch.session import Session
from scheduler.store.authority import Authority


def answer(
    authority: Authority,
    request: dispatcher_pb2.HeartbeatRequest,
    session: Session | None,
    timers: Timers,
    schedulers: tuple[str, ...],
    alive: Callable[[NodeId], None],
    leases: Leases,
) -> dispatcher_pb2.HeartbeatResponse | None:
    """The answer, or None for silence. `alive` takes note of the node's sign of life."""
    order = authority.order()
    if session is None or request.session_id != session.id or request.cluster_id != order.cluster:
        return None
    if not may_answer(authority):
        return None
    alive(session.node)
    lease = leases.grant(authority.observed, session, timers, authority.clock.boottime())
    response = dispatcher_pb2.HeartbeatResponse(
        echoed_boottime_ns=request.sent_boottime_ns,
        node_lease_ms=round(lease * 1000),
        next_heartbeat_ms=round(timers.heartbeat_seconds * 1000),
        schedulers=schedulers,
    )
    codec.fill(response.order, order)
    if session.wanted_differs(request.wanted_hash, codec.from_message(OrderId, request.seen)):
        response.resend_assignments = True
        session.tell_all_again()
    if session.running_differs(request.running_hash) or session.wants_report:
        response.resend_report = True
    return response


def may_answer(authority: Authority) -> bool:
    """Whether this scheduler certainly leads; asked with no await before the answer is sent."""
    return authority.is_proven
