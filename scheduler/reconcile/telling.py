"""What people are told of a change: one event for each that they would ask about."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired
from homeport.model import (
    Event,
    Node,
    NodeId,
    Rollout,
    RolloutState,
    Service,
    Stack,
    Task,
    Volume,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.observed import Brake, Waiting
from scheduler.cluster.view import View

LINES_MAX = 100
"""Decisions of one look that the log names one by one; the events name all of them."""

_ROLLOUT = {
    RolloutState.UPDATING: "RolloutStarted",
    RolloutState.PAUSED: "RolloutPaused",
    RolloutState.COMPLETED: "RolloutCompleted",
}

PREEMPTED = "Preempted"
"""The reason of the event of a task that ends to make room."""


def events_of(
    changes: Iterable[Change],
    before: Mapping[str, keys.Stored | None],
    preempted: Container[str],
    view: View,
    now_ms: int,
) -> list[Event]:
    """The events of committed changes.

    `before`: what was there, by key. `preempted`: keys of the tasks that end to make room.
    """
    found: list[Event] = []
    for change in changes:
        event = event_of(change, before[change.key], view, now_ms)
        if event is not None:
            is_preempted = change.key in preempted
            found.append(replace(event, reason=PREEMPTED) if is_preempted else event)
    return found


def event_of(change: Change, old: keys.Stored | None, view: View, now_ms: int) -> Event | None:
    """The event of a committed change; None for housekeeping. `old`: what was there before.

    `view` knows the nodes' names: an event names its node as people do.
    """
    match change:
        case Put(value=Task() as task):
            return _of_task(task, old, change.reason, view, now_ms)
        case Put(value=Rollout() as rollout):
            return Event(
                at_ms=now_ms,
                kind="service",
                object=rollout.service,
                reason=_ROLLOUT[rollout.state],
                message=change.reason,
            )
        case Put(value=Volume() as volume) if old is None:
            return Event(
                at_ms=now_ms,
                kind="stack",
                object=f"{volume.stack}/{volume.name}",
                reason="VolumePlaced",
                message=change.reason,
                node=_name(view, volume.node),
            )
        case Delete():
            match old:
                case Service():
                    return Event(
                        at_ms=now_ms,
                        kind="service",
                        object=old.id,
                        reason="Removed",
                        message=change.reason,
                    )
                case Stack():
                    return Event(
                        at_ms=now_ms,
                        kind="stack",
                        object=old.name,
                        reason="Removed",
                        message=change.reason,
                    )
                case Node():
                    return Event(
                        at_ms=now_ms,
                        kind="node",
                        object=old.name,
                        reason="Removed",
                        message=change.reason,
                        node=old.name,
                    )
                case _:
                    return None
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log: what was decided, of which object, and why."""

    what: str
    object: str
    why: str
    times: int = 1  # more: of so many tasks of this service; why the first


def lines(events: Sequence[Event]) -> list[Line]:
    """What the log says of events that were decided together: of many, a line for each service."""
    if len(events) <= LINES_MAX:
        return [Line(event.reason, event.object, event.message) for event in events]
    found: dict[tuple[str, str], Line] = {}
    for event in events:
        of_task = event.kind == "task"
        name = event.object.rsplit("/", 2)[0] if of_task else event.object
        first = found.get((event.reason, name))
        found[event.reason, name] = (
            Line(event.reason, name, event.message)
            if first is None
            else replace(first, times=first.times + 1)
        )
    return list(found.values())


def waits(waiting: Waiting, now_ms: int) -> Event:
    """A slot waits, or waits for another reason than before."""
    return Event(
        at_ms=now_ms,
        kind="service",
        object=f"{waiting.service}/{waiting.slot}",
        reason="Waiting",
        message=waiting.reason,
    )


def brake(before: Brake | None, after: Brake | None, now_ms: int) -> Event | None:
    """The brake went on or off, or holds for another cause."""
    if after is None:
        if before is None:
            return None
        reason, message = "BrakeOff", "the brake is off: tasks of silent nodes may move again"
    else:
        reason = "BrakeOn" if before is None else "BrakeChanged"
        message = f"nothing moves: {after.cause}"
    return Event(at_ms=now_ms, kind="scheduler", object="brake", reason=reason, message=message)


def _of_task(
    task: Task, old: keys.Stored | None, message: str, view: View, now_ms: int
) -> Event | None:
    if not isinstance(old, Task):
        reason = "Placed"
    elif task.outcome is not None and old.outcome is None:
        reason = task.outcome.state.name.capitalize()
    elif task.desired is not old.desired and old.outcome is None:
        reason = "Removing" if task.desired is Desired.REMOVED else "Stopping"
    elif task.move is not None and old.move is None:
        reason = "Moving"
    elif task.move is None and old.move is not None and old.outcome is None:
        reason = "MoveDropped"
    else:
        return None
    return Event(
        at_ms=now_ms,
        kind="task",
        object=task.id,
        reason=reason,
        message=message,
        node=_name(view, task.node),
    )


def _name(view: View, node: NodeId) -> str:
    known = view.node(node)
    return known.name if known is not None else node
