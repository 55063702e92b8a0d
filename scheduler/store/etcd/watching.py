"""A watch that outlives its connection: it resumes where it was, on whichever member answers.

The position is the last revision of which everything was handed on. A new stream begins *at*
it, not behind it, and drops what is known: etcd then tells a compaction that went past the
position, and only that. Nothing else moves the position, not even a progress notification:
etcd before 3.4.25 and 3.5.8 may send one ahead of the events that it speaks of. They serve as
a pulse instead: a stream on which nothing is heard although it was asked is ended, because a
frozen member keeps its connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from aetcd.rpc import rpc_pb2

from homeport.seams import Randomness, jittered
from scheduler.store.base import EMPTY_REVISION, Batch, Compacted, StoreChange, Unavailable
from scheduler.store.etcd.connection import (
    BACKOFF_SECONDS_MAX,
    BACKOFF_SECONDS_MIN,
    CONNECT_SECONDS,
    TRY_SECONDS,
    Connection,
)
from scheduler.store.etcd.faults import Kind
from scheduler.store.etcd.member import Member
from scheduler.store.etcd.messages import Keys, change_of

PULSE_SECONDS = 2.0
"""After so long a silence the member is asked for a sign of life, and so long it may take."""

log = structlog.get_logger(__name__)


class _Broken(Exception):
    """The stream is over; says why."""


class Watches:
    """All watches of one store."""

    def __init__(self, connection: Connection, keys: Keys, randomness: Randomness) -> None:
        """None yet."""
        self._connection = connection
        self._keys = keys
        self._randomness = randomness
        self._streams: set[_Stream] = set()

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        position = max(after, EMPTY_REVISION)
        pause = BACKOFF_SECONDS_MIN
        trouble = ""
        while True:
            self._connection.check_open()
            try:
                async with aclosing(self._follow(prefix, position)) as batches:
                    async for batch in batches:
                        if trouble:
                            log.info("a watch goes on", prefix=prefix, after=position)
                        pause, trouble = BACKOFF_SECONDS_MIN, ""
                        if batch.changes:
                            position = batch.revision
                            yield batch
            except _Broken as error:
                self._connection.check_open()
                if not trouble:
                    log.warning("a watch broke off", prefix=prefix, after=position, why=str(error))
                trouble = str(error)
            await asyncio.sleep(jittered(pause, self._randomness))
            pause = min(2 * pause, BACKOFF_SECONDS_MAX)

    def close(self) -> None:
        """End all streams; `connection.closed` is set."""
        for stream in tuple(self._streams):
            stream.end("the store is closed")

    async def _follow(self, prefix: str, position: int) -> AsyncGenerator[Batch, None]:
        """One stream, from its beginning to its end, which is _Broken or Compacted.

        Its first batch is empty: the stream stands.
        """
        member = self._connection.preferred
        stream = await self._open(member, prefix, position)
        try:
            changes: list[StoreChange] = []
            while True:
                response = await stream.read()
                if response.compact_revision:
                    raise Compacted(response.compact_revision)
                if response.canceled:
                    # In the words of etcd 3.4 an outlived token is a lack of permission.
                    self._connection.forget_token()
                    raise _Broken(response.cancel_reason or "etcd ended it")
                if response.created:
                    yield Batch(position, ())
                changes += (
                    change_of(self._keys, event)
                    for event in response.events
                    if event.kv.mod_revision > position
                )
                # What etcd cut into fragments is one commit, or several whole ones.
                if changes and not response.fragment:
                    yield Batch(changes[-1].version, tuple(changes))
                    changes = []
        except grpc.aio.AioRpcError as error:
            verdict = self._connection.judged(error)
            if verdict.kind is Kind.OUTDATED:
                self._connection.forget_token()
            else:
                self._connection.report(member, verdict.why)
            raise _Broken(verdict.why) from None
        except asyncio.CancelledError:
            # gRPC says it also of a call that was ended under us, by its pulse or by `close`.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._connection.check_open()
            self._connection.report(member, stream.ended)
            raise _Broken(stream.ended or "it was cut off") from None
        finally:
            self._streams.discard(stream)
            stream.end("")

    async def _open(self, member: Member, prefix: str, position: int) -> _Stream:
        async with self._connection.flight():
            if not await member.ready(CONNECT_SECONDS):
                self._connection.report(member, "no connection in time")
                raise _Broken(f"{member.url} cannot be reached")
            try:
                async with asyncio.timeout(TRY_SECONDS):
                    metadata = await self._connection.metadata(member)
            except (TimeoutError, Unavailable) as error:
                self._connection.report(member, str(error) or "no token in time")
                raise _Broken(str(error)) from None
            except grpc.aio.AioRpcError as error:
                verdict = self._connection.judged(error)
                self._connection.report(member, verdict.why)
                raise _Broken(verdict.why) from None
        self._connection.check_open()
        key, end = self._keys.range(prefix)
        create = rpc_pb2.WatchCreateRequest(
            key=key, range_end=end, start_revision=position, fragment=True
        )
        stream = _Stream(member, metadata, rpc_pb2.WatchRequest(create_request=create))
        self._streams.add(stream)
        return stream


class _Stream:
    """One Watch call and its pulse."""

    def __init__(self, member: Member, metadata: Any, create: Any) -> None:
        self.ended = ""
        """Why we ended it; empty while we did not."""
        self._create = create
        self._heard = True
        self._call = member.watch.Watch(self._requests(), metadata=metadata)

    async def read(self) -> Any:
        """The next response. Raises AioRpcError; CancelledError after `end`."""
        response = await self._call.read()
        self._heard = True
        if response is grpc.aio.EOF:
            raise _Broken("etcd closed it")
        return response

    def end(self, why: str) -> None:
        """End the call."""
        self.ended = self.ended or why
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[Any]:
        """What we send: the request, then a question whenever it has become quiet."""
        yield self._create
        while True:
            self._heard = False
            await asyncio.sleep(PULSE_SECONDS)
            if self._heard:
                continue
            yield rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
            await asyncio.sleep(PULSE_SECONDS)
            if not self._heard:
                self.end(f"nothing heard for {2 * PULSE_SECONDS:.0f} s")
                return
