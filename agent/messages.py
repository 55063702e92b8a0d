"""Orders and reports as messages: the translation that a session needs beside the codec's."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from agent.orders import Orders
from agent.reporter import Batch
from homeport import codec
from homeport.model import (
    Assignment,
    NodeId,
    OrderId,
    ServiceGeneration,
    Stack,
    StackFile,
    TaskStatus,
    Tombstone,
)
from homeport.spec import NetworkSpec, VolumeSpec
from homeport.v1 import dispatcher_pb2


def orders(message: Any) -> Orders:
    """The values of an Assignments message.

    Raises CodecError for what this version cannot read.
    """
    is_complete = message.kind == dispatcher_pb2.Assignments.KIND_COMPLETE
    return Orders(
        order=codec.from_message(OrderId, message.order),
        is_complete=is_complete,
        applies_to=None if is_complete else codec.from_message(OrderId, message.applies_to),
        tasks=tuple(codec.from_message(Assignment, each) for each in message.tasks),
        tombstones=tuple(codec.from_message(Tombstone, each) for each in message.tombstones),
        specs=tuple(codec.from_message(ServiceGeneration, each) for each in message.specs),
        stacks=tuple(
            Stack(
                name=each.stack,
                networks=tuple(codec.from_message(NetworkSpec, n) for n in each.networks),
                volumes=tuple(codec.from_message(VolumeSpec, v) for v in each.volumes),
            )
            for each in message.stacks
        ),
        files=tuple(codec.from_message(StackFile, each) for each in message.files),
    )


def told(welcome: Any) -> list[TaskStatus]:
    """What the scheduler was told of this node's tasks; what cannot be read is left out."""
    found: list[TaskStatus] = []
    for each in welcome.told:
        with contextlib.suppress(codec.CodecError):
            found.append(codec.from_message(TaskStatus, each))
    return found


def report(batch: Batch, node: NodeId) -> Any:
    """The message of one report by this node."""
    message = dispatcher_pb2.Report(
        sequence=batch.sequence, complete=batch.is_complete, running_hash=batch.running_hash
    )
    for status in batch.statuses:
        codec.fill(message.statuses.add(), status)
    for event in batch.events:
        codec.fill(message.events.add(), event)
    for volume in batch.volumes:
        codec.fill(message.volumes.add(), replace(volume, node=node))
    return message
