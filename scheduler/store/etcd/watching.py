"""A watch that outlives its connection: it resumes where it was, on whichever member answers.

The position is the last revision of which everything was handed on. A new stream begins *at*
it, not behind it, and drops what is known: etcd then tells a compaction that went past the
position, and only that.

Progress notifications are asked for, for two reasons. They are a pulse: a stream on which
nothing is heard although it was asked is ended, because a frozen member keeps its connections.
And they tell that nothing is missing up to a revision that others made, who share the etcd;
but etcd before 3.4.25 and 3.5.8 may send one ahead of the events that it speaks of, so from
those versions only the pulse is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
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
from scheduler.store.etcd.health import has_safe_progress
from scheduler.store.etcd.member import Member
from scheduler.store.etcd.messages import Keys, change_of

PULSE_SECONDS = 4.0
"""After so long a silence the member is asked for a sign of life, and so long it may take."""
ASK_SECONDS = 0.03
"""Between two questions of how far a watch is, while somebody waits for it."""

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
        connection.on_failure = self._leave

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
                        if batch.revision > position:
                            position = batch.revision
                            yield batch
            except _Broken as error:
                self._connection.check_open()
                if not trouble:
                    log.warning("a watch broke off", prefix=prefix, after=position, why=str(error))
                trouble = str(error)
            await asyncio.sleep(jittered(pause, self._randomness))
            pause = min(2 * pause, BACKOFF_SECONDS_MAX)

    def seen(self, revision: int) -> None:
        """A read told this revision; streams that are behind it ask how far they are."""
        for stream in self._streams:
            stream.want(revision)

    def _leave(self, member: Member, why: str) -> None:
        """Streams of a member that fails go on elsewhere, before their own pulse would tell."""
        for stream in tuple(self._streams):
            if stream.member is member:
                stream.end(why)

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
                if response.fragment:
                    continue
                if changes:
                    stream.reached = changes[-1].version
                    yield Batch(stream.reached, tuple(changes))
                    changes = []
                elif stream.tells_progress and not (response.created or response.events):
                    stream.reached = max(stream.reached, response.header.revision)
                    yield Batch(stream.reached, ())
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
            if not member.version:
                with suppress(grpc.aio.AioRpcError):
                    await member.status(TRY_SECONDS)
        self._connection.check_open()
        key, end = self._keys.range(prefix)
        create = rpc_pb2.WatchCreateRequest(
            key=key, range_end=end, start_revision=position, fragment=True
        )
        stream = _Stream(member, metadata, rpc_pb2.WatchRequest(create_request=create), position)
        self._streams.add(stream)
        return stream


class _Stream:
    """One Watch call and its pulse."""

    def __init__(self, member: Member, metadata: Any, create: Any, position: int) -> None:
        self.member = member
        self.ended = ""
        """Why we ended it; empty while we did not."""
        self.reached = position
        """Up to here everything was told."""
        self.tells_progress = has_safe_progress(member.version)
        self._wanted = 0
        self._want = asyncio.Event()
        self._create = create
        self._responses = 0
        self._call = member.watch.Watch(self._requests(), metadata=metadata)

    async def read(self) -> Any:
        """The next response. Raises AioRpcError; CancelledError after `end`."""
        response = await self._call.read()
        self._responses += 1
        if response is grpc.aio.EOF:
            raise _Broken("etcd closed it")
        return response

    def want(self, revision: int) -> None:
        """Find out soon whether everything up to this revision was told."""
        if self.tells_progress and revision > max(self.reached, self._wanted):
            self._wanted = revision
            self._want.set()

    def end(self, why: str) -> None:
        """End the call."""
        self.ended = self.ended or why
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[Any]:
        """What we send: the request, then a question when it is quiet or somebody wants to know."""
        progress = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
        yield self._create
        while True:
            heard = self._responses
            try:
                async with asyncio.timeout(PULSE_SECONDS):
                    await self._want.wait()
            except TimeoutError:
                if self._responses > heard:
                    continue
                yield progress
                await asyncio.sleep(PULSE_SECONDS)
                if self._responses == heard:
                    self.end(f"nothing heard for {2 * PULSE_SECONDS:.0f} s")
                    return
                continue
            # Mostly the events are on their way; and a watch that is behind does not answer.
            await asyncio.sleep(ASK_SECONDS)
            if self.reached < self._wanted:
                yield progress
            else:
                self._want.clear()
