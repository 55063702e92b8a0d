"""Which services are to be looked at: now, at a time, or when another one changes.

Pure bookkeeping for the controller. A service has one time at most; asking for an
earlier look keeps the earlier. A look takes a bounded number of services, so that a new
leader's first look at everything does not hold up heartbeats.
"""

from __future__ import annotations

import heapq
from itertools import islice

from homeport.model import ServiceId


class Agenda:
    """What to look at, and when."""

    def __init__(self) -> None:
        """Nothing."""
        self._due: dict[ServiceId, None] = {}
        self._heap: list[tuple[float, ServiceId]] = []
        self._times: dict[ServiceId, float] = {}
        self._awaited: dict[ServiceId, dict[ServiceId, None]] = {}  # dependency -> dependents
        self._awaits: dict[ServiceId, tuple[ServiceId, ...]] = {}

    def __bool__(self) -> bool:
        """Whether something is due now."""
        return bool(self._due)

    def add(self, service: ServiceId) -> None:
        """Look at it now, and at those that wait for it."""
        self._due[service] = None
        self.stir(service)

    def stir(self, service: ServiceId) -> None:
        """Look at those that wait for it, and not at itself."""
        for dependent in self._awaited.get(service, ()):
            self._due[dependent] = None

    def take(self, most: int) -> list[ServiceId]:
        """The next services to look at; their times are forgotten."""
        taken = list(islice(self._due, most))
        for service in taken:
            del self._due[service]
            self._times.pop(service, None)
        return taken

    def at(self, service: ServiceId, when: float) -> None:
        """Look at it at this boot time, or before."""
        known = self._times.get(service)
        if known is None or when < known:
            self._times[service] = when
            heapq.heappush(self._heap, (when, service))

    def awaits(self, service: ServiceId, others: tuple[ServiceId, ...]) -> None:
        """It waits for these services now, and for no others."""
        for other in self._awaits.pop(service, ()):
            dependents = self._awaited[other]
            dependents.pop(service, None)
            if not dependents:
                del self._awaited[other]
        if others:
            self._awaits[service] = tuple(dict.fromkeys(others))
            for other in self._awaits[service]:
                self._awaited.setdefault(other, {})[service] = None

    def advance(self, now: float) -> None:
        """Make due whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            when, service = heapq.heappop(self._heap)
            if self._times.get(service) == when:
                del self._times[service]
                self._due[service] = None

    def next_time(self) -> float | None:
        """The boot time at which something becomes due; None: no time is set."""
        while self._heap:
            when, service = self._heap[0]
            if self._times.get(service) == when:
                return when
            heapq.heappop(self._heap)
        return None
