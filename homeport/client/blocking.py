"""The client for programs without asyncio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from homeport.client.asking import (
    CHANNEL_OPTIONS,
    PATIENCE_SECONDS,
    Asking,
    OnBreak,
    StreamTries,
    UnaryTries,
)
from homeport.client.failures import failure
from homeport.client.rpcs import Rpcs
from homeport.retrying import LogPlace, WatchPlace
from homeport.v1 import control_pb2

Response = TypeVar("Response", bound=Message)


class Client(Rpcs[Iterator[Any]]):
    """The synchronous client; safe to use from several threads."""

    def __init__(
        self,
        scheduler: str | Sequence[str] | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_break: OnBreak | None = None,
    ) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; see `addresses`.

        `patience_seconds`: how long a watch or log looks for a scheduler to go on at, and
        `on_break` is called with the error and the next address when one has to.
        """

        def dial(address: str) -> grpc.Channel:
            return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)

        super().__init__(
            Asking(scheduler, dial, patience_seconds=patience_seconds, on_break=on_break)
        )

    def __enter__(self) -> Client:
        """For `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        for channel in self._asking.close():
            channel.close()

    def pages(self, rpc: Any, request: Any, field: str) -> Iterator[Any]:
        """See Rpcs."""
        while True:
            page = rpc(request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(self, request: control_pb2.WatchRequest) -> Iterator[control_pb2.WatchResponse]:
        """Changes as they come; ends only by an error or when the generator is closed.

        `synced` is told again, and sometimes RESET, where it goes on at another scheduler.
        """
        return self._stream("Watch", control_pb2.WatchResponse, WatchPlace(request))

    def logs(self, request: control_pb2.LogsRequest) -> Iterator[control_pb2.LogsResponse]:
        """Output of tasks; with `follow` it goes on for ever."""
        return self._stream("Logs", control_pb2.LogsResponse, LogPlace(request))

    def exec(
        self, requests: Iterator[control_pb2.ExecRequest]
    ) -> Iterator[control_pb2.ExecResponse]:
        """Run a command; the first request is the start, `requests` then feeds its input."""
        return self._stream("Exec", control_pb2.ExecResponse, requests)

    def push_image(
        self, requests: Iterable[control_pb2.PushImageRequest], timeout_seconds: float = 3600
    ) -> control_pb2.PushImageResponse:
        """Hand over an image archive in chunks; see `stat_image` for where to go on."""
        call = self._asking.method("PushImage", "stream_unary", control_pb2.PushImageResponse)
        try:
            response: control_pb2.PushImageResponse = call(iter(requests), timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise self._asking.final(failure(error)) from None
        return response

    def backup(self, timeout_seconds: float = 600) -> Iterator[bytes]:
        """The bytes of a backup file (`homeport.backup`); `backup_file.write` keeps them."""
        self.get_cluster(control_pb2.GetClusterRequest())  # finds a scheduler that answers
        call = self._asking.method("Backup", "unary_stream", control_pb2.BackupResponse)
        try:
            for message in call(control_pb2.BackupRequest(), timeout=timeout_seconds):
                yield message.data
        except grpc.RpcError as error:
            raise self._asking.final(failure(error)) from None

    def _unary(
        self, name: str, response: type[Response], request: Message, timeout_seconds: float
    ) -> Response:
        tries = UnaryTries(self._asking, name, response, request, timeout_seconds)
        while True:
            try:
                return tries.answered(tries.begin())
            except grpc.RpcError as error:
                pause = tries.failed(error)
            time.sleep(pause)

    def _stream(self, name: str, response: type[Response], what: Any) -> Iterator[Response]:
        # A unary call first: it finds a scheduler that answers, or says at once that none does.
        self.get_cluster(control_pb2.GetClusterRequest())
        tries = StreamTries(self._asking, name, response, what)
        while True:
            call = tries.begin()
            try:
                for message in call:
                    if tries.is_new(message):
                        yield message
            except grpc.RpcError as error:
                pause = tries.failed(error)
            else:
                return
            finally:
                call.cancel()
            time.sleep(pause)
