"""Who this machine is in its cluster: given by a scheduler once, kept for ever.

A newcomer's mistake: deriving any of it from the hostname or the machine id. Both are
copied with an SD card; the state directory's identity is the only one, and a scheduler
tells two machines that share it apart by their boot ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is in the state directory's identity file."""

    request_id: str  # of the join, so that a retried one makes one node
    cluster_id: str = ""  # empty: not joined yet
    node_id: str = ""
    name: str = ""
    incarnation: int = 0
    schedulers: tuple[str, ...] = ()  # as a scheduler last told, best first


class IdentityStore(Protocol):
    """Where the identity is kept."""

    def load(self) -> Identity | None:
        """The identity; None on the first start. Raises OSError, and ValueError if damaged."""
        ...

    def save(self, identity: Identity) -> None:
        """Keep it durably. Raises OSError."""
        ...
