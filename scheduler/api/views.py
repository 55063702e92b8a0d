"""Stored and observed values as the messages that users see.

One `Views` is made for one look at a snapshot and dropped with it. A newcomer's mistake:
showing a task of a node that has not reported in this epoch as if its state were known.
What is shown then is the last known, and says so (`unknown`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from homeport import codec
from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import (
    Availability,
    Event,
    Health,
    Node,
    NodeId,
    NodeState,
    Service,
    ServiceId,
    Stack,
    Task,
    TaskId,
    TaskStatus,
    TaskUsage,
    task_id,
)
from homeport.spec import Resources
from homeport.v1 import control_pb2, types_pb2
from scheduler.api import admission
from scheduler.cluster.observed import Refusal, Waiting, is_ready
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import words
from scheduler.placement.remedy import Remedy
from scheduler.reconcile import globals as globals_, nodes, preemption
from scheduler.reconcile.planning import Planned
from scheduler.reconcile.standings import NodeExplanation


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of `ps`: a task, or a slot that waits (its n is 0)."""

    service: Service
    slot: int
    n: int
    what: Task | Waiting


class Views:
    """Messages for one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Valid as long as the snapshot is: until the next await."""
        self.snapshot = snapshot
        self._stored = snapshot.stored
        self._observed = snapshot.observed
        self._usages: dict[NodeId, dict[TaskId, TaskUsage]] = {}

    # ------------------------------------------------------------ tasks

    def entries_of(self, service: Service, *, all_tasks: bool) -> list[Entry]:
        """A service's tasks and waiting slots, by (slot, n); the ended ones only for `all_tasks`.

        Of a slot where nothing runs or waits, the last task is told also when it has ended.
        """
        waiting = self._observed.waiting.get(service.id, {})
        tasks = self._stored.tasks_of_service(service.id)
        newest = {task.slot: task.n for task in tasks}
        found: list[Entry] = [Entry(service, slot, 0, each) for slot, each in waiting.items()]
        for task in tasks:
            is_last_word = (
                newest[task.slot] == task.n
                and task.slot not in waiting
                and task.desired is Desired.RUNNING
            )
            if all_tasks or is_last_word or not self._has_ended(task):
                found.append(Entry(service, task.slot, task.n, task))
        found.sort(key=lambda entry: (entry.slot, entry.n))
        return found

    def entry(self, entry: Entry) -> control_pb2.TaskView:
        """A task or a waiting slot."""
        if isinstance(entry.what, Waiting):
            return self.waiting(entry.service, entry.what)
        return self.task(entry.what)

    def task(self, task: Task) -> control_pb2.TaskView:
        """A recorded task."""
        service = self._stored.service(task.service)
        view = self._new_view(service, task.service, task.slot)
        codec.fill(view.task, task)
        codec.fill(view.status, self.status(task))
        usage = self._usage(task)
        if usage is not None:
            codec.fill(view.usage, usage)
        view.node_name = self.node_name(task.node)
        edition = self._stored.spec(task.service, task.generation)
        if edition is not None:
            view.image = edition.spec.container.image
        view.unknown = task.outcome is None and not self._is_known(task)
        if task.outcome is None and (why := nodes.waits_for_its_node(self.snapshot, task)):
            view.status.message = why
        return view

    def waiting(self, service: Service, waiting: Waiting) -> control_pb2.TaskView:
        """A slot that waits for a node, as a task that is PENDING."""
        view = self._new_view(service, waiting.service, waiting.slot)
        view.task.service = waiting.service
        view.task.slot = waiting.slot
        view.task.generation = waiting.generation
        view.task.desired = types_pb2.DESIRED_RUNNING
        view.task.created_ms = waiting.since_ms
        view.task.reason = waiting.reason
        view.status.task = task_id(waiting.service, waiting.slot, 0)
        view.status.state = types_pb2.TASK_STATE_PENDING
        view.status.changed_ms = waiting.since_ms
        view.status.message = waiting.reason
        edition = self._stored.spec(waiting.service, waiting.generation)
        if edition is not None:
            view.image = edition.spec.container.image
        view.objections.extend(self.objection(each) for each in waiting.refusals)
        return view

    def status(self, task: Task) -> TaskStatus:
        """What was last seen of a task; where nothing was, what its record says."""
        seen = self._observed.status(task.id)
        if seen is not None:
            return seen
        outcome = task.outcome
        if outcome is None:
            return TaskStatus(task=task.id, changed_ms=task.created_ms)
        return TaskStatus(
            task=task.id,
            attempt=max(1, outcome.attempts),
            state=outcome.state,
            exit_code=outcome.exit_code,
            oom_killed=outcome.oom_killed,
            message=outcome.message,
            changed_ms=outcome.ended_ms,
            node_is_cause=outcome.node_is_cause,
        )

    def _new_view(
        self, service: Service | None, service_id: ServiceId, slot: int
    ) -> control_pb2.TaskView:
        name = service.name if service is not None else str(service_id)
        return control_pb2.TaskView(
            stack=service.stack if service is not None else "",
            service_name=name,
            name=self.slot_name(service, slot) if service is not None else f"{name}.{slot}",
        )

    def slot_name(self, service: Service, slot: int) -> str:
        """How people name a slot: web.1, or web.pi4 for a global service."""
        if service.mode.is_global:
            for node in self._stored.nodes():
                if node.number == slot:
                    return f"{service.name}.{node.name}"
        return f"{service.name}.{slot}"

    def _is_known(self, task: Task) -> bool:
        return self._observed.knows(task.node) and not self._is_on_down_node(task)

    def _is_on_down_node(self, task: Task) -> bool:
        """What it was last seen doing says nothing any more."""
        return self._observed.node(task.node).state is NodeState.DOWN

    def _has_ended(self, task: Task) -> bool:
        seen = self._observed.status(task.id)
        return task.outcome is not None or (seen is not None and seen.state in TERMINAL)

    def _usage(self, task: Task) -> TaskUsage | None:
        usages = self._usages.get(task.node)
        if usages is None:
            status = self._observed.node(task.node).status
            usages = self._usages[task.node] = {usage.task: usage for usage in status.tasks}
        return usages.get(task.id)

    # ------------------------------------------------------------ services

    def service(self, service: Service) -> control_pb2.ServiceView:
        """A service with counts over its tasks."""
        view = control_pb2.ServiceView(desired=self.desired(service))
        codec.fill(view.service, service)
        edition = self._stored.spec(service.id, service.generation)
        if edition is not None:
            codec.fill(view.spec, edition.spec)
        for task in self._stored.tasks_of_service(service.id):
            status = self.status(task)
            if status.state is not TaskState.RUNNING or self._is_on_down_node(task):
                continue
            view.running += 1
            view.healthy += is_ready(status)
            view.updated += task.generation >= service.template_generation
        view.waiting = len(self._observed.waiting.get(service.id, {}))
        rollout = self._stored.rollout(service.id)
        if rollout is not None:
            codec.fill(view.rollout, rollout)
        return view

    def desired(self, service: Service) -> int:
        """How many tasks the service is meant to have now."""
        if service.removing:
            return 0
        if not service.mode.is_global:
            return service.replicas
        tasks = self._stored.tasks_of_service(service.id)
        wanted = {task.slot for task in tasks if task.desired is Desired.RUNNING}
        edition = self._stored.spec(service.id, service.generation)
        driver = edition.spec.driver.name if edition is not None else ""
        # Also nodes that the reconciler has not looked at yet: a service that was applied
        # a moment ago is not complete because it has no task.
        to_come = {
            number
            for number, node in globals_.eligible(self.snapshot, service).items()
            if node.availability is Availability.ACTIVE
            and driver in node.inventory.drivers
            and self._observed.node(node.id).state is NodeState.READY
        }
        return len(wanted | to_come | set(self._observed.waiting.get(service.id, {})))

    # ------------------------------------------------------------ nodes

    def node(self, node: Node) -> control_pb2.NodeView:
        """A node with what is known of it."""
        seen = self._observed.node(node.id)
        tasks = [task for task in self._stored.tasks_of_node(node.id) if not self._has_ended(task)]
        view = control_pb2.NodeView(
            state=types_pb2.NodeState.ValueType(seen.state.value),
            tasks=len(tasks),
            last_seen_ms=seen.last_seen_ms,
        )
        codec.fill(view.node, node)
        codec.fill(view.status, seen.status)
        if seen.unfenced:
            view.status.conditions.add(name="fencing", ok=False, message=seen.unfenced)
        codec.fill(view.reserved, self._reserved(tasks))
        if seen.session:
            began_ms = self.snapshot.now_ms - round((self.snapshot.now - seen.since) * 1000)
            began = datetime.datetime.fromtimestamp(began_ms / 1000, datetime.UTC)
            view.session_since = began.isoformat(timespec="seconds")
        return view

    def _reserved(self, tasks: Iterable[Task]) -> Resources:
        cpu = memory = pids = disk = 0
        for task in tasks:
            edition = self._stored.spec(task.service, task.generation)
            if edition is not None:
                wanted = edition.spec.reservations
                cpu += wanted.cpu_millis
                memory += wanted.memory_bytes
                pids += wanted.pids
                disk += wanted.disk_bytes
        return Resources(cpu_millis=cpu, memory_bytes=memory, pids=pids, disk_bytes=disk)

    def node_name(self, node: NodeId) -> str:
        """The node's name; its id where it is gone."""
        stored = self._stored.node(node)
        return stored.name if stored is not None else str(node)

    # ------------------------------------------------------------ the rest

    def stack(self, stack: Stack) -> types_pb2.Stack:
        """A stack."""
        message: types_pb2.Stack = codec.to_message(stack)
        return message

    def event(self, event: Event) -> types_pb2.Event:
        """An event."""
        message: types_pb2.Event = codec.to_message(event)
        return message

    def objection(self, refusal: Refusal) -> control_pb2.Objection:
        """Why not on a node, in words."""
        name = self.node_name(refusal.node)
        return control_pb2.Objection(
            node=name,
            rule=refusal.rule,
            needed=refusal.needed,
            had=refusal.had,
            message=words.sentence(refusal, name),
        )

    def standing(self, node: NodeExplanation) -> control_pb2.NodeExplanation:
        """What speaks for and against a node."""
        message = control_pb2.NodeExplanation(
            node=node.name,
            chosen=node.chosen,
            objections=[self.objection(each) for each in node.refusals],
            total=node.total,
        )
        for name, value in node.scores:
            message.scores.add(name=name, value=value)
        return message

    def planned(self, planned: Planned) -> control_pb2.PlannedTask:
        """Where a task would go."""
        service = self._stored.service(planned.service)
        return control_pb2.PlannedTask(
            service=service.name if service is not None else str(planned.service),
            slot=planned.slot,
            node=self.node_name(planned.node) if planned.node is not None else "",
            reason=planned.reason,
            objections=[self.objection(each) for each in planned.refusals],
            stack=service.stack if service is not None else "",
            remedies=[remedy(each) for each in planned.remedies],
            nodes=[self.standing(each) for each in planned.nodes],
            ends=[self._task_name(each) for each in planned.ends],
        )

    def _task_name(self, task: TaskId) -> str:
        service, slot, _ = task.rsplit("/", 2)
        return preemption.shown(self.snapshot, ServiceId(service), int(slot))


def service_change(outcome: admission.ServiceOutcome) -> control_pb2.ServiceChange:
    """What happens to a service."""
    change = control_pb2.ServiceChange(
        service=outcome.service,
        action=control_pb2.ServiceChange.Action.ValueType(outcome.action.value),
        replaced_tasks=outcome.replaced_tasks,
    )
    for field in outcome.fields:
        change.fields.add(path=field.path, old=field.old, new=field.new)
    return change


def remedy(remedy: Remedy) -> control_pb2.Remedy:
    """What would make a waiting task fit."""
    return control_pb2.Remedy(
        kind=control_pb2.Remedy.Kind.ValueType(remedy.kind.value),
        node=remedy.node,
        message=remedy.message,
        commands=remedy.commands,
    )


def health_word(status: TaskStatus) -> str:
    """RUNNING, and how well, for sentences."""
    word = status.state.name.lower()
    return word if status.health is Health.NONE else f"{word}, {status.health.name.lower()}"
