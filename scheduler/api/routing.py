"""Which scheduler answers a call: this one, or the leader.

A follower has the store's objects and can write nothing; what agents observe is in the
leader's memory alone. A newcomer's mistake: sending a call on that was sent on already. Two
schedulers that each take the other for the leader would play it back and forth for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Needs(Enum):
    """What an answer is made of."""

    STORED = auto()  # any scheduler has it
    OBSERVED = auto()  # the leader knows; without one it is said to be unknown
    LEADER = auto()  # only the leader can do it


NEEDS: Mapping[str, Needs] = {
    "Apply": Needs.LEADER,
    "RemoveStack": Needs.LEADER,
    "Scale": Needs.LEADER,
    "UpdateNode": Needs.LEADER,
    "RemoveNode": Needs.LEADER,
    "AdoptContainers": Needs.LEADER,
    "ForgetContainers": Needs.LEADER,
    "ListStacks": Needs.STORED,
    "GetCluster": Needs.OBSERVED,
    "ListServices": Needs.OBSERVED,
    "ListTasks": Needs.OBSERVED,
    "ListNodes": Needs.OBSERVED,
    "ListEvents": Needs.OBSERVED,
    "Explain": Needs.OBSERVED,
    "Watch": Needs.LEADER,  # unless it asks for stored objects alone
    "Logs": Needs.LEADER,
    "Exec": Needs.LEADER,
    # Archives of images are on the leader's disk, where agents fetch them.
    "StatImage": Needs.LEADER,
    "PushImage": Needs.LEADER,
    "Backup": Needs.STORED,
    "AcceptRestore": Needs.LEADER,
    "WhatIf": Needs.LEADER,
    "Rebalance": Needs.LEADER,
    "UpdateCluster": Needs.LEADER,
}
"""By the RPC's name. One that is missing is the leader's: that is never wrong."""


class Way(Enum):
    """What to do with a call."""

    HERE = auto()
    CONFIRM = auto()  # here, once the store says that nothing newer is missing
    ASK = auto()  # ask the leader
    REFUSE = auto()  # say who leads, or that nobody does


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and what goes with the call over the hop to the leader."""

    peer: str = ""  # the caller's address, as the first scheduler saw it
    request_id: str = ""  # the call's id in logs
    forwarded_by: str = ""  # the scheduler that sent it on; empty: a user did
    seen_revision: int = 0  # what the caller has seen or written: no answer may be older
    left_seconds: float | None = None  # until the caller's deadline; None: it has none


def way(needs: Needs, *, leads: bool, is_proven: bool, leader: str, caller: Caller) -> Way:
    """What to do. `leader`: the address of another scheduler that leads; empty: none."""
    if leads:
        return Way.HERE if is_proven or needs is Needs.LEADER else Way.CONFIRM
    if needs is Needs.STORED:
        return Way.CONFIRM
    if caller.forwarded_by:
        return Way.REFUSE
    if leader:
        return Way.ASK
    return Way.CONFIRM if needs is Needs.OBSERVED else Way.REFUSE
