"""Why things are as they are, in sentences and as structure.

The engine that places is the one that explains, so the answer is never a guess about it.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeport.lifecycle import TaskState
from homeport.model import Node, NodeState, RolloutState, Service
from homeport.v1 import control_pb2
from scheduler.api import selection
from scheduler.api.errors import NotFound
from scheduler.api.views import Views, health_word, remedy
from scheduler.reconcile import planning

SLOTS_MAX = 20
"""Slots of a service that are explained at once."""


def explain(views: Views, stack: str, given: str) -> control_pb2.ExplainResponse:
    """Explain a slot, task, service or node. Raises NotFound."""
    view = views.snapshot.stored
    try:
        service, slot = selection.slot(view, stack, given)
    except NotFound:
        node = view.node_named(given) if not stack else None
        if node is None:
            raise
        return control_pb2.ExplainResponse(lines=_node(views, node))
    response = control_pb2.ExplainResponse()
    slots = [slot] if slot is not None else _slots(views, service)
    if slot is None:
        response.lines.extend(_service(views, service))
    if len(slots) > SLOTS_MAX:
        waiting = _waiting(views, service)
        slots.sort(key=lambda each: (each not in waiting, each))  # what waits is asked about
        response.lines.append(f"the first {SLOTS_MAX} of its {len(slots)} slots:")
    for explanation in planning.explain(views.snapshot, service.id, slots[:SLOTS_MAX]):
        response.lines.append(_slot(views, service, explanation))
        response.tasks.append(_task(views, service, explanation))
    return response


def _slots(views: Views, service: Service) -> list[int]:
    tasks = views.snapshot.stored.tasks_of_service(service.id)
    return sorted({task.slot for task in tasks} | _waiting(views, service))


def _waiting(views: Views, service: Service) -> set[int]:
    return set(views.snapshot.observed.waiting.get(service.id, {}))


def _service(views: Views, service: Service) -> Iterator[str]:
    seen, name = views.service(service), f"{service.stack}/{service.name}"
    if service.removing:
        yield f"{name} is being removed; {seen.running} of its tasks still run"
    else:
        yield f"{name} is to have {seen.desired} tasks; {seen.running} run"
    if seen.waiting:
        yield f"{seen.waiting} wait for a node"
    rollout = views.snapshot.stored.rollout(service.id)
    if rollout is not None and rollout.state is not RolloutState.COMPLETED:
        why = f": {rollout.message}" if rollout.message else ""
        yield (
            f"its rollout to generation {rollout.generation} is {rollout.state.name.lower()}{why};"
            f" {seen.updated} tasks run it"
        )


def _slot(views: Views, service: Service, explanation: planning.Explanation) -> str:
    name = f"{service.stack}/{views.slot_name(service, explanation.slot)}"
    task = views.snapshot.stored.task(explanation.task) if explanation.task is not None else None
    if task is None:
        return f"{name} has no task: {explanation.reason}"
    where = views.node_name(task.node)
    status = views.status(task)
    message = f" ({status.message})" if status.message else ""
    if not views.snapshot.observed.knows(task.node) and task.outcome is None:
        return (
            f"{name} is on {where}, which has not reported to this scheduler yet; it was last known"
            f" to be {health_word(status)}{message}"
        )
    reason = explanation.reason or task.reason
    attempt = f", start {status.attempt}" if status.attempt > 1 else ""
    return f"{name} is {health_word(status)}{message} on {where}{attempt}: {reason}"


def _task(
    views: Views, service: Service, explanation: planning.Explanation
) -> control_pb2.TaskExplanation:
    message = control_pb2.TaskExplanation()
    stored = views.snapshot.stored
    task = stored.task(explanation.task) if explanation.task is not None else None
    waiting = views.snapshot.observed.waiting.get(service.id, {}).get(explanation.slot)
    if task is not None:
        message.task.CopyFrom(views.task(task))
    elif waiting is not None:
        message.task.CopyFrom(views.waiting(service, waiting))
    message.nodes.extend(views.standing(each) for each in explanation.nodes)
    message.remedies.extend(remedy(each) for each in explanation.remedies)
    return message


def _node(views: Views, node: Node) -> Iterator[str]:
    seen = views.snapshot.observed.node(node.id)
    for_seconds = max(0.0, views.snapshot.now - seen.since)
    yield f"node {node.name} is {seen.state.name.lower()} for {for_seconds:.0f} s"
    if seen.state is not NodeState.READY:
        silent = max(0.0, views.snapshot.now - seen.last_seen)
        yield f"nothing was heard of it for {silent:.0f} s"
    elif not seen.reported:
        yield "it has not reported its tasks to this scheduler yet"
    yield f"its operator wants it {node.availability.name.lower()}"
    if seen.unfenced:
        yield f"it gets no exclusive task: {seen.unfenced}"
    for condition in seen.status.conditions:
        if not condition.ok:
            yield f"{condition.name}: {condition.message}"
    tasks = views.snapshot.stored.tasks_of_node(node.id)
    running = sum(views.status(task).state is TaskState.RUNNING for task in tasks)
    yield f"{len(tasks)} tasks are assigned to it, {running} run"
    if seen.status.unknown_containers:
        names = ", ".join(seen.status.unknown_containers[:10])
        yield f"containers of ours that no record speaks of are kept there: {names}"
