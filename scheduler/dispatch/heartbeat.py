"""Answer signs of life, and with each answer grant the node's lease.

A lease is granted only while this scheduler certainly leads: two leaders that both grant
could let one exclusive task run twice. An agent that gets no answer turns to the next
scheduler by itself, so silence is the right answer in every doubtful case.
"""

from __future__ import annotations

from collections.abc import Callable

from homeport import codec
from homeport.model import NodeId, OrderId
from homeport.v1 import dispatcher_pb2
from scheduler.config import Timers
from scheduler.dispatch.session import Session
from scheduler.store.authority import Authority


def answer(
    authority: Authority,
    request: dispatcher_pb2.HeartbeatRequest,
    session: Session | None,
    timers: Timers,
    schedulers: tuple[str, ...],
    alive: Callable[[NodeId], None],
) -> dispatcher_pb2.HeartbeatResponse | None:
    """The answer, or None for silence. `alive` takes note of the node's sign of life."""
    order = authority.order()
    if session is None or request.session_id != session.id or request.cluster_id != order.cluster:
        return None
    if not authority.is_proven:
        return None
    alive(session.node)
    response = dispatcher_pb2.HeartbeatResponse(
        echoed_boottime_ns=request.sent_boottime_ns,
        node_lease_ms=round(timers.node_lease_seconds * 1000),
        next_heartbeat_ms=round(timers.heartbeat_seconds * 1000),
        schedulers=schedulers,
    )
    codec.fill(response.order, order)
    if session.wanted_differs(request.wanted_hash, codec.from_message(OrderId, request.seen)):
        response.resend_assignments = True
        session.tell_all_again()
    if session.running_differs(request.running_hash):
        response.resend_report = True
    return response
