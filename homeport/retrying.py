"""When a call is tried again, at which scheduler, and after how long: one place for both clients.

Nothing here calls or waits; the clients ask what to do next and do it. A newcomer's mistake:
trying again because it failed. Only what says that the scheduler, and not the request, was at
fault is tried again, and only what changes nothing twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

TRY_SECONDS = 5.0
"""How long one scheduler may take where there are others; it gives up by itself in 4.5 s."""
PAUSE_SECONDS_MAX = 1.0
STORE_AWAY = "STORE_UNAVAILABLE"
"""The reason of a scheduler whose store does not answer; no other one can do better."""
STORE_AWAY_SECONDS = 1.0
"""How long a call is repeated while schedulers say at once that their store is away."""
STORE_REASONS = (STORE_AWAY, "OUTCOME_UNKNOWN")
"""What schedulers say when their store fails under a write."""
STORE_SECONDS = 4.5
"""How long all schedulers together may take to find out that the store is away: one after the
other, each with its own patience, they would take as long as there are many."""


class Failure(Protocol):
    """What is to be known of a call that failed; CallFailed has it."""

    code: grpc.StatusCode
    reason: str  # empty: no scheduler said it, but the way there
    metadata: dict[str, str]


def is_transient(error: Failure) -> bool:
    """Whether the same call may succeed a moment later, or at another scheduler."""
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return True
    # The time of one try was up, or the scheduler stopped while it answered.
    ended = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    return error.code in ended and not error.reason


class Route:
    """Which scheduler is asked next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """At least one address, best first."""
        self.addresses = tuple(addresses)
        self.current = self.addresses[0]

    @property
    def has_others(self) -> bool:
        """Whether there is anybody else to ask."""
        return any(address != self.current for address in self.addresses)

    def turn(self, error: Failure) -> None:
        """Turn to the leader that the error names, else to the next address."""
        leader = error.metadata.get("leader", "")
        if leader and leader != self.current:
            self.current = leader
            return
        place = self.addresses.index(self.current) if self.current in self.addresses else -1
        self.current = self.addresses[(place + 1) % len(self.addresses)]


class Tries:
    """The tries of one unary call that may be repeated."""

    def __init__(self, route: Route, deadline: float, now: float) -> None:
        """`deadline`: of all tries together, by the clock of which `now` is told."""
        self._route = route
        self._deadline = deadline
        self._began = now
        self._count = 0
        self._was_answered = False

    def timeout_seconds(self, now: float) -> float:
        """How long the next try may take."""
        left = max(0.05, self._deadline - now)
        return min(left, TRY_SECONDS) if self._route.has_others else left

    def after(self, error: Failure, now: float) -> float | None:
        """Seconds to wait before the next try; None: this error is the call's."""
        if not is_transient(error):
            return None
        self._count += 1
        self._was_answered = self._was_answered or bool(error.reason)
        self._route.turn(error)
        known = len(self._route.addresses)
        if self._count > 2 * known and not self._was_answered:
            return None  # nobody is there
        if error.reason == STORE_AWAY and now - self._began > STORE_AWAY_SECONDS:
            return None  # that is for its operator to hear, and not for us to wait for
        if error.reason in STORE_REASONS:
            self._deadline = min(self._deadline, self._began + STORE_SECONDS)
        pause = _pause(self._count, known)
        return pause if now + pause < self._deadline else None


class Resumption:
    """The breaks of one stream that goes on behind what was read of it."""

    def __init__(self, route: Route, patience_seconds: float) -> None:
        """For so long, from the first break, somebody is looked for."""
        self._route = route
        self._patience_seconds = patience_seconds
        self._broken_since: float | None = None
        self._count = 0

    def heard(self) -> None:
        """Something was read: it goes on."""
        self._broken_since = None
        self._count = 0

    @property
    def is_first(self) -> bool:
        """Whether the last break was the first one since something was read."""
        return self._count == 1

    def after(self, error: Failure, now: float) -> float | None:
        """Seconds to wait before going on; None: this error ends it."""
        if not is_transient(error):
            return None
        if self._broken_since is None:
            self._broken_since = now
        if now - self._broken_since >= self._patience_seconds:
            return None
        self._count += 1
        self._route.turn(error)
        return _pause(self._count, len(self._route.addresses))


def _pause(tries: int, known: int) -> float:
    """None while somebody was not asked yet; then longer and longer, and never in step."""
    if tries < known:
        return 0.0
    longest: float = min(PAUSE_SECONDS_MAX, 0.1 * 2 ** min(tries - known, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


# ------------------------------------------------------------------ where a stream goes on


class Place(Protocol):
    """How far a stream was read."""

    def request(self) -> Any:
        """What to ask for to go on from here."""
        ...

    def is_new(self, message: Any) -> bool:
        """Take a message in; whether it was not read before."""
        ...


class WatchPlace:
    """In a watch: the last position that was told since the last RESET."""

    def __init__(self, request: Any) -> None:
        """A WatchRequest."""
        self._request = _copied(request)

    def request(self) -> Any:
        """See Place."""
        return _copied(self._request)

    def is_new(self, message: Any) -> bool:
        """See Place."""
        if message.reset:
            self._request.ClearField("after")
        if message.HasField("position"):
            self._request.after.CopyFrom(message.position)
        return True


class LogPlace:
    """In the output of tasks: when the last line of each was written.

    Logs have no numbers. A task's lines of one millisecond are told apart by counting them.
    """

    def __init__(self, request: Any) -> None:
        """A LogsRequest."""
        self._request = request
        self._last: dict[tuple[str, int], tuple[int, int]] = {}  # (at ms, lines of that ms)
        self._known: dict[tuple[str, int], tuple[int, int]] = {}  # what is told again

    def request(self) -> Any:
        """See Place."""
        copy = _copied(self._request)
        self._known = dict(self._last)
        if self._last:
            copy.since_ms = min(at_ms for at_ms, _ in self._last.values())
            copy.tail = -1
        return copy

    def is_new(self, message: Any) -> bool:
        """See Place."""
        at_ms = message.output.at_ms
        if not at_ms:
            return True
        key = (message.task, message.output.stream)
        if key in self._known:
            known_ms, lines = self._known[key]
            if at_ms < known_ms:
                return False
            if at_ms == known_ms and lines:
                self._known[key] = (known_ms, lines - 1)
                return False
            del self._known[key]
        last_ms, lines = self._last.get(key, (0, 0))
        if at_ms >= last_ms:
            self._last[key] = (at_ms, lines + 1 if at_ms == last_ms else 1)
        return True


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
