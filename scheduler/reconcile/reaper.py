"""Forget what nobody needs: ended tasks, old specs, and what was removed.

Of each slot the newest task is kept, for `ps -a` and its logs; and those that speak
against a node, for as long as they do. A record goes only when its agent has reported
the container gone or an operator removed the node: what must stop has a record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, Service, ServiceId, Task, VolumeState
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile import outcomes, replicas, restarts
from scheduler.reconcile.slots import Slot


def tasks(snapshot: Snapshot, service: Service, slots: Mapping[int, Slot]) -> list[Change]:
    """Have superseded tasks removed, and delete the records of those that are gone."""
    changes: list[Change] = []
    gone: list[Task] = []
    counted: list[int] = []
    for number in sorted(slots):
        slot = slots[number]
        for task in slot.tasks:
            if task.desired is Desired.REMOVED:
                if _is_gone(snapshot, task):
                    gone.append(task)
                    if task is slot.last:
                        counted.append(task.n)
            elif task.outcome is not None and not _is_kept(snapshot, service, slot, task):
                changes += replicas.remove(
                    snapshot, [task], _cause(task), "a newer task has its slot"
                )
    last_n = max(counted, default=0)
    if last_n > service.last_n and not service.removing:
        # First remember how far the slot has counted, then forget the task: an id is
        # never used twice.
        changes.append(
            Put(
                replace(service, last_n=last_n),
                snapshot.stored.version(keys.service(service.id)),
                "the last task of a slot is forgotten",
            )
        )
        return changes
    changes += [
        Delete(keys.task(task.id), snapshot.stored.version(keys.task(task.id)), "it is removed")
        for task in gone
    ]
    return changes


def headless(snapshot: Snapshot, service: ServiceId) -> list[Change]:
    """Delete the records of removed tasks whose service nobody knows.

    Such a record was made so that an agent removes a container that a lost store left behind.
    """
    return [
        Delete(keys.task(task.id), snapshot.stored.version(keys.task(task.id)), "it is removed")
        for task in snapshot.stored.tasks_of_service(service)
        if task.desired is Desired.REMOVED and _is_gone(snapshot, task)
    ]


def wake_at(snapshot: Snapshot, service: Service, slots: Mapping[int, Slot]) -> float:
    """Boot time at which the first kept task need not be kept any more; 0: none."""
    times = [
        snapshot.now + left
        for slot in slots.values()
        for task in slot.tasks[:-1]
        if task.desired is not Desired.REMOVED
        and (left := restarts.exclusion_seconds(snapshot, task, service.generation)) > 0
    ]
    return min(times, default=0.0)


def service(snapshot: Snapshot, service: Service) -> list[Change]:
    """Delete the specs that nothing refers to; of a removed service everything, at last."""
    stored = snapshot.stored
    left = stored.tasks_of_service(service.id)
    if service.removing and not left:
        changes: list[Change] = [
            Delete(
                keys.spec(service.id, spec.generation),
                stored.version(keys.spec(service.id, spec.generation)),
                "its service is removed",
            )
            for spec in stored.specs_of(service.id)
        ]
        if stored.rollout(service.id) is not None:
            key = keys.rollout(service.id)
            changes.append(Delete(key, stored.version(key), "its service is removed"))
        if changes:
            return changes
        # Last and alone, so that whoever continues after a crash still finds what is left.
        key = keys.service(service.id)
        return [Delete(key, stored.version(key), "all its tasks are removed")]
    in_use: Collection[int] = {service.generation, *(task.generation for task in left)}
    return [
        Delete(
            keys.spec(service.id, spec.generation),
            stored.version(keys.spec(service.id, spec.generation)),
            "no task and no service refers to it",
        )
        for spec in stored.specs_of(service.id)
        # What lies ahead of the head is being applied just now.
        if spec.generation < service.generation and spec.generation not in in_use
    ]


def stack(snapshot: Snapshot, name: str) -> list[Change]:
    """Once a removed stack has no service left: its files go, its data stays, retained."""
    stored = snapshot.stored
    record = stored.stack(name)
    if record is None or not record.removing or stored.services_of(name):
        return []
    changes: list[Change] = [
        Delete(
            keys.file(name, file.digest),
            stored.version(keys.file(name, file.digest)),
            "its stack is removed",
        )
        for file in stored.files_of(name)
    ]
    changes += [
        Put(
            replace(home, state=VolumeState.RETAINED),
            stored.version(keys.key_of(home)),
            "its stack is removed, and its data kept",
        )
        for volume in record.volumes
        for home in stored.volumes_of(name, volume.name)
        if home.state is not VolumeState.RETAINED
    ]
    if changes:
        return changes
    # Last, so that whoever continues after a crash still finds what is left to do.
    return [Delete(keys.stack(name), stored.version(keys.stack(name)), "it has no services left")]


def _is_gone(snapshot: Snapshot, task: Task) -> bool:
    if snapshot.stored.version(keys.node(task.node)) == 0:
        return True
    status = snapshot.observed.status(task.id)
    if status is None or status.state is not TaskState.REMOVED:
        return False
    return not outcomes.speaks_for_another(snapshot, task)


def _is_kept(snapshot: Snapshot, service: Service, slot: Slot, task: Task) -> bool:
    return task is slot.last or restarts.exclusion_seconds(snapshot, task, service.generation) > 0


def _cause(task: Task) -> Cause:
    """An operator's word to end it covers its removal too."""
    return task.cause if task.desired is not Desired.RUNNING else Cause.RECONCILER
