"""Which scheduler to try next, and how long to wait first: the decider of `agent.session`.

In turn, the first retry at once, each later one after twice the pause. A newcomer's
mistake: pausing before the leader whom another scheduler has named; there we go at once,
however many tries came to nothing while there was none. Only a leader who names another in
turn is not believed without a pause, or two followers could send us to and fro.
"""

from __future__ import annotations

from collections.abc import Sequence

RETRY_SECONDS = 0.2
"""Pause before the second retry; the first comes at once, each later one doubles it."""
RETRY_MAX_SECONDS = 2.0
"""A node lease allows three seconds to find a new leader (`scheduler.config`), jitter included."""
SETTLED_SECONDS = 10.0
"""A session that lasted so long was a good one: the next retry comes at once again."""


class Dialing:
    """Remembers whose turn it is."""

    def __init__(self) -> None:
        """The first scheduler's."""
        self.failures = 0
        """Tries in a row that came to nothing, or not to much."""
        self._turn = 0
        self._leader = ""
        self._is_at_named = False
        self._tried = ""

    def next(self, addresses: Sequence[str]) -> str:
        """The address to try now."""
        leader, self._leader = self._leader, ""
        was_named, self._is_at_named = self._is_at_named, bool(leader)
        if leader:
            self._tried = leader
            return leader
        address = addresses[self._turn % len(addresses)]
        self._turn += 1
        if was_named and address == self._tried and len(addresses) > 1:
            # Out of its turn it was tried a moment ago; a frozen one would take as long again.
            address = addresses[self._turn % len(addresses)]
            self._turn += 1
        self._tried = address
        return address

    def answered(self) -> None:
        """The one that was tried last answered: it is the best first guess for the next session."""
        self._turn = max(0, self._turn - 1)

    def ended(
        self, lasted_seconds: float, *, pause_seconds: float, leader: str
    ) -> tuple[float, float]:
        """A try is over: (pause, back-off to be jittered) in seconds; the longer one counts.

        `pause_seconds` is what the scheduler asked for; `leader` whom it named instead of itself.
        """
        self._leader = leader
        if lasted_seconds >= SETTLED_SECONDS:
            self.failures = 0
        self.failures += 1
        back_off = 0.0
        if self.failures > 1 and (not leader or self._is_at_named):
            back_off = min(RETRY_MAX_SECONDS, RETRY_SECONDS * 2.0 ** min(self.failures - 2, 10))
            # Who let us wait for an answer that never came has been left alone as long.
            back_off = max(0.0, back_off - lasted_seconds)
        return (0.0 if leader else pause_seconds), back_off
