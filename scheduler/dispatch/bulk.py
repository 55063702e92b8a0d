"""Bulk work: an agent opens a call for each log, command or image, and is matched to who waits.

The scheduler never dials. It asks through the session (`OpenBulk`), and the agent's call
that carries the same id is handed to whoever asked; nobody waits longer than the deadline.
Images go the other way: an agent that lacks one opens a call by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from homeport.model import NodeId
from homeport.seams import LinkLost, Randomness, Stream, identifier
from homeport.v1 import dispatcher_pb2
from scheduler.store.images import CHUNK_BYTES, ImageError, Images

OPEN_SECONDS = 10.0
"""How long an agent may take to open the call that it was asked for."""

Post = Callable[[NodeId, dispatcher_pb2.SessionResponse], bool]
"""Send into a node's session; False when it has none."""


@dataclass(slots=True)
class _Waiting:
    node: NodeId
    arrived: asyncio.Future[tuple[Stream, AsyncIterator[Any]]]
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class BulkCall:
    """An agent's call, seen from the scheduler."""

    requests: AsyncIterator[Any]  # dispatcher_pb2.BulkRequest
    stream: Stream

    async def send(self, message: dispatcher_pb2.BulkResponse) -> None:
        """Send to the agent. Raises LinkLost."""
        await self.stream.send(message)


class Bulk:
    """Matches bulk calls to those who asked for them."""

    def __init__(self, randomness: Randomness, post: Post, images: Images | None) -> None:
        """`images` None: this scheduler keeps none."""
        self._randomness = randomness
        self._post = post
        self._images = images
        self._waiting: dict[str, _Waiting] = {}

    @asynccontextmanager
    async def open(
        self, node: NodeId, work: dispatcher_pb2.LogsWork | dispatcher_pb2.ExecWork
    ) -> AsyncIterator[BulkCall]:
        """Have a node's agent do this work. Raises LinkLost when it cannot be reached."""
        bulk_id = identifier(self._randomness)
        ask = dispatcher_pb2.OpenBulk(bulk_id=bulk_id)
        if isinstance(work, dispatcher_pb2.LogsWork):
            ask.logs.CopyFrom(work)
        else:
            ask.exec.CopyFrom(work)
        waiting = _Waiting(node, asyncio.get_running_loop().create_future())
        self._waiting[bulk_id] = waiting
        try:
            if not self._post(node, dispatcher_pb2.SessionResponse(open_bulk=ask)):
                raise LinkLost(f"the agent of node {node} is not connected")
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    stream, requests = await waiting.arrived
            except TimeoutError:
                raise LinkLost(
                    f"the agent of node {node} did not open the call within {OPEN_SECONDS:g} s"
                ) from None
            yield BulkCall(requests, stream)
        finally:
            self._waiting.pop(bulk_id, None)
            waiting.done.set()

    async def serve(self, stream: Stream, hello: Any, requests: AsyncIterator[Any]) -> None:
        """Serve one call of an agent whose hello has been read."""
        if hello.HasField("image"):
            await self._send_image(stream, hello.image)
            return
        waiting = self._waiting.pop(hello.bulk_id, None)
        if waiting is None or waiting.node != hello.node_id or waiting.arrived.done():
            await _end(stream, "nobody waits for this any more")
            return
        waiting.arrived.set_result((stream, requests))
        await waiting.done.wait()

    async def _send_image(self, stream: Stream, work: dispatcher_pb2.ImageWork) -> None:
        try:
            archive = await self._images.whole(work.image_id) if self._images else None
        except ImageError as error:
            await _end(stream, str(error))
            return
        if archive is None or self._images is None:
            await _end(stream, f"the archive of image {work.image_id} is not on this scheduler")
            return
        offset = max(0, work.offset)
        while offset < archive.total_bytes:
            try:
                data = await self._images.read(archive, offset)
            except ImageError as error:
                await _end(stream, str(error))
                return
            if not data:
                await _end(stream, "the archive ended early")
                return
            chunk = dispatcher_pb2.ImageChunk(
                offset=offset,
                data=data[:CHUNK_BYTES],
                total_bytes=archive.total_bytes,
                archive_digest=archive.digest,
            )
            await stream.send(dispatcher_pb2.BulkResponse(image_chunk=chunk))
            offset += len(data)
        await _end(stream, "")


async def _end(stream: Stream, error: str) -> None:
    end = dispatcher_pb2.BulkEnd(error=error)
    await stream.send(dispatcher_pb2.BulkResponse(end=end))
