"""How long this node may run exclusive tasks that could also be started elsewhere.

The lease counts from the moment the heartbeat was *sent*, on this machine's own boot time,
less a margin: however slow the answer was, the scheduler counted from later. Everything
else on the node runs with or without a lease.

A newcomer's mistake: taking a lease that has ended for one that merely waits for its next
renewal. What ran under it may have been moved meanwhile, and the order that says so may
still be on its way; so it begins anew only when a session that was opened after its end
has told everything that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable

from homeport.model import Assignment

MARGIN_SECONDS = 1.0
STOP_SECONDS = 2.0
"""How long before its lease's end a task is told to stop, at most. A failover of the leader
may take nearly all of a lease, and must not cost a restart."""
STOP_PART = 7
"""And at most one in so many parts of the lease."""


def needs_lease(assignment: Assignment) -> bool:
    """Whether a task may only run while the node has a lease."""
    return assignment.exclusive and not assignment.pinned


def lease_end(sent_seconds: float, lease_seconds: float, margin_seconds: float) -> float:
    """Boot time at which a lease ends that was granted for the heartbeat sent then."""
    return sent_seconds + lease_seconds - margin_seconds


def goes_on(sent_seconds: float, until_seconds: float) -> bool:
    """Whether a heartbeat sent then renews a lease that lasts until then."""
    return sent_seconds <= until_seconds


def begins_anew(told_seconds: float, until_seconds: float) -> bool:
    """Whether a lease that has ended may begin again.

    `told_seconds` is when the session was opened whose complete orders were journalled last.
    """
    return told_seconds > until_seconds


def stop_begins(until_seconds: float, lease_seconds: float, grace_seconds: float) -> float:
    """Boot time at which a running task is told to stop, so that it has ended in time."""
    return until_seconds - min(grace_seconds, STOP_SECONDS, lease_seconds / STOP_PART)


class Lease:
    """The node's lease; written by the heartbeat lane, read before an exclusive start."""

    def __init__(self, margin_seconds: float = MARGIN_SECONDS) -> None:
        self._margin_seconds = margin_seconds
        self._told_seconds = 0.0
        self._offered = (0.0, 0.0)
        self.until_seconds = 0.0
        """Boot time at which the lease ends; 0: there never was one."""
        self.lease_seconds = 0.0
        """How long it was granted for."""
        self.lapsed_seconds = 0.0
        """Boot time at which the one before it had ended; 0: it is the first."""
        self.on_renewal: Callable[[], None] = lambda: None
        self.on_begin: Callable[[], None] = lambda: None
        """Called when there is a lease again after there was none."""

    def renew(self, *, sent_seconds: float, heard_seconds: float, lease_seconds: float) -> bool:
        """Take in an answer, heard now, to the heartbeat sent at this boot time. Never shortens it.

        False: the lease had ended before that, and waits for a scheduler's word (`hear`).
        """
        until = lease_end(sent_seconds, lease_seconds, self._margin_seconds)
        if until <= max(sent_seconds, self.until_seconds):
            return True  # the scheduler withholds it, or has granted more already
        if goes_on(sent_seconds, self.until_seconds):
            if heard_seconds < self.until_seconds:
                self._extend(until, lease_seconds)
            else:
                self._begin(until, lease_seconds)  # for a moment there was none
        elif begins_anew(self._told_seconds, self.until_seconds):
            self._begin(until, lease_seconds)
        else:
            self._offered = max(self._offered, (until, lease_seconds))
            return False
        return True

    def hear(self, opened_seconds: float) -> None:
        """The complete orders of a session that was opened then have been journalled."""
        self._told_seconds = opened_seconds
        until, lease_seconds = self._offered
        if until > self.until_seconds and begins_anew(opened_seconds, self.until_seconds):
            self._begin(until, lease_seconds)

    def lacks_word(self, opened_seconds: float) -> bool:
        """Whether it waits for a word that a session opened then can no longer give."""
        return self._offered != (0.0, 0.0) and not begins_anew(opened_seconds, self.until_seconds)

    def _begin(self, until_seconds: float, lease_seconds: float) -> None:
        self.lapsed_seconds = self.until_seconds
        self._extend(until_seconds, lease_seconds)
        self.on_begin()

    def _extend(self, until_seconds: float, lease_seconds: float) -> None:
        self._offered = (0.0, 0.0)
        self.until_seconds, self.lease_seconds = until_seconds, lease_seconds
        self.on_renewal()

    def is_live(self, now_seconds: float) -> bool:
        """Whether an exclusive task may start now, by boot time."""
        return now_seconds < self.until_seconds

    def stop_begins(self, grace_seconds: float) -> float:
        """Boot time at which a task with so much time to stop is told to, as things stand."""
        return stop_begins(self.until_seconds, self.lease_seconds, grace_seconds)
