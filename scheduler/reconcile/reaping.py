"""When the reaper looks, and at what: stacks of which something changed, the rest once an hour.

A stack that has anything left to do stays marked: its draft is written out, or its remains are
forgotten, in as many commits as it takes. What nobody refers to, and what nobody will ask for
again, takes a walk through all records. A newcomer's mistake: dropping the mark of a stack when it
was looked at. Nothing else marks it again.
"""

from __future__ import annotations

from homeport.model import Service
from scheduler.cluster import keys
from scheduler.cluster.changes import Change
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.view import View
from scheduler.reconcile import drafts, reaper
from scheduler.reconcile.answers import Answers
from scheduler.reconcile.orphans import Orphans

HOUR_SECONDS = 3600.0


class Reaping:
    """Keeps count for one term of leadership. Owned by the controller."""

    def __init__(self) -> None:
        """Everything is due."""
        self._answers = Answers()
        self._orphans = Orphans()
        self._stacks: dict[str, None] = {}
        self._not_before = 0.0  # boot time: the last look was not written
        self._hourly_at = 0.0

    @property
    def due_at(self) -> float:
        """The boot time of the next look."""
        return min(self._hourly_at, self._not_before) if self._stacks else self._hourly_at

    def begin(self, view: View) -> None:
        """A new leader looks at all stacks once."""
        for stack in view.stacks():
            self._stacks[stack.name] = None

    def changed(self, key: str, old: keys.Stored | None, new: keys.Stored | None) -> None:
        """A record was written."""
        kind, _, rest = key.partition("/")
        if kind == "stacks":
            self._stacks[rest] = None
        elif kind == "services" and isinstance(old, Service) and not isinstance(new, Service):
            self._stacks[old.stack] = None

    def failed(self, change: Change, again_at: float) -> None:
        """This was not written. `again_at`: the boot time before which nothing is tried again."""
        kind, _, rest = change.key.partition("/")
        if kind in ("stacks", "files", "volumes"):
            self._stacks[rest.partition("/")[0]] = None
        self._not_before = again_at

    def decide(self, snapshot: Snapshot) -> list[Change]:
        """What is written out or forgotten now, if it is time."""
        if snapshot.now < self._not_before:
            return []
        found: list[Change] = []
        stacks, self._stacks = self._stacks, {}
        for stack in stacks:
            if changes := drafts.decide(snapshot, stack) or reaper.stack(snapshot, stack):
                found += changes
                self._stacks[stack] = None  # until there is nothing left to do
        if snapshot.now >= self._hourly_at:
            self._hourly_at = snapshot.now + HOUR_SECONDS
            found += self._answers.decide(snapshot)
            found += self._orphans.decide(snapshot)
        return found
