"""Which ended tasks get a successor, when, and which nodes it should avoid.

The agent restarts a container in place; here is only decided about tasks that ended for
good. Successors of failures come after a back-off of 1, 2, 4… seconds, at most 5 minutes;
how many failed in a row is in the record, so a new leader goes on counting. A node that
could not run a generation is avoided for five minutes, then everything may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, NodeId, Outcome, Service, Task
from homeport.spec import RestartCondition, RestartPolicy, ServiceSpec
from scheduler.cluster.snapshot import Snapshot

BACKOFF_MAX_SECONDS = 300.0
EXCLUDED_SECONDS = 300.0
GOOD_SECONDS = 600.0
"""A task that lasted so long did not fail because of what failed before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from how a slot's last task ended."""

    successor: bool
    reason: str
    failures: int = 0  # of the successor
    not_before: float = 0.0  # boot time


def decide(snapshot: Snapshot, service: Service, spec: ServiceSpec, last: Task | None) -> Verdict:
    """Whether the slot gets another task after `last`, which has ended."""
    if last is None or last.outcome is None:
        return Verdict(successor=True, reason="the slot is empty")
    if last.generation < service.template_generation:
        return Verdict(successor=True, reason=f"generation {service.generation} is to run")
    outcome = last.outcome
    match outcome.state:
        case TaskState.SHUTDOWN if last.desired is not Desired.RUNNING:
            why = f": {last.reason}" if last.cause is Cause.RECONCILER and last.reason else ""
            reason = f"its task was stopped{why}"
            return Verdict(successor=True, reason=reason, failures=last.failures)
        case TaskState.ORPHANED:
            return Verdict(successor=True, reason="the node of its task was removed")
        case TaskState.COMPLETE:
            return _completed(snapshot, service, spec.restart, last, outcome)
        case TaskState.REJECTED:
            return _again(snapshot, last, outcome, "its node could not run it")
        case TaskState.FAILED if not outcome.node_is_cause and _gave_up(spec.restart):
            return Verdict(
                successor=False,
                reason=f"it failed {_times(outcome.attempts)}; its restart policy allows no more",
            )
        case TaskState.FAILED:
            return _again(snapshot, last, outcome, "its task failed")
        case _:
            return _again(snapshot, last, outcome, "somebody else stopped or removed it")


def excluded(
    snapshot: Snapshot, tasks: Iterable[Task], generation: int
) -> tuple[tuple[NodeId, ...], float]:
    """The nodes that a successor should avoid, and the boot time at which the first may be
    tried again (0: none is excluded)."""
    nodes: dict[NodeId, float] = {}
    for task in tasks:
        left = exclusion_seconds(snapshot, task, generation)
        if left > 0:
            nodes[task.node] = max(left, nodes.get(task.node, 0.0))
    if not nodes:
        return (), 0.0
    return tuple(sorted(nodes)), snapshot.now + min(nodes.values())


def exclusion_seconds(snapshot: Snapshot, task: Task, generation: int) -> float:
    """How much longer this task's end speaks against its node; 0: it does not."""
    outcome = task.outcome
    if outcome is None or task.generation != generation:
        return 0.0
    if outcome.state is not TaskState.REJECTED and not outcome.node_is_cause:
        return 0.0
    return max(0.0, EXCLUDED_SECONDS - _age_seconds(snapshot, outcome))


def backoff_seconds(failures: int) -> float:
    """How long to wait before the task that follows so many failures in a row."""
    return min(BACKOFF_MAX_SECONDS, 2.0 ** min(failures - 1, 20)) if failures > 0 else 0.0


def _completed(
    snapshot: Snapshot, service: Service, policy: RestartPolicy, last: Task, outcome: Outcome
) -> Verdict:
    if service.mode.is_job or policy.condition is not RestartCondition.ANY:
        return Verdict(successor=False, reason="it completed")
    return _again(snapshot, last, outcome, "it completed, and is to run for ever")


def _again(snapshot: Snapshot, last: Task, outcome: Outcome, why: str) -> Verdict:
    lasted = (outcome.ended_ms - last.created_ms) / 1000
    failures = 1 if lasted >= GOOD_SECONDS else last.failures + 1
    left = max(0.0, backoff_seconds(failures) - _age_seconds(snapshot, outcome))
    return Verdict(
        successor=True,
        reason=f"{why}: {outcome.message}" if outcome.message else why,
        failures=failures,
        not_before=snapshot.now + left if left else 0.0,
    )


def _gave_up(policy: RestartPolicy) -> bool:
    return policy.max_attempts > 0 or policy.condition is RestartCondition.NONE


def _age_seconds(snapshot: Snapshot, outcome: Outcome) -> float:
    """Records have wall time only; a clock that jumped back must not lengthen a wait."""
    return max(0.0, (snapshot.now_ms - outcome.ended_ms) / 1000)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
