"""The remembered answers to requests: when they are forgotten.

A record says by the wall clock of its writer when it was made, and that clock may have been
off, as may ours be: by a day, or by the decades that a machine without a battery begins with.
A newcomer's mistake: believing two clocks. However old an answer seems, whoever leads forgets
none that it has not known for half an hour of its own boot time, which is longer than anybody
tries again.
"""

from __future__ import annotations

from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Delete
from scheduler.cluster.snapshot import Snapshot

KEPT_MS = 24 * 3600 * 1000
KNOWN_SECONDS = 1800.0


class Answers:
    """Remembers what was here at the look before, for one term. Owned by the controller."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._revision = 0  # every record up to here was here at the last look
        self._looked = 0.0  # boot time of that look

    def decide(self, snapshot: Snapshot) -> list[Change]:
        """Forget those that nobody will ask for again. Walks all of them: for once an hour."""
        if self._revision and snapshot.now - self._looked < KNOWN_SECONDS:
            return []
        stored = snapshot.stored
        known, self._looked = self._revision, snapshot.now
        changes: list[Change] = []
        for record in stored.requests():
            key = keys.request(record.request_id)
            version = stored.version(key)
            self._revision = max(self._revision, version)
            if version <= known and snapshot.now_ms - record.created_ms > KEPT_MS:
                changes.append(Delete(key, version, "a day has passed"))
        return changes
