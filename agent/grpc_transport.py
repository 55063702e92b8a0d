"""Reach schedulers by gRPC: the seams' Transport, SchedulerLink and Stream.

The only module of the agent that knows gRPC. A newcomer's mistake: trusting gRPC to notice
a frozen peer; without `http2.ping_timeout_ms` beside the keepalive settings that takes
more than a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio

from homeport.seams import LinkLost, Refused
from homeport.v1 import dispatcher_pb2_grpc

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Sessions does the waiting between tries; gRPC's own would add to it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.enable_retries", 0),
)

_NO = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class GrpcTransport:
    """Dials in plain text; `credentials` is the place of TLS."""

    def __init__(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        """None: plain text, for the loopback or by the operator's explicit word."""
        self._credentials = credentials

    def connect(self, address: str, /) -> GrpcLink:
        """A link to the scheduler at HOST:PORT; dials when it is first used."""
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        else:
            channel = grpc.aio.secure_channel(address, self._credentials, options=OPTIONS)
        return GrpcLink(channel)


class GrpcLink:
    """One channel and the calls on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: Any = dispatcher_pb2_grpc.DispatcherStub(channel)
        self._streams: list[GrpcStream] = []

    async def join(self, request: Any, /) -> Any:
        """Dispatcher.Join; raises LinkLost, or Refused with the scheduler's sentence."""
        try:
            return await self._stub.Join(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO:
                raise Refused(error.details() or error.code().name) from error
            raise LinkLost(_sentence(error)) from error

    def heartbeat(self) -> GrpcStream:
        """Open the heartbeat lane."""
        return self._open(self._stub.Heartbeat())

    def session(self) -> GrpcStream:
        """Open the lane of orders and reports."""
        return self._open(self._stub.Session())

    def bulk(self) -> GrpcStream:
        """Open one bulk call."""
        return self._open(self._stub.Bulk())

    async def close(self) -> None:
        """End all lanes. Never raises."""
        for stream in self._streams:
            stream.cancel()
        await self._channel.close()

    def _open(self, call: Any) -> GrpcStream:
        self._streams = [stream for stream in self._streams if not stream.is_done]
        stream = GrpcStream(call)
        self._streams.append(stream)
        return stream


class GrpcStream:
    """One bidirectional call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    @property
    def is_done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """What the other side sends. Raises LinkLost."""
        while True:
            with self._translated():
                message = await self._call.read()
            if message is grpc.aio.EOF:
                break
            yield message
        with self._translated():
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise LinkLost(await self._call.details() or code.name)

    async def send(self, message: Any, /) -> None:
        """Send one message; waits while the other side is slower. Raises LinkLost."""
        with self._translated():
            await self._call.write(message)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise LinkLost(_sentence(error)) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise LinkLost(f"the call is over: {error}") from error
        except asyncio.CancelledError:
            # gRPC cancels whoever waits for a call that was cancelled, as `close` of the link
            # does; but that is the end of the call, and not of the waiting task.
            task = asyncio.current_task()
            if self._call.cancelled() and task is not None and not task.cancelling():
                raise LinkLost("the link was closed") from None
            raise

    async def close(self) -> None:
        """Say that nothing more will be sent. Never raises."""
        with contextlib.suppress(LinkLost):  # then it is over already
            if not self._call.done():
                with self._translated():
                    await self._call.done_writing()

    def cancel(self) -> None:
        """End the call at once."""
        self._call.cancel()


def _sentence(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"
