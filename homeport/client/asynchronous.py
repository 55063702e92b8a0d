"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from homeport.client.asking import (
    CHANNEL_OPTIONS,
    PATIENCE_SECONDS,
    Asking,
    OnBreak,
    StreamTries,
    UnaryTries,
)
from homeport.client.rpcs import Rpcs
from homeport.retrying import LogPlace, WatchPlace
from homeport.v1 import control_pb2

Response = TypeVar("Response", bound=Message)


class AsyncClient(Rpcs[AsyncIterator[Any]]):
    """The client for asyncio: unary methods are coroutines, streams asynchronous iterators."""

    def __init__(
        self,
        scheduler: str | Sequence[str] | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_break: OnBreak | None = None,
    ) -> None:
        """See Client."""

        def dial(address: str) -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)

        super().__init__(
            Asking(scheduler, dial, patience_seconds=patience_seconds, on_break=on_break)
        )

    async def __aenter__(self) -> AsyncClient:
        """For `async with`."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        for channel in self._asking.close():
            await channel.close()

    async def pages(self, rpc: Any, request: Any, field: str) -> AsyncIterator[Any]:
        """See Rpcs."""
        while True:
            page = await rpc(request)
            for each in getattr(page, field):
                yield each
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def exec(self, requests: AsyncIterator[control_pb2.ExecRequest]) -> AsyncIterator[Any]:
        """Run a command; the first request is the start, `requests` then feeds its input."""
        return self._stream("Exec", control_pb2.ExecResponse, requests)

    def watch(self, request: control_pb2.WatchRequest) -> AsyncIterator[Any]:
        """Changes as they come; ends only by an error or when the iteration is left."""
        return self._stream("Watch", control_pb2.WatchResponse, WatchPlace(request))

    def logs(self, request: control_pb2.LogsRequest) -> AsyncIterator[Any]:
        """Output of tasks; with `follow` it goes on for ever."""
        return self._stream("Logs", control_pb2.LogsResponse, LogPlace(request))

    async def _unary(
        self, name: str, response: type[Response], request: Message, timeout_seconds: float
    ) -> Response:
        tries = UnaryTries(self._asking, name, response, request, timeout_seconds)
        while True:
            try:
                return tries.answered(await tries.begin())
            except grpc.RpcError as error:
                pause = tries.failed(error)
            await asyncio.sleep(pause)

    async def _stream(
        self, name: str, response: type[Response], what: Any
    ) -> AsyncIterator[Response]:
        # A unary call first: it finds a scheduler that answers, or says at once that none does.
        await self.get_cluster(control_pb2.GetClusterRequest())
        tries = StreamTries(self._asking, name, response, what)
        while True:
            call = tries.begin()
            try:
                async for message in call:
                    if tries.is_new(message):
                        yield message
            except grpc.RpcError as error:
                pause = tries.failed(error)
            else:
                return
            finally:
                call.cancel()
            await asyncio.sleep(pause)
