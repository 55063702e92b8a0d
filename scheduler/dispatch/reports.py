"""What a report of an agent means, before anything of it is believed.

An agent speaks only for its own node: a status of a task that is elsewhere, or of none, is
not taken in. What this version cannot read concerns that one task and not the session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from homeport.model import Event, NodeId, TaskId, TaskStatus, Volume
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.cluster.view import View

EVENTS_MAX = 1_000
MESSAGE_MAX = 2_000

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The part of a report that is believed."""

    statuses: tuple[TaskStatus, ...]
    foreign: tuple[TaskId, ...]  # tasks that have no record on this node
    missing: tuple[TaskId, ...]  # complete reports: tasks of the node that it does not have


def hear(view: View, node: NodeId, statuses: Iterable[TaskStatus], *, is_complete: bool) -> Heard:
    """Sort a report's statuses."""
    mine: list[TaskStatus] = []
    foreign: list[TaskId] = []
    for status in statuses:
        task = view.task(status.task)
        if task is None or task.node != node:
            foreign.append(status.task)
        else:
            mine.append(
                status
                if len(status.message) <= MESSAGE_MAX
                else replace(status, message=status.message[:MESSAGE_MAX])
            )
    missing: list[TaskId] = []
    if is_complete:
        named = {status.task for status in mine}
        missing = [task.id for task in view.tasks_of_node(node) if task.id not in named]
    return Heard(statuses=tuple(mine), foreign=tuple(foreign), missing=tuple(missing))


def volume_changes(view: View, node: NodeId, volumes: Iterable[Volume]) -> list[Change]:
    """The writes that remember volumes which were made on this node."""
    changes: dict[str, Change] = {}
    for volume in volumes:
        if not (_NAME.fullmatch(volume.stack) and volume.name and "/" not in volume.name):
            continue
        fresh = replace(volume, node=node)
        key = keys.key_of(fresh)
        if not view.version(key):
            changes[key] = Put(fresh, ABSENT, "the volume was made there")
    return list(changes.values())


def events(node_name: str, said: Iterable[Event]) -> list[Event]:
    """An agent's events, with the node that they come from and at most so many at once."""
    return [
        replace(event, node=node_name, message=event.message[:MESSAGE_MAX], sequence=0)
        for event in list(said)[:EVENTS_MAX]
    ]
