"""Fetch images that were built by `apply --build` from a scheduler, which keeps their archives.

An archive comes in chunks into a partial file, goes on where an earlier try ended, and is
given to the engine only when its checksum is right. A newcomer's mistake: fetching one
archive once per task; one fetch is under way at a time, and who waited looks again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from agent.identity import Identity
from agent.runtime.base import Progress, Rejected, Runtime, Unavailable
from homeport.seams import LinkLost, SchedulerLink
from homeport.v1 import dispatcher_pb2

STALL_SECONDS = 30.0
"""Without a chunk for so long the fetch is given up, and goes on later where it was."""
READ_BYTES = 1024 * 1024

log = structlog.get_logger(__name__)


class Images:
    """The images that came from a scheduler and not from a registry."""

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        *,
        link: Callable[[], SchedulerLink | None],
        identity: Callable[[], Identity],
    ) -> None:
        self._runtime = runtime
        self._folder = folder
        self._link = link
        self._identity = identity
        self._here: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, image_id: str, progress: Progress) -> None:
        """Have the image of this id in the engine. Raises Rejected, Unavailable."""
        if image_id in self._here:
            return
        async with self._one_at_a_time:
            if not await self._runtime.has_image(image_id):
                archive = await self._fetch(image_id, progress)
                progress("loading the image into the engine")
                await self._runtime.load_image(str(archive))
                archive.unlink(missing_ok=True)
                if not await self._runtime.has_image(image_id):
                    raise Rejected(f"the archive of image {image_id} holds another image")
            self._here.add(image_id)

    async def _fetch(self, image_id: str, progress: Progress) -> Path:
        link = self._link()
        if link is None:
            raise Unavailable(f"waits for a scheduler, which has image {image_id}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return await self._receive(link, image_id, progress)
        except LinkLost as error:
            raise Unavailable(f"fetching image {image_id}: {error}; goes on later") from error
        except OSError as error:
            raise Unavailable(f"cannot keep image {image_id}: {error}") from error

    async def _receive(self, link: SchedulerLink, image_id: str, progress: Progress) -> Path:
        partial = self._folder / (image_id.replace(":", "-").replace("/", "-") + ".partial")
        hashed = hashlib.sha256()
        with partial.open("ab+") as file:
            await _hash_rest(file, hashed)
            identity = self._identity()
            hello = dispatcher_pb2.BulkHello(
                cluster_id=identity.cluster_id,
                node_id=identity.node_id,
                image=dispatcher_pb2.ImageWork(image_id=image_id, offset=file.tell()),
            )
            stream = link.bulk()
            last: Any = None
            try:
                await stream.send(dispatcher_pb2.BulkRequest(hello=hello))
                async with asyncio.timeout(STALL_SECONDS) as limit:
                    async for message in stream:
                        limit.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS)
                        if message.HasField("end"):
                            if message.end.error:
                                raise Unavailable(message.end.error)
                            break
                        last = message.image_chunk
                        if last.offset != file.tell():
                            raise LinkLost("a chunk is missing")
                        file.write(last.data)
                        hashed.update(last.data)
                        part = 100 * file.tell() // max(1, last.total_bytes)
                        progress(f"fetching the image from the scheduler: {part} %")
                    else:
                        raise LinkLost("the call ended early")
            except TimeoutError:
                raise LinkLost(f"nothing came for {STALL_SECONDS:g} s") from None
            finally:
                await stream.close()
        if last is None or hashed.hexdigest() != last.archive_digest:
            # Without a chunk there is nothing to check against: begin anew.
            partial.unlink(missing_ok=True)
            raise Unavailable(f"the archive of image {image_id} came damaged; fetches it anew")
        log.info("fetched an image", image=image_id, size_bytes=last.total_bytes)
        return partial


async def _hash_rest(file: Any, hashed: Any) -> None:
    """Take what an earlier try left into the checksum, without holding up everybody else."""
    file.seek(0)
    while block := file.read(READ_BYTES):
        hashed.update(block)
        await asyncio.sleep(0)
