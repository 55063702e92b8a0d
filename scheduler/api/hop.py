"""Ask another scheduler by gRPC, for a caller who asked this one.

The caller's address, the call's id and what it has seen travel as metadata, its deadline as
the call's; the other's no comes back with its details. A newcomer's mistake: taking every
error for a no. What carries no details of ours was said by the network, not by a scheduler.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from homeport.v1 import control_pb2
from scheduler.api.errors import LeaderLost, Relayed
from scheduler.api.routing import Caller

REQUEST_ID = "x-request-id"
PEER = "x-homeport-peer"
FORWARDED_BY = "x-homeport-forwarded-by"
SEEN_REVISION = "x-homeport-revision"
DETAILS = "grpc-status-details-bin"

_SERVICE = "/homeport.v1.Control/"
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a frozen peer is noticed after 65 s
    ("grpc.http2.max_pings_without_data", 0),
    # A leader that restarts is tried again at once, and not after gRPC's growing pauses.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


class GrpcHop:
    """One connection to whichever scheduler leads."""

    def __init__(self, me: str) -> None:
        """`me`: this scheduler's address, which marks a call as sent on."""
        self._me = me
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def unary(
        self, address: str, method: str, request: Any, caller: Caller, timeout_seconds: float
    ) -> Any:
        """See Hop."""
        call = (await self._channel(address)).unary_unary(
            _SERVICE + method,
            request_serializer=_serialize,
            response_deserializer=_answer_of(method),
        )
        try:
            return await call(request, timeout=timeout_seconds, metadata=self._metadata(caller))
        except grpc.aio.AioRpcError as error:
            raise _told(address, error) from None

    async def stream(
        self, address: str, method: str, requests: Any, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        """See Hop."""
        channel = await self._channel(address)
        is_upload = method == "PushImage"
        kind = "unary_stream" if isinstance(requests, Message) else "stream_stream"
        make = getattr(channel, "stream_unary" if is_upload else kind)(
            _SERVICE + method,
            request_serializer=_serialize,
            response_deserializer=_answer_of(method),
        )
        call = make(requests, timeout=caller.left_seconds, metadata=self._metadata(caller))
        try:
            if is_upload:
                yield await call
                return
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _told(address, error) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Let go of all connections."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()

    async def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            # Streams of a leader that was go on to their end on its own connection.
            while len(self._channels) > 2:
                oldest = next(iter(self._channels))
                await self._channels.pop(oldest).close()
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            self._channels[address] = channel
        return channel

    def _metadata(self, caller: Caller) -> tuple[tuple[str, str], ...]:
        return (
            (FORWARDED_BY, self._me),
            (PEER, caller.peer),
            (REQUEST_ID, caller.request_id),
            (SEEN_REVISION, str(caller.seen_revision)),
        )


def _told(address: str, error: grpc.aio.AioRpcError) -> Relayed | LeaderLost:
    sentence = error.details() or error.code().name.lower().replace("_", " ")
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            try:
                return Relayed(error.code(), sentence, status_pb2.Status.FromString(value))
            except DecodeError:
                break
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
                        grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
                        grpc.StatusCode.INTERNAL):  # fmt: skip
        return LeaderLost(f"the leader at {address} does not answer: {sentence}")
    return Relayed(error.code(), sentence, None)


def _answer_of(method: str) -> Any:
    found = control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name[method]
    return getattr(control_pb2, found.output_type.name).FromString


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
