"""The brake: nothing moves while most of the cluster fell silent at once.

Then the fault is more likely here, or in what joins the nodes, than in all of them, and
moving everything to the few that are left would make an outage of it. A newcomer's
mistake: counting nodes that have been dead for a week. Only those that were READY within
the last minute say something about now. While the brake is on it stays with those that it
was put on for: they come back, or the operator says that they are lost, or they are
removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeport.model import Event, Node, NodeId, NodeState
from scheduler.cluster.observed import Brake, Liveness
from scheduler.cluster.snapshot import Snapshot
from scheduler.config import Timers
from scheduler.reconcile import telling

LATELY_SECONDS = 60.0
"""Who was READY within this time is counted."""
AT_ONCE_SECONDS = 30.0
"""Who fell silent within this time of each other did so at once."""
PART_PERCENT = 55
SILENT_MIN = 2
FEW = 4
"""Of so many nodes or fewer, two are always most."""
ALL_OTHERS_MIN = 3
REPLICAS_HELD_SECONDS = 60.0
"""After that replicas move all the same; exclusive tasks wait for the operator."""
EARLY_HEARTBEATS = 1.5
"""One node is silent for as long as a suspicion takes before those that fell with it are: so
many heartbeats earlier they count, and never sooner than after so many."""
AGAIN_SECONDS = 1.0
"""How soon it is judged again while it is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One node, as the brake counts it. Times are the scheduler's boot time."""

    node: NodeId
    name: str
    last_seen: float
    is_silent: bool
    was_heard: bool = True  # by this leader
    is_own_host: bool = False  # this leader runs there


class Braking:
    """Judges it time and again, for one term of leadership. Owned by the controller."""

    def __init__(self, address: str) -> None:
        """`address`: HOST:PORT of this leader, by which it knows its own node."""
        self._address = address
        self.due_at = 0.0
        """The boot time at which it is to be judged anew; 0: when a node changes."""

    def judge(self, snapshot: Snapshot, timers: Timers) -> Event | None:
        """Put the brake on or take it off; what people are told of that, or None: it is as before.

        While it is on it is judged every second: a node that is heard again changes no state.
        """
        observed = snapshot.observed
        before = observed.brake
        nodes = watched(snapshot, timers, self._address)
        brake = decide(before, nodes, snapshot.now, snapshot.now_ms)
        self.due_at = snapshot.now + AGAIN_SECONDS if brake is not None else 0.0
        if brake == before:
            return None
        observed.brake = brake
        return telling.brake(before, brake, snapshot.now_ms)


def decide(before: Brake | None, nodes: Sequence[Watched], now: float, now_ms: int) -> Brake | None:
    """The brake from now on; None: it is off.

    `nodes`: all that are neither lost by the operator's word nor going down by their own.
    """
    counted = [
        each
        for each in nodes
        if each.last_seen > now - LATELY_SECONDS
        or (before is not None and each.node in before.counted and _still_counts(each, before, now))
    ]
    silent = _at_once([each for each in counted if each.is_silent], before)
    if not is_most(silent, counted):
        return None
    names = tuple(each.node for each in sorted(silent, key=lambda each: each.name))
    everybody = tuple(sorted(each.node for each in counted))
    if before is not None:
        if (names, everybody) == (before.silent, before.counted):
            return before
        since, since_ms = before.since, before.since_ms
    else:
        since, since_ms = now, now_ms
    return Brake(
        since=since,
        since_ms=since_ms,
        silent=names,
        counted=everybody,
        cause=_cause(silent, counted),
    )


def is_most(silent: Sequence[Watched], counted: Sequence[Watched]) -> bool:
    """Whether so many fell silent that the brake is on."""
    if len(silent) >= SILENT_MIN:
        if len(counted) <= FEW:
            return True
        if len(silent) * 100 >= len(counted) * PART_PERCENT:
            return True
    others = [each for each in counted if not each.is_own_host]
    return (
        len(counted) >= ALL_OTHERS_MIN
        and len(others) < len(counted)
        and all(each.is_silent for each in others)
    )


def holds_replicas(brake: Brake, now: float) -> bool:
    """Whether not even replicas move."""
    return now < brake.since + REPLICAS_HELD_SECONDS


def watched(snapshot: Snapshot, timers: Timers, address: str) -> list[Watched]:
    """All nodes that the brake may count. `address`: HOST:PORT of this leader."""
    found: list[Watched] = []
    for node in snapshot.stored.nodes():
        liveness = snapshot.observed.node(node.id)
        if liveness.leaving or node.lost_ms:
            continue
        found.append(
            Watched(
                node=node.id,
                name=node.name,
                last_seen=liveness.last_seen,
                is_silent=_is_silent(liveness, snapshot.now, timers),
                was_heard=liveness.last_seen_ms > 0,
                is_own_host=is_own_host(node, address),
            )
        )
    return found


def is_own_host(node: Node, address: str) -> bool:
    """Whether the scheduler that answers at HOST:PORT runs on this node."""
    host = address.rpartition(":")[0].strip("[]")
    inventory = node.inventory
    return bool(host) and host in (node.name, inventory.hostname, *inventory.addresses)


def _is_silent(liveness: Liveness, now: float, timers: Timers) -> bool:
    if liveness.state in (NodeState.SUSPECT, NodeState.DOWN):
        return True
    if liveness.state is not NodeState.READY or liveness.restarting:
        return False
    few = EARLY_HEARTBEATS * timers.heartbeat_seconds
    return now - liveness.last_seen >= max(timers.suspect_seconds - few, few)


def _still_counts(node: Watched, before: Brake, now: float) -> bool:
    """A node that no word was ever heard of counts for a minute: it may be dead for long."""
    return node.was_heard or now < before.since + LATELY_SECONDS


def _at_once(silent: Sequence[Watched], before: Brake | None) -> list[Watched]:
    """The most nodes that fell silent within one stretch of time; while the brake is on, all."""
    if before is not None:
        return list(silent)
    ordered = sorted(silent, key=lambda each: (each.last_seen, each.node))
    best: list[Watched] = []
    begin = 0
    for end, each in enumerate(ordered):
        while each.last_seen - ordered[begin].last_seen > AT_ONCE_SECONDS:
            begin += 1
        if end + 1 - begin > len(best):
            best = ordered[begin : end + 1]
    return best


def _cause(silent: Sequence[Watched], counted: Sequence[Watched]) -> str:
    names = _listed(each.name for each in sorted(silent, key=lambda each: each.name))
    how = (
        "fell silent within half a minute"
        if any(each.was_heard for each in silent)
        else "have not been heard of since this scheduler leads"
    )
    return f"{len(silent)} of {len(counted)} nodes {how}: {names}"


def _listed(names: Iterable[str], most: int = 10) -> str:
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
