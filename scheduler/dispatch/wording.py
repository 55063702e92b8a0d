"""Orders as messages of the wire.

A service of a thousand replicas is told to nearly as many nodes, each of which needs its spec
once: so a spec is put into bytes once and not for each of them.
"""

from __future__ import annotations

from homeport import codec
from homeport.model import ServiceGeneration, ServiceId
from homeport.v1 import dispatcher_pb2
from scheduler.dispatch.assignments import Orders

KEPT_MAX = 4_000
KEPT_BYTES_MAX = 2_000
"""Specs whose bytes are kept, and how large one may be: eight megabytes of all, if need be."""


class Wording:
    """Makes messages; remembers the bytes of specs that it put into words lately."""

    def __init__(self) -> None:
        """Nothing is remembered."""
        self._specs: dict[ServiceId, tuple[ServiceGeneration, bytes]] = {}

    def message(self, orders: Orders) -> dispatcher_pb2.SessionResponse:
        """The message that gives these orders."""
        message = dispatcher_pb2.SessionResponse()
        content = message.assignments
        if orders.applies_to is None:
            content.kind = dispatcher_pb2.Assignments.KIND_COMPLETE
        else:
            content.kind = dispatcher_pb2.Assignments.KIND_INCREMENTAL
            codec.fill(content.applies_to, orders.applies_to)
        codec.fill(content.order, orders.order)
        for field, values in (
            (content.tasks, orders.tasks),
            (content.tombstones, orders.tombstones),
            (content.files, orders.files),
        ):
            for value in values:
                codec.fill(field.add(), value)
        for spec in orders.specs:
            content.specs.add().MergeFromString(self._spec(spec))
        for stack in orders.stacks:
            resources = content.stacks.add(stack=stack.name)
            for network in stack.networks:
                codec.fill(resources.networks.add(), network)
            for volume in stack.volumes:
                codec.fill(resources.volumes.add(), volume)
        content.wanted_hash = orders.wanted_hash
        return message

    def _spec(self, spec: ServiceGeneration) -> bytes:
        known = self._specs.get(spec.service)
        if known is not None and known[0] is spec:
            return known[1]
        data = codec.encode(spec)
        if len(data) <= KEPT_BYTES_MAX:
            if len(self._specs) >= KEPT_MAX:
                self._specs.clear()
            self._specs[spec.service] = (spec, data)
        return data
