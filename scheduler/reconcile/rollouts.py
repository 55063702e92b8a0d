"""Replace tasks of an old generation, a few slots at a time, and stop when one fails.

Stop-first: an old task is stopped, its slot filled by `scheduling`, and the next old task
is not touched before the new one is healthy or has run for `monitor_ms`. A spec that asks
for start-first is rolled out stop-first too, for now. When a new task has run for long
enough, `proofs` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, NodeState, Rollout, RolloutState, Service, Task
from homeport.spec import FailureAction, ServiceSpec, UpdateConfig
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile import nodes, proofs
from scheduler.reconcile.proofs import Progress
from scheduler.reconcile.slots import Slot


def decide(
    snapshot: Snapshot, service: Service, spec: ServiceSpec, slots: Mapping[int, Slot]
) -> Progress:
    """The next steps on the way to the service's template generation. `slots`: wanted ones."""
    record = snapshot.stored.rollout(service.id)
    is_current = record is not None and record.generation == service.template_generation
    old = [
        task
        for number in sorted(slots)
        for task in slots[number].wanted
        if task.generation < service.template_generation
    ]
    progress = Progress()
    if is_current and record is not None and record.state is RolloutState.PAUSED:
        return progress
    # Also the rollout of an earlier generation comes to an end, when the last slot that it had
    # to replace was given the newest generation.
    if not old and (record is None or record.state is RolloutState.COMPLETED):
        return progress
    look = _Look(snapshot, service, spec.update, progress)
    failed = look.failed(slots)
    if len(failed) > spec.update.max_failure_ratio * max(1, len(slots)) and (
        spec.update.failure_action is not FailureAction.CONTINUE
    ):
        progress.changes.append(look.put(record, RolloutState.PAUSED, "; ".join(failed.values())))
        return progress
    busy = look.busy(slots, failed)
    if not old and not busy:
        progress.changes.append(look.put(record, RolloutState.COMPLETED, ""))
        return progress
    if old and not (is_current and record is not None and record.state is RolloutState.UPDATING):
        progress.changes.append(look.put(None, RolloutState.UPDATING, ""))
    for task in look.next_stops(old, slots, busy):
        reason = f"generation {service.generation} replaces generation {task.generation}"
        ended = replace(task, desired=Desired.SHUTDOWN, cause=Cause.OPERATOR, reason=reason)
        progress.changes.append(Put(ended, snapshot.stored.version(keys.task(task.id)), reason))
    return progress


@dataclass(frozen=True, slots=True)
class _Look:
    """The answers about one service at one moment."""

    snapshot: Snapshot
    service: Service
    update: UpdateConfig
    progress: Progress

    def failed(self, slots: Mapping[int, Slot]) -> dict[int, str]:
        """Slots whose new task failed, with the reason."""
        found: dict[int, str] = {}
        for number in sorted(slots):
            last = slots[number].last
            if last is not None and last.generation >= self.service.template_generation:
                why = self._failure(last)
                if why:
                    found[number] = f"slot {number}: {why}"
        return found

    def _failure(self, task: Task) -> str:
        if task.outcome is not None:
            outcome = task.outcome
            if outcome.state is TaskState.FAILED and task.id not in self.snapshot.observed.proven:
                return f"the new task failed: {outcome.message or f'exit {outcome.exit_code}'}"
            # One node's refusal sends the task elsewhere; the second is the spec's fault.
            if outcome.state is TaskState.REJECTED and (task.pinned or task.failures > 0):
                return f"nodes cannot run the new task: {outcome.message}"
            waiting = self.snapshot.observed.waiting.get(task.service, {}).get(task.slot)
            if outcome.state is TaskState.REJECTED and waiting is not None and waiting.refusals:
                return f"its node cannot run it and no other will do: {outcome.message}"
            return ""
        return proofs.trouble(self.snapshot, task)

    def busy(self, slots: Mapping[int, Slot], failed: Mapping[int, str]) -> set[int]:
        """Slots that are on their way from the old generation to the new one."""
        return {
            number for number, slot in slots.items() if number not in failed and self._is_busy(slot)
        }

    def _is_busy(self, slot: Slot) -> bool:
        if slot.wanted:
            newest = slot.wanted[-1]
            if newest.generation < self.service.template_generation:
                return False
            # A node that is down says nothing for long: it holds up nobody.
            return not nodes.is_down(self.snapshot, newest) and not proofs.is_proven(
                self.snapshot, newest, self.update.monitor_ms, self.progress
            )
        if slot.stopping:
            return not all(nodes.is_down(self.snapshot, task) for task in slot.stopping)
        last = slot.last
        if last is None or last.outcome is None:
            return False
        if last.generation < self.service.template_generation:
            return last.outcome.state is TaskState.SHUTDOWN
        # One node would not have the new task: another is being tried, and until that one
        # has answered no further slot is given up for it.
        return last.outcome.state is TaskState.REJECTED

    def next_stops(self, old: list[Task], slots: Mapping[int, Slot], busy: set[int]) -> list[Task]:
        """The old tasks to stop now: first those that do not run well, then by slot."""
        room = (self.update.parallelism or len(slots)) - len(busy)
        proven = self.snapshot.observed.proven
        last_proven = max(
            (
                proven.get(task.id, self.snapshot.now)
                for slot in slots.values()
                for task in slot.wanted
                if task.id in proven or task.id in self.progress.proven
            ),
            default=0.0,
        )
        next_at = last_proven + self.update.delay_ms / 1000
        if last_proven and self.update.delay_ms and next_at > self.snapshot.now:
            self.progress.wake(next_at)
            return []
        reachable = [task for task in old if self._is_reachable(task)]
        reachable.sort(key=lambda task: (runs_well(self.snapshot, task), task.slot, task.n))
        return reachable[: max(0, room)]

    def _is_reachable(self, task: Task) -> bool:
        """Whether what is observed of the task can be relied upon, and it can be told to stop."""
        liveness = self.snapshot.observed.node(task.node)
        return liveness.reported and liveness.state is NodeState.READY

    def put(self, record: Rollout | None, state: RolloutState, message: str) -> Change:
        """The rollout's record in this state."""
        version = self.snapshot.stored.version(keys.rollout(self.service.id))
        base = record or Rollout(
            service=self.service.id,
            generation=self.service.template_generation,
            started_ms=self.snapshot.now_ms,
        )
        if base.generation != self.service.template_generation:
            base = replace(
                base,
                generation=self.service.template_generation,
                started_ms=self.snapshot.now_ms,
            )
        finished = 0 if state is RolloutState.UPDATING else self.snapshot.now_ms
        value = replace(base, state=state, message=message, finished_ms=finished)
        words = {
            RolloutState.UPDATING: f"generation {self.service.generation} is being rolled out",
            RolloutState.PAUSED: f"the rollout stopped: {message}",
            RolloutState.COMPLETED: f"generation {value.generation} is rolled out",
        }
        return Put(value, version, words[state])


def runs_well(snapshot: Snapshot, task: Task) -> bool:
    """Whether the task runs well, so that replacing it costs something."""
    status = snapshot.observed.status(task.id)
    return status is not None and status.state is TaskState.RUNNING
