"""Watch: tell every change of the cluster, or say RESET, with its reason, and tell everything.

Objects are told as they are now, so a slow reader is told less often and never too much. A
newcomer's mistake: giving every message the newest place. A reader that goes away half way
through would come back behind what it has not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

from homeport.v1 import control_pb2
from scheduler.api.errors import Invalid
from scheduler.api.feed import Watcher
from scheduler.api.sources import KINDS, response_of
from scheduler.api.views import Views
from scheduler.cluster.snapshot import Snapshot

Send = Callable[[Any], Awaitable[None]]

GATHER_SECONDS = 0.03
"""Changes that come within this time are told together."""
CHUNK = 200
"""Objects that are made into messages at once; a snapshot holds no longer."""


class Source(Protocol):
    """Where a watch reads; `sources` has the two."""

    def watch(self) -> tuple[Watcher, Callable[[], None]]:
        """A watcher that is told of everything from now on, and what ends it."""
        ...

    def check(self) -> None:
        """Raise Unwell when there is nothing more to be told here."""
        ...

    def here(self) -> control_pb2.WatchPosition:
        """The place up to which everything is told when it is told now."""
        ...

    async def since(self, place: control_pb2.WatchPosition) -> tuple[list[str] | None, str]:
        """The keys that changed behind that place; (None, why) when that cannot be told."""
        ...

    def snapshot(self) -> Snapshot:
        """The cluster as it is now."""
        ...

    def keys(self, stack: str, kinds: frozenset[str]) -> Iterator[str]:
        """The keys of all objects of these kinds."""
        ...

    def told(self, response: control_pb2.WatchResponse) -> control_pb2.WatchResponse:
        """What is sent of an object."""
        ...


async def watch(source: Source, request: control_pb2.WatchRequest, send: Send) -> None:
    """Tell every change until cancelled. Raises Invalid, Unwell when the source ends."""
    kinds = frozenset(request.kinds or KINDS)
    if unknown := kinds - set(KINDS):
        known = ", ".join(KINDS)
        raise Invalid([("kinds", f"{min(unknown)!r} is none of {known}")])
    watcher, end = source.watch()
    telling = _Telling(source, request.stack, kinds, send)
    try:
        keys: list[str] | None = None
        reason, here = "", source.here()
        if request.HasField("after"):
            # What happens while this is found out is marked, and told again: no gap.
            keys, reason = await source.since(request.after)
        if keys is None:
            await telling.everything(reason)
        else:
            telling.position = request.after
            await telling.changed(keys, here)
        await telling.synced()
        while True:
            await watcher.wake.wait()
            source.check()
            await asyncio.sleep(GATHER_SECONDS)
            if watcher.overrun:
                watcher.take()
                await telling.everything("more has changed than is kept for a slow reader")
                await telling.synced()
            else:
                await telling.changed(watcher.take())
    finally:
        end()


class _Telling:
    """One watcher's messages."""

    def __init__(self, source: Source, stack: str, kinds: frozenset[str], send: Send) -> None:
        self.position: control_pb2.WatchPosition | None = None
        """Where a reader that goes away now has to come back to; None: to the beginning."""
        self._source = source
        self._stack = stack
        self._kinds = kinds
        self._send = send

    async def everything(self, reason: str) -> None:
        """RESET, then all objects."""
        self.position = None
        here = self._source.here()
        await self._send(control_pb2.WatchResponse(reset=True, reset_reason=reason))
        await self._tell(list(self._source.keys(self._stack, self._kinds)), here)

    async def changed(
        self, keys: Iterable[str], here: control_pb2.WatchPosition | None = None
    ) -> None:
        """These objects as they are now; `here`: the place when they were found out."""
        chosen = [key for key in keys if key.partition("/")[0] in self._kinds]
        await self._tell(chosen, here or self._source.here())

    async def synced(self) -> None:
        """All that there was has been told."""
        await self._send(control_pb2.WatchResponse(synced=True, position=self.position))

    async def _tell(self, keys: list[str], here: control_pb2.WatchPosition) -> None:
        # A reader that goes away half way must come back to where it was before: only the
        # last message carries the new place. What changes while this is sent is marked again.
        last: control_pb2.WatchResponse | None = None
        for start in range(0, len(keys), CHUNK):
            views = Views(self._source.snapshot())
            chunk = keys[start : start + CHUNK]
            for response in [response_of(views, key, self._stack) for key in chunk]:
                if response is None:
                    continue
                if last is not None:
                    if self.position is not None:
                        last.position.CopyFrom(self.position)
                    await self._send(last)
                last = self._source.told(response)
        self.position = here
        if last is not None:
            last.position.CopyFrom(here)
            await self._send(last)
