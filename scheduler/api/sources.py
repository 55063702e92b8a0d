"""Where a watch reads: from a leader's memory, or from what every scheduler has stored.

A place in a leader's changes is (epoch, sequence), and means nothing to another leader. A
place in the store's changes is a revision, which any scheduler can go on from: from its own
ring, else from the history that the store keeps. A newcomer's mistake: going on from a
revision of another incarnation. Numbers of a store that was restored begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

from homeport.model import NodeId, ServiceId, TaskId, split_task_id
from homeport.seams import Clock
from homeport.v1 import control_pb2
from scheduler.api import selection
from scheduler.api.feed import Feed, StoredFeed, Watcher, shown_keys
from scheduler.api.views import Views
from scheduler.cluster.observed import Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.store.authority import Authority
from scheduler.store.base import Compacted, Store, StoreError
from scheduler.store.mirror import Mirror

__all__ = ["KINDS", "Leading", "Stored", "StoredFeed", "is_of_stored"]

KINDS = ("stacks", "services", "tasks", "nodes", "events")
HISTORY_SECONDS = 3.0
"""How long the store's history is read, and a mirror that is behind waited for."""

Position = control_pb2.WatchPosition


def is_of_stored(request: control_pb2.WatchRequest) -> bool:
    """Whether a watch needs no leader: it asks for nothing that is observed."""
    return request.stored_only or set(request.kinds) == {"stacks"}


class Leading:
    """Stored and observed, as this leader counts them."""

    def __init__(self, authority: Authority, feed: Feed) -> None:
        """For as long as the epoch lasts."""
        self._authority = authority
        self._feed = feed

    def watch(self) -> tuple[Watcher, Callable[[], None]]:
        """See Feed.watch."""
        return self._feed.watch()

    def check(self) -> None:
        """Raise Unwell when the epoch has ended."""
        self._feed.check()

    def here(self) -> Position:
        """The place up to which everything is told when it is told now."""
        return Position(
            revision=self._authority.mirror.revision,
            epoch=self._feed.epoch,
            sequence=self._feed.sequence,
            incarnation=_incarnation(self._authority.mirror),
        )

    async def since(self, place: Position) -> tuple[list[str] | None, str]:
        """The keys that changed behind that place; (None, why) when that cannot be told."""
        if place.incarnation != _incarnation(self._authority.mirror):
            return None, "the store was restored or migrated meanwhile"
        if place.epoch != self._feed.epoch:
            return None, "another scheduler led then: what it observed went with it"
        keys = self._feed.since(place.epoch, place.sequence)
        return keys, "" if keys is not None else "too much has changed since then"

    def snapshot(self) -> Snapshot:
        """The cluster as it is now."""
        return self._authority.snapshot()

    def keys(self, stack: str, kinds: frozenset[str]) -> Iterator[str]:
        """The keys of all objects of these kinds."""
        snapshot = self.snapshot()
        yield from _stored_keys(snapshot, stack, kinds)
        if "tasks" in kinds:
            for service, slots in sorted(snapshot.observed.waiting.items()):
                known = snapshot.stored.service(service)
                if stack in ("", known.stack if known is not None else ""):
                    yield from (f"tasks/{service}/{slot}/0" for slot in sorted(slots))
        if "events" in kinds:
            yield from (f"events/{event.sequence}" for event in snapshot.observed.events)

    def told(self, response: control_pb2.WatchResponse) -> control_pb2.WatchResponse:
        """What is sent of an object: all of it."""
        return response


class Stored:
    """What is stored, as every scheduler has it."""

    def __init__(self, store: Store, mirror: Mirror, feed: StoredFeed, clock: Clock) -> None:
        """For as long as the scheduler lives."""
        self._store = store
        self._mirror = mirror
        self._feed = feed
        self._clock = clock

    def watch(self) -> tuple[Watcher, Callable[[], None]]:
        """See StoredFeed.watch."""
        return self._feed.watch()

    def check(self) -> None:
        """Stored objects can be told whoever leads."""

    def here(self) -> Position:
        """The place up to which everything is told when it is told now."""
        return Position(revision=self._mirror.revision, incarnation=_incarnation(self._mirror))

    async def since(self, place: Position) -> tuple[list[str] | None, str]:
        """The keys that changed behind that place; (None, why) when that cannot be told."""
        try:
            async with asyncio.timeout(HISTORY_SECONDS):
                # The caller may have seen more at another scheduler than is here yet.
                await self._mirror.wait_for(place.revision)
        except TimeoutError:
            return None, f"this scheduler's store is not at revision {place.revision}"
        if place.incarnation != _incarnation(self._mirror):
            return None, "the store was restored or migrated meanwhile"
        keys = self._feed.since(place.revision)
        if keys is not None:
            return keys, ""
        try:
            async with asyncio.timeout(HISTORY_SECONDS):
                return await self._history(place.revision), ""
        except Compacted as error:
            return None, str(error)
        except (StoreError, TimeoutError) as error:
            return None, f"the store's history cannot be read: {str(error) or 'it does not answer'}"

    async def _history(self, after: int) -> list[str]:
        """The keys that changed between that revision and what is here. Raises StoreError."""
        found: dict[str, None] = {}
        upto = self._mirror.revision
        if after >= upto:
            return []
        async with aclosing(self._store.watch("", after)) as watch:
            async for batch in watch:
                for change in batch.changes:
                    found.update(dict.fromkeys(shown_keys(change.key)))
                if batch.revision >= upto:
                    break
        return list(found)

    def snapshot(self) -> Snapshot:
        """What is stored, and nothing observed."""
        now, now_ms = self._clock.boottime(), self._clock.wall_ms()
        return Snapshot(self._mirror.tables, Observed(), now, now_ms)

    def keys(self, stack: str, kinds: frozenset[str]) -> Iterator[str]:
        """The keys of all objects of these kinds."""
        return _stored_keys(self.snapshot(), stack, kinds)

    def told(self, response: control_pb2.WatchResponse) -> control_pb2.WatchResponse:
        """What is sent of an object: nothing that somebody observes, or that is counted."""
        view: Any
        match response.WhichOneof("object"):
            case "service":
                view = control_pb2.ServiceView(
                    service=response.service.service, spec=response.service.spec
                )
                if response.service.HasField("rollout"):
                    view.rollout.CopyFrom(response.service.rollout)
                response.service.CopyFrom(view)
            case "task":
                for field in ("status", "usage", "unknown", "objections"):
                    response.task.ClearField(field)
            case "node":
                view = control_pb2.NodeView(node=response.node.node)
                response.node.CopyFrom(view)
            case _:
                pass  # nothing in it is observed
        return response


def _stored_keys(snapshot: Snapshot, stack: str, kinds: frozenset[str]) -> Iterator[str]:
    stored = snapshot.stored
    if "stacks" in kinds:
        yield from (f"stacks/{each.name}" for each in stored.stacks())
    if kinds & {"services", "tasks"}:
        for service in sorted(stored.services(), key=lambda each: each.id):
            if stack not in ("", service.stack):
                continue
            if "services" in kinds:
                yield f"services/{service.id}"
            if "tasks" in kinds:
                yield from (f"tasks/{task.id}" for task in stored.tasks_of_service(service.id))
    if "nodes" in kinds:
        yield from (f"nodes/{node.id}" for node in stored.nodes())


def response_of(views: Views, key: str, only_stack: str) -> control_pb2.WatchResponse | None:
    """The object of this key as it is now, or that it is gone; None: not to be told."""
    stored, observed = views.snapshot.stored, views.snapshot.observed
    kind, _, rest = key.partition("/")
    gone = control_pb2.WatchResponse(deleted=key)
    match kind:
        case "stacks":
            if only_stack not in ("", rest):
                return None
            stack = stored.stack(rest)
            return gone if stack is None else _response(stack=views.stack(stack))
        case "services":
            service = stored.service(ServiceId(rest))
            if service is None:
                return gone
            if only_stack not in ("", service.stack):
                return None
            return _response(service=views.service(service))
        case "tasks":
            return _task(views, TaskId(rest), only_stack, gone)
        case "nodes":
            node = stored.node(NodeId(rest))
            return gone if node is None else _response(node=views.node(node))
        case "events":
            event = observed.event(int(rest))
            if event is None or not selection.is_of_stack(stored, event, only_stack):
                return None
            return _response(event=views.event(event))
        case _:
            return None


def _task(
    views: Views, task_id: TaskId, only_stack: str, gone: control_pb2.WatchResponse
) -> control_pb2.WatchResponse | None:
    stored = views.snapshot.stored
    service_id, slot, n = split_task_id(task_id)
    service = stored.service(service_id)
    if service is not None and only_stack not in ("", service.stack):
        return None
    if n == 0:
        waiting = views.snapshot.observed.waiting.get(service_id, {}).get(slot)
        if waiting is None or service is None:
            return gone
        return _response(task=views.waiting(service, waiting))
    task = stored.task(task_id)
    return gone if task is None else _response(task=views.task(task))


def _response(**content: Any) -> control_pb2.WatchResponse:
    return control_pb2.WatchResponse(**content)


def _incarnation(mirror: Mirror) -> int:
    cluster = mirror.tables.cluster
    return cluster.incarnation if cluster is not None else 0
