"""Say in the store where a local volume's data is.

The record is written with the first placement and pins every later task to the node. It
is withdrawn only if that first task was rejected before it ever ran, since then there is
no data and another node may do. A volume is never deleted here.
"""

from __future__ import annotations

from dataclasses import replace

from homeport.lifecycle import TaskState
from homeport.model import NodeId, Service, Task, Volume, VolumeState
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Change, Delete, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import requirements_of
from scheduler.placement.requirements import VolumeKey


def decide(snapshot: Snapshot, service: Service) -> list[Change]:
    """The records that the service's tasks imply and that are not there, or not right."""
    changes: dict[str, Change] = {}
    tasks = snapshot.stored.tasks_of_service(service.id)
    needs = {
        generation: requirements_of(snapshot.stored, service.id, generation)
        for generation in dict.fromkeys(task.generation for task in tasks)
    }
    for task in tasks:
        for volume in needs[task.generation].volumes:
            key = keys.volume(*volume, task.node)
            if key not in changes:
                change = _change(snapshot, volume, task, tasks)
                if change is not None:
                    changes[key] = change
    return list(changes.values())


def home(snapshot: Snapshot, volume: VolumeKey, node: NodeId) -> Change | None:
    """The record that this node holds the volume's data; None if it says so already."""
    record = _record(snapshot, volume, node)
    if record is not None and record.state is VolumeState.ACTIVE:
        return None
    stack, name = volume
    if record is None:
        record = Volume(stack=stack, name=name, node=node, created_ms=snapshot.now_ms)
    return Put(
        replace(record, state=VolumeState.ACTIVE),
        snapshot.stored.version(keys.volume(stack, name, node)) or ABSENT,
        f"volume {name} of stack {stack} lives on this node",
    )


def _change(snapshot: Snapshot, volume: VolumeKey, task: Task, tasks: list[Task]) -> Change | None:
    on_node = [each for each in tasks if each.node == task.node]
    record = _record(snapshot, volume, task.node)
    if all(_never_ran(each) for each in on_node):
        first = min(on_node, key=lambda each: each.created_ms)
        is_first = record is not None and record.created_ms == first.created_ms
        if is_first and not _has_other_users(snapshot, volume, task):
            key = keys.volume(*volume, task.node)
            return Delete(
                key,
                snapshot.stored.version(key),
                f"volume {volume[1]} was never used here: the first task was rejected",
            )
        return None
    return home(snapshot, volume, task.node)


def _has_other_users(snapshot: Snapshot, volume: VolumeKey, task: Task) -> bool:
    """Whether a task of another service of the stack on the same node has the volume too."""
    return any(
        volume in requirements_of(snapshot.stored, other.id, used.generation).volumes
        for other in snapshot.stored.services_of(volume[0])
        if other.id != task.service
        for used in snapshot.stored.tasks_of_service(other.id)
        if used.node == task.node
    )


def _record(snapshot: Snapshot, volume: VolumeKey, node: NodeId) -> Volume | None:
    for record in snapshot.stored.volumes_of(*volume):
        if record.node == node:
            return record
    return None


def _never_ran(task: Task) -> bool:
    outcome = task.outcome
    return outcome is not None and outcome.state is TaskState.REJECTED and outcome.attempts <= 1
