"""What a decider is given: stored objects, observed values and the time, as one view.

Valid until the next await: deciders are synchronous, so nobody sees it change. `over`
gives the view with proposed changes laid over it, for plan, explain and what-if.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.cluster.changes import Change
from scheduler.cluster.observed import Observed
from scheduler.cluster.overlay import overlay
from scheduler.cluster.view import View


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as this leader knows it now."""

    stored: View
    observed: Observed
    now: float  # seconds of boot time
    now_ms: int  # wall clock, for records and people only

    def over(self, changes: list[Change]) -> Snapshot:
        """The same moment, with `changes` made."""
        return Snapshot(overlay(self.stored, changes), self.observed, self.now, self.now_ms)
