"""Recorded files in, the checkers' values out: the only place that knows what recorders write."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from homeport import codec
from homeport.model import Node, ServiceGeneration, Task
from scheduler.cluster import keys
from tests.faults.checks.canaries import CANARY
from tests.faults.checks.capacity import Booking, Room
from tests.faults.history import (
    EngineEvent,
    Life,
    Operation,
    StoreEvent,
    Told,
    now_ns,
    read,
)

PREFIX = "/homeport/"
"""What a scheduler puts before each key in etcd."""


def lives(path: Path) -> list[Life]:
    """The observer's intervals; of what still lived at the end, up to its last look."""
    begun: dict[tuple[str, int], dict[str, Any]] = {}
    found: list[Life] = []
    last = 0
    for record in read(path):
        last = max(last, record["t_ns"])
        if record["kind"] == "up":
            begun[record["container"], record["pid"]] = record
        elif record["kind"] == "down":
            up = begun.pop((record["container"], record["pid"]), None)
            if up is not None:
                # At the look that no longer saw it, it was gone: sure is only the look before.
                found.append(_life(up, max(up["t_ns"], record["t_ns"] - 20_000_000), ended=True))
    found += [_life(up, last, ended=False) for up in begun.values()]
    return sorted(found, key=lambda life: life.first_ns)


def _life(up: dict[str, Any], last_ns: int, *, ended: bool) -> Life:
    labels = up["labels"]
    task = labels.get("task", "")
    if up["name"].startswith(CANARY):
        slot, task = f"{up['name']}@{up['node']}", up["name"]
    elif task.count("/") == 2:
        slot = f"{labels.get('stack', '')}/{labels.get('service', '')}/{task.split('/')[1]}"
    else:
        slot = task = up["name"]
    return Life(
        slot=slot,
        task=task,
        node=up["node"],
        container=up["container"],
        first_ns=up["t_ns"],
        last_ns=last_ns,
        ended=ended,
    )


def observer_gap_ns(path: Path) -> int:
    """The longest time between two looks of the observer."""
    return max((r["gap_ns"] for r in read(path) if r.get("kind") == "tick"), default=0)


def store_events(path: Path) -> list[StoreEvent]:
    """The store's history in the order of revisions, each change once."""
    found: dict[tuple[int, str], StoreEvent] = {}
    for record in read(path):
        line = record.get("line")
        if not isinstance(line, dict):
            continue
        for event in line.get("Events") or ():
            kv = event["kv"]
            is_delete = event.get("type", 0) in (1, "DELETE")
            key = base64.b64decode(kv["key"]).decode(errors="replace").removeprefix(PREFIX)
            revision = int(kv["mod_revision"])
            found.setdefault(
                (revision, key),
                StoreEvent(
                    t_ns=record["t_ns"],
                    revision=revision,
                    key=key,
                    value=None if is_delete else base64.b64decode(kv.get("value", "")),
                    created=0 if is_delete else int(kv["create_revision"]),
                    lease=int(kv.get("lease", 0)),
                ),
            )
    return [found[place] for place in sorted(found)]


def operations(path: Path) -> list[Operation]:
    """What the client did; a call without an end (it was killed) is `info`."""
    found: dict[str, Operation] = {}
    for record in read(path):
        mark, kind = record["mark"], record["kind"]
        if kind == "invoke":
            found[mark] = Operation(
                mark=mark, invoked_ns=record["t_ns"], ended_ns=now_ns(), outcome="info"
            )
        else:
            found[mark] = Operation(
                mark=mark,
                invoked_ns=record["invoked_ns"],
                ended_ns=record["t_ns"],
                outcome=kind,
                revision=record.get("revision", 0),
                error=record.get("error", ""),
            )
    return [found[mark] for mark in sorted(found)]


def told(path: Path) -> list[Told]:
    """The places at which the watcher was told that it has seen everything."""
    return [
        Told(
            t_ns=record["t_ns"],
            revision=record["revision"],
            objects=frozenset(record["objects"]),
        )
        for record in read(path)
        if record["kind"] == "told"
    ]


def engine_events(path: Path, node: str) -> list[EngineEvent]:
    """What an engine said, each event once although it was asked again and again."""
    found: dict[tuple[int, str, str], EngineEvent] = {}
    for record in read(path):
        line = record.get("line")
        if not isinstance(line, dict) or line.get("Type") not in ("container", "volume"):
            continue
        actor = line.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        name = attributes.get("name", actor.get("ID", ""))
        place = (int(line.get("timeNano", 0)), str(line.get("Action")), str(name))
        found.setdefault(
            place,
            EngineEvent(
                t_ns=record["t_ns"],
                node=node,
                action=place[1],
                name=place[2],
                labels={k: v for k, v in attributes.items() if k.startswith("dev.homeport.")},
            ),
        )
    return [found[place] for place in sorted(found)]


def bookings(events: Iterable[StoreEvent]) -> tuple[list[Booking], dict[str, Room]]:
    """What tasks claim of nodes, as the store's history has it, and what nodes have."""
    specs: dict[str, ServiceGeneration] = {}
    rooms: dict[str, Room] = {}
    found: list[Booking] = []
    for event in events:
        kind = keys.kind_of(event.key)
        if kind is Node and event.value is not None:
            node = codec.decode_record(Node, event.value)
            capacity = node.inventory.capacity
            rooms[str(node.id)] = Room(
                cpu_millis=capacity.cpu_millis, memory_bytes=capacity.memory_bytes
            )
        elif kind is ServiceGeneration and event.value is not None:
            specs[event.key] = codec.decode_record(ServiceGeneration, event.value)
        elif kind is Task:
            found.append(_booking(event, specs))
    return found, rooms


def _booking(event: StoreEvent, specs: dict[str, ServiceGeneration]) -> Booking:
    task_id = event.key.removeprefix("tasks/")
    nothing = Booking(t_ns=event.t_ns, revision=event.revision, task=task_id)
    if event.value is None:
        return nothing
    task = codec.decode_record(Task, event.value)
    spec = specs.get(keys.spec(task.service, task.generation))
    if task.outcome is not None or spec is None:
        return nothing
    reserved = spec.spec.reservations
    return Booking(
        t_ns=event.t_ns,
        revision=event.revision,
        task=task_id,
        node=str(task.node),
        cpu_millis=reserved.cpu_millis,
        memory_bytes=reserved.memory_bytes,
        ports=tuple(
            (port.published, port.protocol) for port in spec.spec.container.ports if port.published
        ),
    )
