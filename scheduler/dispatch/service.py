"""The gRPC face of the three lanes: streams in, streams out, errors as status codes.

Nothing is decided here. A newcomer's mistake: expecting gRPC to tell how a stream ended;
a killed agent, a closed one and a cancelled one look alike, so only a goodbye counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from homeport.seams import LinkLost
from homeport.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from scheduler.dispatch.lanes import Lanes

Context = grpc.aio.ServicerContext[Any, Any]


class ServerStream:
    """One lane seen from the scheduler, as a `homeport.seams.Stream`."""

    def __init__(self, requests: AsyncIterator[Any], context: Context) -> None:
        """Both as grpc.aio hands them to a handler."""
        self._requests = requests
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        """What the agent sends."""
        return aiter(self._requests)

    async def send(self, message: Any) -> None:
        """Send one message. Raises LinkLost."""
        try:
            await self._context.write(message)
        except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.BaseError) as error:
            raise LinkLost(f"the agent is gone: {error}") from error
        except asyncio.InvalidStateError as error:  # the call was over already
            raise LinkLost("the agent is gone") from error

    async def close(self) -> None:
        """The lane closes when its handler returns."""


# The generated base declares streams as generators; these write instead, because orders go out
# from another coroutine than the one that reads.
class DispatcherService(dispatcher_pb2_grpc.DispatcherServicer):
    """homeport.v1.Dispatcher. Errors that pass through here are mapped by the interceptor."""

    def __init__(self, lanes: Lanes) -> None:
        """`lanes` outlives every epoch."""
        self._lanes = lanes

    async def Join(  # noqa: N802 (gRPC's name)
        self,
        request: dispatcher_pb2.JoinRequest,
        context: Context,  # noqa: ARG002
    ) -> dispatcher_pb2.JoinResponse:
        """See the contract."""
        return await self._lanes.join(request)

    async def Heartbeat(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> None:
        """See the contract."""
        await _until_lost(self._lanes.heartbeat(ServerStream(request_iterator, context)))

    async def Session(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> None:
        """See the contract."""
        await _until_lost(self._lanes.session(ServerStream(request_iterator, context)))

    async def Bulk(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> None:
        """See the contract."""
        await _until_lost(self._lanes.bulk(ServerStream(request_iterator, context)))


async def _until_lost(lane: Any) -> None:
    try:
        await lane
    except LinkLost:
        return  # the agent is gone: there is nobody to tell
