"""The three lanes and the join call as an agent finds them, whether this scheduler leads or not.

Lives as long as the process, above the transport: gRPC and the simulation call the same
four methods. A scheduler that does not lead says so at once and names the one that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from homeport.seams import LinkLost, Stream
from homeport.v1 import dispatcher_pb2
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.store.authority import NotLeading

HELLO_SECONDS = 10.0
"""How long a fresh lane may take to say its first word."""
RETRY_AFTER_MS = 1_000


class Lanes:
    """What agents call."""

    def __init__(self) -> None:
        """Not leading."""
        self.dispatcher: Dispatcher | None = None  # set while this scheduler leads
        self.leader = ""  # the leader's address, as far as known

    async def join(self, request: dispatcher_pb2.JoinRequest) -> dispatcher_pb2.JoinResponse:
        """Dispatcher.Join. Raises Refused, NotLeading, StoreError."""
        return await self._leading().join(request)

    async def heartbeat(self, stream: Stream) -> None:
        """Dispatcher.Heartbeat. Raises NotLeading, LinkLost."""
        await self._leading().heartbeat(stream, aiter(stream))

    async def session(self, stream: Stream) -> None:
        """Dispatcher.Session. Raises LinkLost."""
        requests = aiter(stream)
        first = await _first(requests)
        if first is None:
            return
        if first.WhichOneof("body") != "hello":
            await _farewell(stream, "a session begins with a hello", "")
        elif self.dispatcher is None:
            await _farewell(stream, str(NotLeading(self.leader)), self.leader)
        else:
            await self.dispatcher.session(stream, first.hello, requests)

    async def bulk(self, stream: Stream) -> None:
        """Dispatcher.Bulk. Raises NotLeading, LinkLost."""
        requests = aiter(stream)
        first = await _first(requests)
        if first is not None and first.WhichOneof("body") == "hello":
            await self._leading().bulk.serve(stream, first.hello, requests)

    def _leading(self) -> Dispatcher:
        if self.dispatcher is None:
            raise NotLeading(self.leader)
        return self.dispatcher


async def _first(requests: AsyncIterator[Any]) -> Any:
    """The first message; None when the lane ends without one."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            return await anext(requests, None)
    except TimeoutError:
        raise LinkLost("the agent did not say hello") from None


async def _farewell(stream: Stream, reason: str, leader: str) -> None:
    farewell = dispatcher_pb2.Farewell(reason=reason, retry_after_ms=RETRY_AFTER_MS, leader=leader)
    await stream.send(dispatcher_pb2.SessionResponse(farewell=farewell))
