"""A replicated service has the slots 1…replicas; whatever is beyond them ends.

This only counts. When an empty slot may be filled is `restarts`' business, and where
`scheduling`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from homeport.lifecycle import Desired
from homeport.model import Cause, Service, Task
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile.slots import Slot


def wanted(service: Service) -> range:
    """The slots that are to have a task."""
    return range(1, service.replicas + 1) if not service.removing else range(0)


def decide(snapshot: Snapshot, service: Service, slots: Mapping[int, Slot]) -> list[Change]:
    """End the tasks of slots that are not wanted."""
    keep = wanted(service)
    reason = (
        f"service {service.name} is being removed"
        if service.removing
        else f"service {service.name} has {service.replicas} replicas now"
    )
    return remove(
        snapshot,
        [task for number in sorted(slots) if number not in keep for task in slots[number].tasks],
        Cause.OPERATOR,
        reason,
    )


def remove(snapshot: Snapshot, tasks: Iterable[Task], cause: Cause, reason: str) -> list[Change]:
    """Have these tasks stopped, if they run, and their containers and records removed.

    An operator's word is written over a reconciler's: it frees what a node's mass-stop brake
    holds.
    """
    return [
        Put(
            replace(task, desired=Desired.REMOVED, cause=cause, reason=reason),
            snapshot.stored.version(keys.task(task.id)),
            reason,
        )
        for task in tasks
        if task.desired is not Desired.REMOVED
        or (task.cause is Cause.RECONCILER and cause is Cause.OPERATOR)
    ]
