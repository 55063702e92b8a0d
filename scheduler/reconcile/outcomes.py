"""Record how tasks ended: the first thing about a service that is written.

An outcome is written once and never changed. REMOVED is not an end worth recording for a
task that was to be removed: its record goes. Whoever wanted it running is told that
somebody else removed it.
"""

from __future__ import annotations

from dataclasses import replace

from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import Outcome, ServiceId, Task, TaskStatus
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot

_WORDS = {
    TaskState.COMPLETE: "it completed",
    TaskState.SHUTDOWN: "it was stopped",
    TaskState.FAILED: "it failed",
    TaskState.REJECTED: "its node could not run it",
    TaskState.ORPHANED: "its node is gone",
    TaskState.REMOVED: "its container was removed by somebody else",
}


def decide(snapshot: Snapshot, service: ServiceId) -> list[Change]:
    """The outcome of each task that has ended, or whose node was removed."""
    changes: list[Change] = []
    for task in snapshot.stored.tasks_of_service(service):
        if task.outcome is not None:
            continue
        status = snapshot.observed.status(task.id)
        if speaks_for_another(snapshot, task):
            continue
        if snapshot.stored.version(keys.node(task.node)) == 0:
            outcome = _orphaned(snapshot, task, status)
        elif status is not None and status.state in TERMINAL and task.desired != Desired.REMOVED:
            outcome = _ended(snapshot, status)
        else:
            continue
        said = _WORDS[outcome.state]
        reason = f"{said}: {outcome.message}" if outcome.message else said
        version = snapshot.stored.version(keys.task(task.id))
        changes.append(Put(replace(task, outcome=outcome), version, reason))
    return changes


def speaks_for_another(snapshot: Snapshot, task: Task) -> bool:
    """Whether another machine may still run this exclusive task on its lease, whatever the one
    says that answers under the node's identity now: the state directory may have been copied."""
    return task.needs_lease and snapshot.now < snapshot.observed.node(task.node).other_until


def wake_at(snapshot: Snapshot, service: ServiceId) -> float:
    """Boot time from which what nodes say of exclusive tasks is believed; 0: it is already."""
    times = [
        snapshot.observed.node(task.node).other_until
        for task in snapshot.stored.tasks_of_service(service)
        # Of a removed one, whose outcome may be known, it is that its container is gone.
        if (task.outcome is None or task.desired is Desired.REMOVED)
        and speaks_for_another(snapshot, task)
    ]
    return min(times, default=0.0)


def _ended(snapshot: Snapshot, status: TaskStatus) -> Outcome:
    return Outcome(
        state=status.state,
        exit_code=status.exit_code,
        oom_killed=status.oom_killed,
        message=status.message,
        ended_ms=snapshot.now_ms,
        attempts=status.attempt,
        node_is_cause=status.node_is_cause,
    )


def _orphaned(snapshot: Snapshot, task: Task, status: TaskStatus | None) -> Outcome:
    return Outcome(
        state=TaskState.ORPHANED,
        message=f"node {task.node} was removed from the cluster",
        ended_ms=snapshot.now_ms,
        attempts=status.attempt if status is not None else 1,
    )
