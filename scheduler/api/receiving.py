"""Archives of images that users hand over, kept on the leader's disk, where agents fetch them."""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import AsyncIterator

from homeport.v1 import control_pb2
from scheduler.api.answering import Answering
from scheduler.api.errors import Invalid, NotNow

CHUNK_MAX = 3 * 1024 * 1024


class Receiving(Answering):
    """Images."""

    async def StatImage(
        self, request: control_pb2.StatImageRequest
    ) -> control_pb2.StatImageResponse:
        """See the contract."""
        self._leading()
        archive = await self._images.whole(request.image_id)
        if archive is not None:
            return control_pb2.StatImageResponse(complete=True, received_bytes=archive.total_bytes)
        received = await self._images.received_bytes(request.image_id)
        return control_pb2.StatImageResponse(received_bytes=received)

    async def PushImage(
        self, requests: AsyncIterator[control_pb2.PushImageRequest]
    ) -> control_pb2.PushImageResponse:
        """See the contract."""
        self._leading()
        last: control_pb2.PushImageRequest | None = None
        async for request in requests:
            if last is None and (archive := await self._images.whole(request.image_id)) is not None:
                return control_pb2.PushImageResponse(total_bytes=archive.total_bytes)
            if last is not None and request.image_id != last.image_id:
                raise Invalid([("image_id", "one call hands over one image")])
            if len(request.chunk.data) > CHUNK_MAX:
                raise Invalid([("chunk.data", f"at most {CHUNK_MAX} bytes at once")])
            await self._images.append(request.image_id, request.chunk.offset, request.chunk.data)
            last = request
        if last is None:
            raise Invalid([("image_id", "no image was sent")])
        chunk = last.chunk
        received = await self._images.received_bytes(last.image_id)
        if received < chunk.total_bytes:
            raise NotNow(f"{received} of {chunk.total_bytes} bytes are here; go on from there")
        archive = await self._images.finish(last.image_id, chunk.total_bytes, chunk.archive_digest)
        return control_pb2.PushImageResponse(total_bytes=archive.total_bytes)
