"""Leases: keys that go when nobody renews them.

They live in memory only, so that a renewal writes nothing; a backend that outlives its
process deletes leased keys when it opens, because their holder died with the process.
This is the book-keeping; deleting the keys of a lease that ended is the backend's work.
`now` is `Clock.boottime()` in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Lease:
    ttl_seconds: float
    deadline: float
    keys: dict[str, int] = field(default_factory=dict)  # key -> version when it was written


class Leases:
    """Who holds which keys until when."""

    def __init__(self) -> None:
        """No leases yet."""
        self._leases: dict[int, _Lease] = {}
        self._holders: dict[str, int] = {}  # key -> lease
        self._last = 0

    def grant(self, ttl_seconds: float, now: float) -> int:
        """A new lease. Raises ValueError for a time that is not above zero."""
        if not ttl_seconds > 0:
            raise ValueError(f"a lease of {ttl_seconds} s would end before it begins")
        self._last += 1
        self._leases[self._last] = _Lease(ttl_seconds, now + ttl_seconds)
        return self._last

    def keep_alive(self, lease: int, now: float) -> float:
        """Renew; the seconds that it now has, 0 when it is gone or over."""
        if not self.is_alive(lease, now):
            return 0.0
        entry = self._leases[lease]
        entry.deadline = now + entry.ttl_seconds
        return entry.ttl_seconds

    def is_alive(self, lease: int, now: float) -> bool:
        """Whether keys can still be written with this lease."""
        entry = self._leases.get(lease)
        return entry is not None and now < entry.deadline

    def written(self, key: str, version: int, lease: int) -> bool:
        """A key was written (`lease` 0: without one) or deleted (`version` 0).

        False when that lease has gone meanwhile: the key is to be deleted at once.
        """
        if holder := self._holders.pop(key, 0):
            self._leases[holder].keys.pop(key, None)
        if not lease:
            return True
        if lease not in self._leases:
            return False
        self._leases[lease].keys[key] = version
        self._holders[key] = lease
        return True

    def ended(self, now: float) -> tuple[int, ...]:
        """The leases whose time is up, oldest first."""
        return tuple(lease for lease, entry in self._leases.items() if entry.deadline <= now)

    def end(self, lease: int) -> dict[str, int]:
        """Forget a lease; the keys it held, by key, with the version it wrote."""
        entry = self._leases.pop(lease, None)
        if entry is None:
            return {}
        for key in entry.keys:
            del self._holders[key]
        return dict(sorted(entry.keys.items()))

    def next_deadline(self) -> float | None:
        """When the next lease ends unless it is renewed."""
        return min((entry.deadline for entry in self._leases.values()), default=None)
