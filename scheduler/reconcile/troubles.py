"""How soon a service is looked at again of which a look came to nothing.

It could not be decided about, its slots could not be placed, or a change of it was not written.
The pause doubles with each trouble until it is decided about once more. A newcomer's mistake:
taking a conflict for trouble. Somebody was faster, and the mirror is about to show what they wrote.
"""

from __future__ import annotations

from homeport.model import ServiceId

CONFLICT_SECONDS = 0.02
TROUBLE_SECONDS = 1.0
TROUBLE_MAX_SECONDS = 60.0


class Troubles:
    """Keeps count for one term of leadership. Owned by the controller."""

    def __init__(self) -> None:
        """There were none."""
        self._counts: dict[ServiceId, int] = {}

    def are_over(self, service: ServiceId) -> None:
        """It was decided about."""
        self._counts.pop(service, None)

    def conflict(self, service: ServiceId) -> float:
        """A change of it met another's; in how many seconds to look again."""
        if service in self._counts:
            return self.trouble(service)
        self._counts[service] = 0
        return CONFLICT_SECONDS

    def trouble(self, service: ServiceId) -> float:
        """A look came to nothing; in how many seconds to look again."""
        count = self._counts.get(service, 0)
        self._counts[service] = count + 1
        return min(TROUBLE_MAX_SECONDS, TROUBLE_SECONDS * 2.0 ** min(count, 10))
