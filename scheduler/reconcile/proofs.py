"""Whether a new task has shown that it runs, before the old one is given up for it.

A rollout and a move ask the same: healthy, or running for as long as the spec's monitor time.
A newcomer's mistake: reading that time off the agent's clock. What counts is what this leader
has seen, so a new leader watches once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeport.lifecycle import TaskState
from homeport.model import Health, Task, TaskId
from scheduler.cluster.changes import Change
from scheduler.cluster.snapshot import Snapshot


@dataclass(slots=True)
class Progress:
    """What a look at new tasks leads to."""

    changes: list[Change] = field(default_factory=list)
    running: dict[TaskId, int] = field(default_factory=dict)  # seen running first: attempt
    proven: list[TaskId] = field(default_factory=list)  # ran or was healthy for long enough
    wake_at: float = 0.0  # boot time of the next look; 0: when something changes

    def wake(self, when: float) -> None:
        """Look again at `when`, if not before."""
        if not self.wake_at or when < self.wake_at:
            self.wake_at = when


def is_proven(snapshot: Snapshot, task: Task, monitor_ms: int, progress: Progress) -> bool:
    """Whether the task has shown that it runs; what was seen of it first goes to `progress`."""
    observed = snapshot.observed
    if task.id in observed.proven:
        return True
    status = observed.status(task.id)
    if status is None or status.state is not TaskState.RUNNING:
        return False
    if status.health is Health.HEALTHY:
        progress.proven.append(task.id)
        return True
    if status.health is not Health.NONE:
        return False
    seen = observed.running.get(task.id)
    if seen is None or seen[0] != status.attempt:
        progress.running[task.id] = status.attempt
        seen = (status.attempt, snapshot.now)
    done_at = seen[1] + monitor_ms / 1000
    if done_at <= snapshot.now:
        progress.proven.append(task.id)
        return True
    progress.wake(done_at)
    return False


def trouble(snapshot: Snapshot, task: Task) -> str:
    """What speaks against a new task that was not proven before, as a clause; empty: nothing."""
    status = snapshot.observed.status(task.id)
    if status is None or task.id in snapshot.observed.proven:
        return ""
    if status.health is Health.UNHEALTHY:
        return "the new task is unhealthy"
    if status.state is TaskState.BACKOFF or status.attempt > 1:
        return f"the new task ended soon after its start: {status.message or 'no message'}"
    return ""
