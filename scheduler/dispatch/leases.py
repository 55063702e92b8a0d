"""Whether an answer to a heartbeat renews the node's lease: all that speaks against it.

Only exclusive movable tasks need the lease; everything else on a node runs with or without.
So withholding it is cheap when in doubt, and each function here names one doubt. A newcomer's
mistake: asking who the node is only by its id. Two machines may use one, and each would run
the same exclusive task on a lease of its own.
"""

from __future__ import annotations

from homeport.model import NodeId
from scheduler.cluster.observed import Liveness, Observed
from scheduler.cluster.view import View
from scheduler.config import Timers
from scheduler.dispatch.session import Session
from scheduler.reconcile import revoking
from scheduler.reconcile.revoking import Superseded

RATE_ERROR = 0.01
"""By how much two clocks may differ in rate; see `clocks` for what is done about more."""


class Leases:
    """What has been granted in this epoch, and what has moved meanwhile."""

    def __init__(self, view: View) -> None:
        """For one term of leadership."""
        self.superseded = Superseded(view)
        self._granted: dict[NodeId, tuple[str, float]] = {}  # (boot id, boot time of the end)

    def grant(self, observed: Observed, session: Session, timers: Timers, now: float) -> float:
        """The lease in seconds that goes with an answer now; 0: what there is is not renewed."""
        node = session.node
        if (
            not knows_its_orders(session)
            or not is_trusted(observed.node(node))
            or not self._is_same_machine(session, now)
        ):
            return 0.0
        given_up = [task for task in self.superseded.on(node) if session.has_given_up(task)]
        if revoking.withheld(observed, self.superseded, node, given_up):
            return 0.0
        # It counts from when the agent sent its heartbeat, which was before now.
        until = now + timers.node_lease_seconds * (1 + RATE_ERROR)
        self._granted[node] = (session.boot_id, until)
        return timers.node_lease_seconds

    def other_until(self, node: NodeId, boot: str) -> float:
        """The boot time up to which a machine of another boot than this may have a lease."""
        granted, until = self._granted.get(node, ("", 0.0))
        return until if granted not in ("", boot) else 0.0

    def forget(self, node: NodeId) -> None:
        """The node's record is gone."""
        self._granted.pop(node, None)

    def _is_same_machine(self, session: Session, now: float) -> bool:
        boot, until = self._granted.get(session.node, ("", 0.0))
        return not is_held_by_another(boot, until, session.boot_id, now)


def knows_its_orders(session: Session) -> bool:
    """Whether the agent has acknowledged what is wanted of it since its session began.

    A power cut may have taken the end of a task out of its journal: with a lease it would
    start a task again that runs elsewhere by now.
    """
    return session.is_briefed


def is_trusted(liveness: Liveness) -> bool:
    """Whether nothing speaks against the node's clock, nor against its being one machine."""
    return not liveness.unfenced


def is_held_by_another(granted_boot: str, until: float, boot: str, now: float) -> bool:
    """Whether the machine of another boot may still run on the lease that it was granted.

    Most often that machine is this one before it was restarted; a copied state directory
    looks the same at first.
    """
    return granted_boot not in ("", boot) and now < until
