"""How long this node may run exclusive tasks that could also be started elsewhere.

The lease counts from the moment the heartbeat was *sent*, on this machine's own boot time,
less a margin: however slow the answer was, the scheduler counted from later. Everything
else on the node runs with or without a lease.
"""

from __future__ import annotations

MARGIN_SECONDS = 1.0


class Lease:
    """The node's lease; written by the heartbeat lane, read before an exclusive start."""

    def __init__(self, margin_seconds: float = MARGIN_SECONDS) -> None:
        self._margin_seconds = margin_seconds
        self.until_seconds = 0.0
        """Boot time at which the lease ends; 0: there never was one."""

    def renew(self, *, sent_seconds: float, lease_seconds: float) -> None:
        """Take in an answer to the heartbeat sent at this boot time. Never shortens it."""
        until = sent_seconds + lease_seconds - self._margin_seconds
        self.until_seconds = max(self.until_seconds, until)

    def is_live(self, now_seconds: float) -> bool:
        """Whether an exclusive task may start now, by boot time."""
        return now_seconds < self.until_seconds
