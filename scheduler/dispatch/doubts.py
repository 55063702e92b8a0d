"""Whether a store can have given the orders that an agent has journalled.

Within one incarnation revisions only rise, and an epoch is a revision too. So an agent that
has seen a higher one than the store has come to speaks of a past that the store has lost. A
newcomer's mistake: comparing epochs alone. A store that was restored from a snapshot soon
elects a leader whose epoch is above the last one's, while most of what followed is missing.
"""

from __future__ import annotations

from homeport.model import OrderId
from scheduler.cluster.observed import Doubt


def is_ahead(seen: OrderId, present: OrderId) -> bool:
    """Whether what was seen cannot come from a store that is at `present`."""
    if seen.incarnation != present.incarnation:
        return seen.incarnation > present.incarnation
    return max(seen.epoch, seen.revision) > present.revision


def raised(node: str, seen: OrderId, present: OrderId, *, now: float) -> Doubt:
    """What an agent's word comes to; `now` is boot time."""
    if seen.incarnation > present.incarnation:
        what = f"incarnation {seen.incarnation}, and the store is of {present.incarnation}"
    else:
        highest = max(seen.epoch, seen.revision)
        what = f"revision {highest}, and the store is at {present.revision}"
    return Doubt(
        incarnation=max(seen.incarnation, present.incarnation),
        since=now,
        why=f"the store was restored from an older state: node {node} has seen {what}. Nothing is"
        " changed and all containers run on. If what the store holds now is to count, say"
        " `homeport store accept-restore`; else restore a newer backup",
    )


def of_both(one: Doubt | None, other: Doubt) -> Doubt:
    """The doubt that only an incarnation above both ends."""
    return other if one is None or other.incarnation > one.incarnation else one
