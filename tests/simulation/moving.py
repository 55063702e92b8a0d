"""Whether tasks of silent nodes moved when they might (S21), by what their leader had heard.

Not the product's own brake is asked: the nodes are counted here again, more simply. A
newcomer's mistake: judging at the commit. A decision may have been on its way for some
seconds, so only what was so for longer than that speaks against it.
"""

from homeport.lifecycle import Desired
from homeport.model import Availability, NodeState
from scheduler.cluster import keys
from scheduler.config import Timers

ON_ITS_WAY_SECONDS = 6.0
LATELY_SECONDS = 60.0
AT_ONCE_SECONDS = 29.0
REPLICAS_HELD_SECONDS = 50.0
SILENT = (NodeState.SUSPECT, NodeState.DOWN)


def objection(checks, task, epoch):
    """What speaks against this new task; empty: nothing."""
    old = _left_behind(checks, task)
    machine = checks.world.leader_of(epoch)
    if old is None or machine is None:
        return ""
    authority = machine.core.control.lead.authority
    now = machine.clock.boottime()
    node = checks.records.get(keys.node(old.node))
    if node is None or node.lost_ms:
        return ""
    led = now - machine.led_since
    if led < Timers().node_lease_seconds:
        return f"its leader has led for {led:.1f} s only"
    silent = []
    for each in checks.nodes():
        liveness = authority.observed.node(each.id)
        is_silent = liveness.state in SILENT and now - liveness.since > ON_ITS_WAY_SECONDS
        if is_silent and not each.lost_ms and not liveness.leaving and liveness.last_seen_ms:
            silent.append(liveness)
    silent = [each for each in silent if each.last_seen > now - LATELY_SECONDS]
    if len(silent) < 2:
        return ""
    if max(e.last_seen for e in silent) - min(e.last_seen for e in silent) > AT_ONCE_SECONDS:
        return ""
    newest = max(each.since for each in silent)
    if not task.exclusive and now - newest > REPLICAS_HELD_SECONDS:
        return ""
    return f"{len(silent)} of {len(checks.nodes())} nodes are silent"


def _left_behind(checks, task):
    """The task on a silent node for which this one stands in."""
    for old in checks.tasks():
        if (
            (old.service, old.slot) == (task.service, task.slot)
            and old.n < task.n
            and old.outcome is None
            and old.desired is Desired.RUNNING
        ):
            node = checks.records.get(keys.node(old.node))
            if node is not None and node.availability is not Availability.DRAIN:
                return old
    return None
