"""Answers that are streams: watches, output of tasks, commands in tasks, backups."""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import AsyncIterator

from homeport import backup
from homeport.v1 import control_pb2
from scheduler.api import bulkwork, sources, watching
from scheduler.api.answering import Answering
from scheduler.api.errors import Unwell
from scheduler.api.receiving import CHUNK_MAX
from scheduler.api.watching import Send
from scheduler.store import renewal

BACKUP_CHUNK_BYTES = 256 * 1024


class Streaming(Answering):
    """Each method sends its answers with `send`, and returns when there are no more."""

    async def Watch(self, request: control_pb2.WatchRequest, send: Send) -> None:
        """See the contract."""
        await watching.watch(self._source(request), request, send)

    async def Logs(self, request: control_pb2.LogsRequest, send: Send) -> None:
        """See the contract."""
        lead = self._leading()
        await bulkwork.logs(lead.authority, lead.feed, lead.bulk, request, send)

    async def Exec(self, requests: AsyncIterator[control_pb2.ExecRequest], send: Send) -> None:
        """See the contract."""
        lead = self._leading()
        await bulkwork.exec_(lead.authority, lead.bulk, requests, send)

    async def Backup(self, _request: control_pb2.BackupRequest, send: Send) -> None:
        """See the contract."""
        listing = await self._store.list("")
        try:
            header = renewal.header_of(listing, self._store.name, self._clock.wall_ms())
        except renewal.NotARecord as error:
            raise Unwell(str(error)) from error
        chunk = bytearray()
        for piece in backup.encode(header, renewal.entries_of(listing)):
            chunk += piece
            if len(chunk) >= BACKUP_CHUNK_BYTES:
                for start in range(0, len(chunk), CHUNK_MAX):
                    data = bytes(chunk[start : start + CHUNK_MAX])
                    await send(control_pb2.BackupResponse(data=data))
                chunk.clear()
        await send(control_pb2.BackupResponse(data=bytes(chunk)))

    def _source(self, request: control_pb2.WatchRequest) -> watching.Source:
        if sources.is_of_stored(request):
            return sources.Stored(self._store, self.mirror, self.changes, self._clock)
        lead = self._leading()
        return sources.Leading(lead.authority, lead.feed)
