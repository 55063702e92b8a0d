"""Whether tasks moved, and were replaced, when they might (S21, L10), by what their leader had
heard.

Not the product's own brake is asked: the nodes are counted here again, more simply. A
newcomer's mistake: judging at the commit. A decision may have been on its way for some
seconds, so only what was so for longer than that speaks against it.
"""

from agent.runtime.base import Phase
from homeport.lifecycle import Desired
from homeport.model import Availability, NodeState
from scheduler.cluster import keys
from scheduler.config import Timers

ON_ITS_WAY_SECONDS = 6.0
LATELY_SECONDS = 60.0
AT_ONCE_SECONDS = 29.0
REPLICAS_HELD_SECONDS = 50.0
KNOWN_SECONDS = 20.0
"""What was so for so long on a node that can be heard, its leader knows."""
SUSPECT_SECONDS = (5.0, 10.0, 15.0)
LATE_SECONDS = 1.05
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
    if why := _own_silence(machine, authority.observed.node(node.id)):
        return why
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


def _own_silence(machine, liveness):
    """Whether a leader that was stopped itself has judged the node before it read what it said."""
    if liveness.state is not NodeState.SUSPECT:
        return ""
    silent = liveness.since - liveness.last_seen
    late = min((silent - each for each in SUSPECT_SECONDS if each <= silent), default=0.0)
    ago = (machine.clock.boottime() - liveness.since) / machine.clock.rate
    judged_at = machine.world.loop.now - ago
    if late < LATE_SECONDS or not 0.0 <= judged_at - machine.paused_until < 0.1:
        return ""
    return f"its leader was stopped for {late:.1f} s of the silence"


def too_early(checks, task, epoch):
    """Why a slot was to wait for the node of its last task; empty: it was not (L10)."""
    machine = checks.world.leader_of(epoch)
    earlier = [
        each
        for each in checks.tasks()
        if (each.service, each.slot) == (task.service, task.slot) and each.n < task.n
    ]
    if machine is None or not earlier or any(each.outcome is None for each in earlier):
        return ""
    last = max(earlier, key=lambda each: each.n)
    node = checks.records.get(keys.node(last.node))
    head = checks.records.get(keys.service(task.service))
    if last.node == task.node or node is None or head is None or head.mode.is_global:
        return ""
    if node.availability is not Availability.ACTIVE or checks.changed_lately(node.id):
        return ""
    state = machine.core.control.lead.authority.observed.node(last.node).state
    return f"{node.name} has not been heard" if state is NodeState.UNKNOWN else ""


def is_lost_for_nothing(checks, task):
    """Whether a copy is ended for an older one that is silent, or has not run for long (S9)."""
    older = [
        each
        for each in checks.tasks()
        if (each.service, each.slot) == (task.service, task.slot)
        and each.n < task.n
        and each.outcome is None
        and each.desired is Desired.RUNNING
    ]
    container = checks.container(task)
    if not older:
        return False
    if (leader := checks.world.leading()) is not None:
        liveness = leader.core.control.lead.authority.observed.node(older[-1].node)
        since = leader.clock.boottime() - liveness.since
        if liveness.state in SILENT and since > ON_ITS_WAY_SECONDS:
            return True
    if container is None or container.phase is not Phase.RUNNING:
        return False
    machine = checks.world.machine_of(older[-1].node)
    now = checks.world.loop.now
    ended_at = checks.copies.ended_at.get((machine.name, older[-1].id), now)
    other = checks.container(older[-1])
    return (
        (other is None or other.phase is not Phase.RUNNING)
        and machine.is_at_work
        and machine.engine.is_well
        and now - max(ended_at, machine.started_at, machine.paused_until) > KNOWN_SECONDS
        and now - machine.engine.well_since > KNOWN_SECONDS
    )


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
