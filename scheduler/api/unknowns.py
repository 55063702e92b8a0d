"""What an operator's word about containers without a record comes to.

A container of ours that no record speaks of (its record was lost with a store, or with a
restored backup) is kept by its agent and ends only by an operator's word. *Adopt* writes
the record that its labels speak of, and the agent, whose container it is already, changes
nothing. *Forget* writes a record too, one that is to be removed: what must stop has a
record, so the word survives a change of leader and an agent that is away. A newcomer's
mistake: adopting whatever is there. A slot has one task, and which of two has the data is
not for us to guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Cause,
    Node,
    NodeId,
    NodeStatus,
    Service,
    Task,
    TaskId,
    TaskStatus,
    UnknownContainer,
    split_task_id,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.view import View
from scheduler.placement import requirements as needs
from scheduler.placement.fleet import requirements_of

ID_LENGTH_MIN = 12
"""How much of a container's id names it, as `docker ps` shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What is written, and what stays as it is: (container, why)."""

    puts: tuple[Put, ...] = ()
    tasks: tuple[TaskId, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class _No(Exception):
    """Why one of them stays as it is."""


def adopt(
    view: View,
    node: Node,
    status: NodeStatus,
    names: Iterable[str],
    *,
    all_of_them: bool,
    status_of: Callable[[TaskId], TaskStatus | None],
    now_ms: int,
) -> Verdicts:
    """Records for the containers that are to be managed again.

    `status_of` says what is observed of a task that has a record.
    """

    def task_of(unknown: UnknownContainer) -> list[Put]:
        return _adopted(view, node, unknown, status_of, now_ms)

    return _judge(node, status, names, all_of_them=all_of_them, task_of=task_of)


def forget(
    view: View,
    node: Node,
    status: NodeStatus,
    names: Iterable[str],
    *,
    all_of_them: bool,
    status_of: Callable[[TaskId], TaskStatus | None],
    now_ms: int,
) -> Verdicts:
    """Records for the containers that are to go."""

    def task_of(unknown: UnknownContainer) -> list[Put]:
        return [_forgotten(view, node, unknown, now_ms)]

    return _judge(node, status, names, all_of_them=all_of_them, task_of=task_of)


def reported(status: NodeStatus) -> list[UnknownContainer]:
    """The containers without a record; an older agent names no more than their tasks."""
    known = {each.task for each in status.unknown}
    rest = [TaskId(task) for task in status.unknown_containers if task not in known]
    return sorted(
        [*status.unknown, *(UnknownContainer(task=task) for task in rest)],
        key=lambda each: each.task,
    )


def container_name(task: TaskId) -> str:
    """What agents call a task's container."""
    return task.replace("/", ".")


def _judge(
    node: Node,
    status: NodeStatus,
    names: Iterable[str],
    *,
    all_of_them: bool,
    task_of: Callable[[UnknownContainer], list[Put]],
) -> Verdicts:
    unknown = reported(status)
    chosen: dict[TaskId, UnknownContainer] = {}
    refused: list[tuple[str, str]] = []
    if all_of_them:
        chosen = {each.task: each for each in unknown}
    for name in dict.fromkeys(names):
        found = [each for each in unknown if _is_called(each, name)]
        if len(found) == 1:
            chosen[found[0].task] = found[0]
        elif found:
            refused.append((name, "more than one container's id begins like this"))
        else:
            refused.append((name, f"node {node.name} reports no such container without a record"))
    puts: list[Put] = []
    tasks: list[TaskId] = []
    taken: set[tuple[str, int]] = set()
    for each in chosen.values():
        slot = split_task_id(each.task)[:2]
        try:
            if slot in taken:
                raise _No("another container of the same slot is adopted with it")  # noqa: TRY301
            written = task_of(each)
        except _No as no:
            refused.append((container_name(each.task), str(no)))
            continue
        first = written[0].value
        if isinstance(first, Task) and first.desired is Desired.RUNNING:
            taken.add(slot)
        puts += written
        tasks.append(each.task)
    return Verdicts(puts=tuple(puts), tasks=tuple(tasks), refused=tuple(refused))


def _is_called(unknown: UnknownContainer, name: str) -> bool:
    return name in (unknown.task, container_name(unknown.task)) or (
        len(name) >= ID_LENGTH_MIN and unknown.container_id.startswith(name)
    )


def _adopted(
    view: View,
    node: Node,
    unknown: UnknownContainer,
    status_of: Callable[[TaskId], TaskStatus | None],
    now_ms: int,
) -> list[Put]:
    service_id, slot, n = split_task_id(unknown.task)
    service = view.service(service_id)
    if service is None:
        raise _No(
            f"the store has no service {service_id}, so nothing says how to run it: apply its stack"
            " and forget this container, or restore a backup that has the service"
        )
    if service.removing:
        raise _No(f"service {service.name} of stack {service.stack} is being removed")
    _refuse_recorded(view, node.id, unknown.task)
    _refuse_number(service, slot, node)
    older = _superseded(view, service, slot, node, n, status_of)
    reason = "adopted by an operator's word"
    generation = unknown.generation
    spec = view.spec(service_id, generation)
    if spec is None:
        generation = service.generation
        spec = view.spec(service_id, generation)
        reason += ": its own edition of the spec is not stored, so it counts as the present one"
    if spec is None:
        raise _No(f"the store has no spec of service {service.name}: apply its stack first")
    required = requirements_of(view, service_id, generation)
    task = Task(
        service=service_id,
        slot=slot,
        n=n,
        node=node.id,
        generation=generation,
        cause=Cause.OPERATOR,
        reason=reason,
        pinned=needs.is_pinned(required, service),
        exclusive=needs.is_exclusive(spec.spec, required, service),
        created_ms=now_ms,
    )
    return [Put(task, ABSENT, reason), *older]


def _forgotten(view: View, node: Node, unknown: UnknownContainer, now_ms: int) -> Put:
    service_id, slot, n = split_task_id(unknown.task)
    _refuse_recorded(view, node.id, unknown.task)
    reason = "forgotten by an operator's word"
    task = Task(
        service=service_id,
        slot=slot,
        n=n,
        node=node.id,
        generation=max(1, unknown.generation),
        desired=Desired.REMOVED,
        cause=Cause.OPERATOR,
        reason=reason,
        created_ms=now_ms,
    )
    return Put(task, ABSENT, reason)


def _refuse_recorded(view: View, node: NodeId, task: TaskId) -> None:
    record = view.task(task)
    if record is None:
        return
    if record.node != node:
        other = view.node(record.node)
        where = other.name if other is not None else record.node
        raise _No(f"by its record this task is on node {where}")
    if record.desired is not Desired.RUNNING:
        raise _No("it is being stopped already")
    raise _No("it has a record again: nothing is to be done")


def _refuse_number(service: Service, slot: int, node: Node) -> None:
    if service.mode.is_global:
        if slot != node.number:
            raise _No(
                f"{service.name} is global, and this is the copy of another node, which was moved"
                " here or has joined anew: forget it"
            )
    elif slot > service.replicas:
        raise _No(
            f"{service.name} has {service.replicas} replicas, and this is number {slot}: scale it"
            " up first, or forget this one"
        )


def _superseded(
    view: View,
    service: Service,
    slot: int,
    node: Node,
    n: int,
    status_of: Callable[[TaskId], TaskStatus | None],
) -> list[Put]:
    """The slot's other tasks, which are to go.

    A restored store knows an older task of the slot. Its agent does not start it while this
    container runs, so nothing is lost with it.
    """
    older: list[Put] = []
    for other in view.tasks_of_slot(service.id, slot):
        if other.n > n:
            raise _No(f"slot {slot} of {service.name} had a later task than this: forget it")
        if other.outcome is not None:
            continue
        status = status_of(other.id)
        is_held = status is not None and status.state.value < TaskState.STARTING.value
        if other.node != node.id or not is_held or other.desired is not Desired.RUNNING:
            home = view.node(other.node)
            where = home.name if home is not None else other.node
            raise _No(
                f"slot {slot} of {service.name} has task {container_name(other.id)} on node"
                f" {where}: forget this one, or end that one first"
            )
        reason = f"the slot's later container, number {n}, was adopted by an operator's word"
        fresh = replace(other, desired=Desired.REMOVED, cause=Cause.OPERATOR, reason=reason)
        older.append(Put(fresh, view.version(keys.task(other.id)), reason))
    return older
