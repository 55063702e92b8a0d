"""What signs of life, and their absence, say about a node.

Times are the scheduler's boot time in seconds. A newcomer's mistake: judging a node by
what this leader did not observe. A node that has not been heard in this epoch is UNKNOWN,
counts as last seen when the epoch began, and is SUSPECT only once the leader has led for as
long as a node's lease: before that nothing moves anyway.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from homeport.model import NodeId, NodeState
from scheduler.cluster.observed import Liveness
from scheduler.config import Timers

LENIENT_SECONDS = 3600.0
"""How long a node that was suspected falsely is given twice the time."""
LENIENT_MAX_SECONDS = 15.0
ALTERNATION_SECONDS = 600.0


def unheard(now: float) -> Liveness:
    """A known node at the beginning of an epoch."""
    return Liveness(state=NodeState.UNKNOWN, unheard=True, last_seen=now, since=now)


def unjudged(old: Liveness, now: float) -> Liveness:
    """Nobody could be heard until now: as at the beginning of an epoch."""
    return replace(
        old,
        state=NodeState.UNKNOWN,
        unheard=True,
        reported=False,
        last_seen=now,
        since=now,
        leaving=False,
    )


def opened(old: Liveness, now: float, now_ms: int, *, session: str, boot_id: str) -> Liveness:
    """The node's agent opened a session. What it runs is known once it has reported."""
    alive = seen(old, now, now_ms)
    return replace(
        alive,
        session=session,
        boot_id=boot_id,
        reported=alive.reported and old.boot_id == boot_id,
    )


def seen(old: Liveness, now: float, now_ms: int) -> Liveness:
    """A sign of life came in."""
    if old.state is NodeState.READY:
        return replace(old, last_seen=now, last_seen_ms=now_ms, restarting=False)
    return replace(
        old,
        state=NodeState.READY,
        unheard=False,
        # After a silence what was known of its tasks is old: a report says how they are now.
        reported=old.reported and old.state is NodeState.UNKNOWN,
        since=now,
        last_seen=now,
        last_seen_ms=now_ms,
        restarting=False,
        leaving=False,
    )


def was_false(old: Liveness, new: Liveness) -> bool:
    """Whether a suspicion turns out to have been false: nothing was wrong but the silence."""
    return (
        old.state is NodeState.SUSPECT
        and new.state is NodeState.READY
        and not old.leaving
        and old.boot_id == new.boot_id
    )


def reported(old: Liveness) -> Liveness:
    """A complete report came in: what is observed of the node's tasks can be relied upon."""
    return old if old.reported else replace(old, reported=True)


def closed(old: Liveness, session: str) -> Liveness:
    """This session ended; the node itself may be well."""
    return replace(old, session="") if old.session == session else old


def restarting(old: Liveness) -> Liveness:
    """The agent said that it restarts: its lease is kept, and its silence excused for a while."""
    return replace(old, restarting=True)


def going_down(old: Liveness, now: float) -> Liveness:
    """The machine said that it goes down: replicas need not wait, exclusive tasks must."""
    return replace(old, state=NodeState.SUSPECT, since=now, leaving=True)


def lost(old: Liveness, now: float) -> Liveness:
    """The operator said that the machine is off: nothing is waited for."""
    return old if old.state is NodeState.DOWN else replace(old, state=NodeState.DOWN, since=now)


def overdue(old: Liveness, now: float, timers: Timers, *, lenient: bool = False) -> Liveness | None:
    """What to think of a node that has been silent until `now`; None: the same as before."""
    silent = now - old.last_seen
    if silent >= down_after(old, timers):
        return (
            None if old.state is NodeState.DOWN else replace(old, state=NodeState.DOWN, since=now)
        )
    if old.state not in (NodeState.READY, NodeState.UNKNOWN):
        return None
    if silent >= threshold(old, timers, lenient=lenient):
        return replace(old, state=NodeState.SUSPECT, since=now)
    return None


def down_after(old: Liveness, timers: Timers) -> float:
    """Seconds of silence after which a node is taken for down.

    One that this leader has never heard may have been answered by the leader before it, and by
    rights only up to the beginning of this epoch. But a store may take a leader's key away
    wrongly (etcd 15247), and that one goes on for as long as its own lease.
    """
    if old.unheard:
        return timers.down_seconds + timers.leader_lease_seconds
    return timers.down_seconds


def threshold(old: Liveness, timers: Timers, *, lenient: bool) -> float:
    """Seconds of silence after which a READY or UNKNOWN node is suspected."""
    if old.restarting or old.state is NodeState.UNKNOWN:
        return timers.node_lease_seconds
    if lenient:
        return min(2 * timers.suspect_seconds, max(LENIENT_MAX_SECONDS, timers.suspect_seconds))
    return timers.suspect_seconds


def next_check(
    liveness: Mapping[NodeId, Liveness], timers: Timers, lenient: Mapping[NodeId, float], now: float
) -> float:
    """Boot time at which `overdue` may next say something of one of these nodes."""
    times = [now + timers.down_seconds]
    for node, each in liveness.items():
        if each.state in (NodeState.READY, NodeState.UNKNOWN):
            is_lenient = lenient.get(node, 0.0) > now
            times.append(each.last_seen + threshold(each, timers, lenient=is_lenient))
        elif each.state is not NodeState.DOWN:
            times.append(each.last_seen + down_after(each, timers))
    return min(times)


class Identity(enum.Enum):
    """What another session of a node means."""

    FIRST = 1  # there is none
    REPLACES = 2  # the same machine again, or the same after a reboot
    RETURNS = 3  # an earlier boot: an old hello that was long on its way, or a second machine
    DUPLICATE = 4  # two machines that alternate under one identity


@dataclass(slots=True)
class Boots:
    """Which boots a node's sessions came from; kept by the shell for each node."""

    current: str = ""
    returned: str = ""  # the session under which an earlier boot asked to be let in again
    contested_until: float = 0.0  # boot time: two machines have alternated
    replaced: dict[str, float] = field(default_factory=dict)  # boot id -> when it was replaced


def identity(boots: Boots, boot_id: str, now: float, *, session: str) -> Identity:
    """Judge the hello of this boot. A machine never returns to an earlier boot of its own.

    Its hello may: it waited in the buffers of a scheduler that was frozen, or of something
    between. One hello is therefore no proof of a second machine; a second one, under a session
    of its own, is: it was said after the first was answered.
    """
    if not boots.current:
        return Identity.FIRST
    if boot_id == boots.current:
        return Identity.REPLACES
    when = boots.replaced.get(boot_id)
    if when is None or now - when >= ALTERNATION_SECONDS:
        return Identity.REPLACES
    if boots.returned in ("", session):
        return Identity.RETURNS
    return Identity.DUPLICATE


def contested(boots: Boots, now: float) -> str:
    """Why neither of two machines under one identity gets exclusive work; empty: there is one."""
    if now >= boots.contested_until:
        return ""
    return (
        "two machines use its identity, as a copied state directory does: stop one of them and"
        " empty its state directory"
    )


def booted(boots: Boots, boot_id: str, now: float) -> None:
    """Remember that this boot lives: it has answered a welcome, as no old hello can."""
    if boots.current and boots.current != boot_id:
        boots.returned = ""
        boots.replaced[boots.current] = now
        boots.replaced.pop(boot_id, None)
        while len(boots.replaced) > 8:
            del boots.replaced[next(iter(boots.replaced))]
    boots.current = boot_id
