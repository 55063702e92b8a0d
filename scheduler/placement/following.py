"""Keep a fleet right as stored objects change.

One function turns each changed record into the fleet's events, so that whoever owns a
fleet cannot forget a kind. `view` is the state after the change.
"""

from __future__ import annotations

from homeport.model import Cluster, Node, NodeId, Service, ServiceId, Stack, Task, TaskId, Volume
from homeport.spec import Mode, VolumeSpec
from scheduler.cluster import keys
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet, held, is_ready, unfit


def follow(
    fleet: Fleet, snapshot: Snapshot, key: str, old: keys.Stored | None, new: keys.Stored | None
) -> None:
    """Take in that the record under `key` became `new` (None: it is gone)."""
    kind, _, rest = key.partition("/")
    match kind:
        case "tasks":
            _task(fleet, snapshot, TaskId(rest), new)
        case "nodes":
            if isinstance(new, Node):
                ready = is_ready(snapshot, new.id)
                unfenced = snapshot.observed.node(new.id).unfenced
                fleet.node_changed(
                    new, ready=ready, unfit=unfit(snapshot, new.id), unfenced=unfenced
                )
            else:
                fleet.node_removed(NodeId(rest))
        case "volumes":
            if isinstance(old, Volume):
                fleet.volume_removed((old.stack, old.name), old.node)
            if isinstance(new, Volume):
                fleet.volume_added((new.stack, new.name), new.node)
        case "services":
            if _mode(old) is not _mode(new):
                _service(fleet, snapshot, ServiceId(rest))
        case "specs":
            _service(fleet, snapshot, ServiceId(rest.rpartition("/")[0]))
        case "stacks":
            if _volumes(old) != _volumes(new):
                for service in snapshot.stored.services_of(rest):
                    _service(fleet, snapshot, service.id)
        case "cluster":
            if isinstance(new, Cluster):
                fleet.strategy_changed(new.strategy)
        case _:
            pass


def _task(fleet: Fleet, snapshot: Snapshot, task: TaskId, new: keys.Stored | None) -> None:
    if isinstance(new, Task) and new.outcome is None:
        fleet.task_added(task, held(snapshot.stored, new), new.grants)
    else:
        fleet.task_removed(task)


def _service(fleet: Fleet, snapshot: Snapshot, service: ServiceId) -> None:
    """What its tasks need may have changed."""
    for task in snapshot.stored.tasks_of_service(service):
        _task(fleet, snapshot, task.id, task)


def _mode(value: keys.Stored | None) -> Mode | None:
    return value.mode if isinstance(value, Service) else None


def _volumes(value: keys.Stored | None) -> tuple[VolumeSpec, ...]:
    return value.volumes if isinstance(value, Stack) else ()
