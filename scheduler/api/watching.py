"""Watch: tell every change of the cluster, or say RESET and tell everything.

Objects are told as they are now, so a slow reader is told less often and never too much. A
newcomer's mistake: giving every message the newest place. A reader that goes away half way
through would come back behind what it has not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from homeport.model import NodeId, ServiceId, TaskId, split_task_id
from homeport.v1 import control_pb2
from scheduler.api import selection
from scheduler.api.errors import Invalid
from scheduler.api.feed import Feed
from scheduler.api.views import Views
from scheduler.store.authority import Authority

Send = Callable[[Any], Awaitable[None]]

KINDS = ("stacks", "services", "tasks", "nodes", "events")
GATHER_SECONDS = 0.03
"""Changes that come within this time are told together."""
CHUNK = 200
"""Objects that are made into messages at once; a snapshot holds no longer."""


async def watch(
    authority: Authority, feed: Feed, request: control_pb2.WatchRequest, send: Send
) -> None:
    """Tell every change until cancelled. Raises Invalid, Unwell at the end of the epoch."""
    kinds = frozenset(request.kinds or KINDS)
    if unknown := kinds - set(KINDS):
        known = ", ".join(KINDS)
        raise Invalid([("kinds", f"{min(unknown)!r} is none of {known}")])
    watcher, end = feed.watch()
    telling = _Telling(authority, feed, request.stack, kinds, send)
    try:
        keys: list[str] | None = None
        if request.HasField("after"):
            keys = feed.since(request.after.epoch, request.after.sequence)
        if keys is None:
            await telling.everything()
        else:
            await telling.changed(keys)
        await telling.synced()
        while True:
            await watcher.wake.wait()
            feed.check()
            await asyncio.sleep(GATHER_SECONDS)
            if watcher.overrun:
                watcher.overrun = False
                watcher.take()
                await telling.everything()
                await telling.synced()
            else:
                await telling.changed(watcher.take())
    finally:
        end()


class _Telling:
    """One watcher's messages."""

    def __init__(
        self, authority: Authority, feed: Feed, stack: str, kinds: frozenset[str], send: Send
    ) -> None:
        self._authority = authority
        self._feed = feed
        self._stack = stack
        self._kinds = kinds
        self._send = send
        self._position = self._here()

    def _here(self) -> control_pb2.WatchPosition:
        return control_pb2.WatchPosition(
            revision=self._authority.mirror.revision,
            epoch=self._feed.epoch,
            sequence=self._feed.sequence,
        )

    async def everything(self) -> None:
        """RESET, then all objects."""
        here = self._here()
        await self._send(control_pb2.WatchResponse(reset=True))
        await self._tell(list(self._all()), here)

    async def changed(self, keys: Iterable[str]) -> None:
        """These objects as they are now."""
        chosen = [key for key in keys if key.partition("/")[0] in self._kinds]
        await self._tell(chosen, self._here())

    async def synced(self) -> None:
        """All that there was has been told."""
        await self._send(control_pb2.WatchResponse(synced=True, position=self._position))

    async def _tell(self, keys: list[str], here: control_pb2.WatchPosition) -> None:
        # A reader that goes away half way must come back to where it was before: only the
        # last message carries the new place. What changes while this is sent is marked again.
        last: control_pb2.WatchResponse | None = None
        for start in range(0, len(keys), CHUNK):
            views = Views(self._authority.snapshot())
            chunk = keys[start : start + CHUNK]
            for response in [self._one(views, key) for key in chunk]:
                if response is None:
                    continue
                if last is not None:
                    last.position.CopyFrom(self._position)
                    await self._send(last)
                last = response
        self._position = here
        if last is not None:
            last.position.CopyFrom(here)
            await self._send(last)

    def _all(self) -> Iterator[str]:
        """The keys of all objects that are to be told."""
        snapshot = self._authority.snapshot()
        stored = snapshot.stored
        if "stacks" in self._kinds:
            yield from (f"stacks/{stack.name}" for stack in stored.stacks())
        if self._kinds & {"services", "tasks"}:
            for service in sorted(stored.services(), key=lambda each: each.id):
                if self._stack not in ("", service.stack):
                    continue
                if "services" in self._kinds:
                    yield f"services/{service.id}"
                if "tasks" in self._kinds:
                    for slot in sorted(snapshot.observed.waiting.get(service.id, {})):
                        yield f"tasks/{service.id}/{slot}/0"
                    for task in stored.tasks_of_service(service.id):
                        yield f"tasks/{task.id}"
        if "nodes" in self._kinds:
            yield from (f"nodes/{node.id}" for node in stored.nodes())
        if "events" in self._kinds:
            yield from (f"events/{event.sequence}" for event in snapshot.observed.events)

    def _one(self, views: Views, key: str) -> control_pb2.WatchResponse | None:
        stored, observed = views.snapshot.stored, views.snapshot.observed
        kind, _, rest = key.partition("/")
        gone = control_pb2.WatchResponse(deleted=key)
        match kind:
            case "stacks":
                if self._stack not in ("", rest):
                    return None
                stack = stored.stack(rest)
                return gone if stack is None else _response(stack=views.stack(stack))
            case "services":
                service = stored.service(ServiceId(rest))
                if service is None:
                    return gone
                if self._stack not in ("", service.stack):
                    return None
                return _response(service=views.service(service))
            case "tasks":
                return self._task(views, TaskId(rest), gone)
            case "nodes":
                node = stored.node(NodeId(rest))
                return gone if node is None else _response(node=views.node(node))
            case "events":
                event = observed.event(int(rest))
                if event is None or not selection.is_of_stack(stored, event, self._stack):
                    return None
                return _response(event=views.event(event))
            case _:
                return None

    def _task(
        self, views: Views, task_id: TaskId, gone: control_pb2.WatchResponse
    ) -> control_pb2.WatchResponse | None:
        stored = views.snapshot.stored
        service_id, slot, n = split_task_id(task_id)
        service = stored.service(service_id)
        if service is not None and self._stack not in ("", service.stack):
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
