"""The Python client of Homeport's gRPC API, synchronous and for asyncio.

    from homeport.client import Client
    from homeport.v1 import control_pb2

    with Client("pi4:7070,pi5:7070") as homeport:
        for task in homeport.tasks(stack="hello"):
            print(task.name, task.node_name)
        homeport.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 3}))

Methods are named after the RPCs and take and give the messages of `homeport.v1`. Any
scheduler answers; of several addresses the next one is tried when one does not. Mutations
carry a request id, which this client fills in, so that a retry after a lost answer changes
nothing twice; and every call says the highest revision that this client has seen, so that no
scheduler answers with less. Watches and logs go on, behind what was read of them, when the
scheduler dies that told them: after a RESET in a watch, all that was told before is void.
Every failure is a `CallFailed` with the server's sentence.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, overload

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from homeport.retrying import (
    LogPlace,
    Place,
    Resumption,
    Route,
    Tries,
    WatchPlace,
    is_transient,
)
from homeport.v1 import control_pb2

DEFAULT_ADDRESS = "127.0.0.1:7070"
ADDRESS_VARIABLE = "HOMEPORT_SCHEDULER"
DEADLINE_SECONDS = 10.0
"""How long a unary call may take, all tries together."""
PATIENCE_SECONDS = 60.0
"""How long a watch or log looks for a scheduler to go on at."""

REQUEST_BYTES_MAX = 4 * 1024 * 1024 - 1024
"""gRPC's stock limit of a message, less a request id and the like."""

_SERVICE = "/homeport.v1.Control/"
_DETAILS_KEY = "grpc-status-details-bin"
_SEEN_KEY = "x-homeport-revision"
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a frozen peer is noticed after 65 s
    ("grpc.http2.max_pings_without_data", 0),  # no limit: a quiet stream is watched all the time
    # Who asks knows when to try again: gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Page = TypeVar("Page")


class CallFailed(Exception):
    """A call did not succeed; `str()` is a sentence for people."""

    def __init__(
        self,
        sentence: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        fields: Sequence[tuple[str, str]] = (),
        metadata: dict[str, str] | None = None,
    ) -> None:
        """`reason`: UPPER_SNAKE for programs; `fields`: (path, sentence) of each bad field."""
        super().__init__(sentence)
        self.code = code
        self.reason = reason
        self.fields = tuple(fields)
        self.metadata = metadata or {}


class Unreachable(CallFailed):
    """No scheduler answered."""


def addresses(given: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """The schedulers to try: as given, else from $HOMEPORT_SCHEDULER, else on this machine.

    Raises ValueError when that names none.
    """
    if given is None:
        given = os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    parts = given.split(",") if isinstance(given, str) else given
    found = tuple(part.strip() for part in parts if part.strip())
    if not found:
        raise ValueError(f"{given!r} names no scheduler, such as {DEFAULT_ADDRESS}")
    return found


def failure(error: Any) -> CallFailed:
    """Our exception for a gRPC error, with what its details say."""
    code = error.code()
    sentence = error.details() or code.name.lower().replace("_", " ")
    reason, metadata, fields = "", {}, []
    status = _status_of(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = [(each.field, each.description) for each in bad.field_violations]
    return CallFailed(sentence, code=code, reason=reason, fields=fields, metadata=metadata)


def _status_of(error: Any) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # from something that is not a scheduler
                return None
    return None


def _prepared(request: Any) -> Any:
    """The request, with an id if it is one that is remembered by its id and has none."""
    size_bytes = request.ByteSize()
    if size_bytes > REQUEST_BYTES_MAX:
        raise CallFailed(
            f"this takes {size_bytes / 2**20:.1f} MiB, and one request carries at most"
            f" {REQUEST_BYTES_MAX / 2**20:.1f}: split the stack, or move large configs into images",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="TOO_LARGE",
        )
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        copy = type(request)()
        copy.CopyFrom(request)
        copy.request_id = secrets.token_hex(16)
        return copy
    return request


OnBreak = Callable[[CallFailed, str], None]
"""Told that a stream broke, and the address that is asked next; once for each break."""


class _Common:
    """What both clients know and decide alike."""

    def __init__(
        self,
        scheduler: str | Sequence[str] | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_break: OnBreak | None = None,
    ) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; see `addresses`."""
        self._route = Route(addresses(scheduler))
        self._patience_seconds = patience_seconds
        self._on_break = on_break
        self.observed_unknown_since_ms = 0
        """As the last answer said: since when no leader could be asked; 0: one could."""
        self._seen_revision = 0
        self._is_closed = False

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((_SEEN_KEY, str(self._seen_revision)),) if self._seen_revision else ()

    def _saw(self, answer: Any) -> None:
        self._seen_revision = max(self._seen_revision, getattr(answer, "revision", 0))
        self.observed_unknown_since_ms = getattr(answer, "observed_unknown_since_ms", 0)

    def _final(self, error: CallFailed) -> CallFailed:
        """The last error of many tries, in words for people."""
        if error.reason or not is_transient(error):
            return error  # a scheduler answered, and said what is the matter
        return Unreachable(
            f"cannot reach a scheduler at {', '.join(self._route.addresses)}: {error}",
            code=error.code,
            reason="UNREACHABLE",
        )

    def _broke(self, error: CallFailed, going_on: Resumption | None) -> float:
        """The pause before a stream goes on. Raises the error where it does not."""
        if going_on is None or self._is_closed:
            raise self._final(error)
        pause = going_on.after(error, time.monotonic())
        if pause is None:
            raise self._final(error)
        if self._on_break is not None and going_on.is_first:
            self._on_break(error, self._route.current)
        return pause


Asked = TypeVar("Asked", bound=Message, contravariant=True)
Answered = TypeVar("Answered", covariant=True)


class UnaryCall(Protocol[Asked, Answered]):
    """A unary RPC, ready to be called."""

    def __call__(self, request: Asked, /, timeout_seconds: float = DEADLINE_SECONDS) -> Answered:
        """The answer; raises CallFailed. `timeout_seconds` covers all tries together."""
        ...


class _Unary(Generic[Request, Response]):
    """One unary RPC as a method of both clients."""

    def __init__(self, name: str, response: type[Response]) -> None:
        self.name = name
        self.response = response

    @overload
    def __get__(self, client: Client, owner: object) -> UnaryCall[Request, Response]: ...
    @overload
    def __get__(
        self, client: AsyncClient, owner: object
    ) -> UnaryCall[Request, Awaitable[Response]]: ...
    def __get__(self, client: Client | AsyncClient, owner: object) -> Any:
        def call(request: Request, timeout_seconds: float = DEADLINE_SECONDS) -> Any:
            return client._unary(self.name, self.response, request, timeout_seconds)

        return call


class _Rpcs:
    """The unary RPCs of Control."""

    apply: _Unary[control_pb2.ApplyRequest, control_pb2.ApplyResponse] = _Unary(
        "Apply", control_pb2.ApplyResponse
    )
    remove_stack: _Unary[control_pb2.RemoveStackRequest, control_pb2.RemoveStackResponse] = _Unary(
        "RemoveStack", control_pb2.RemoveStackResponse
    )
    scale: _Unary[control_pb2.ScaleRequest, control_pb2.ScaleResponse] = _Unary(
        "Scale", control_pb2.ScaleResponse
    )
    list_stacks: _Unary[control_pb2.ListStacksRequest, control_pb2.ListStacksResponse] = _Unary(
        "ListStacks", control_pb2.ListStacksResponse
    )
    list_services: _Unary[control_pb2.ListServicesRequest, control_pb2.ListServicesResponse] = (
        _Unary("ListServices", control_pb2.ListServicesResponse)
    )
    list_tasks: _Unary[control_pb2.ListTasksRequest, control_pb2.ListTasksResponse] = _Unary(
        "ListTasks", control_pb2.ListTasksResponse
    )
    list_nodes: _Unary[control_pb2.ListNodesRequest, control_pb2.ListNodesResponse] = _Unary(
        "ListNodes", control_pb2.ListNodesResponse
    )
    update_node: _Unary[control_pb2.UpdateNodeRequest, control_pb2.UpdateNodeResponse] = _Unary(
        "UpdateNode", control_pb2.UpdateNodeResponse
    )
    remove_node: _Unary[control_pb2.RemoveNodeRequest, control_pb2.RemoveNodeResponse] = _Unary(
        "RemoveNode", control_pb2.RemoveNodeResponse
    )
    adopt_containers: _Unary[
        control_pb2.AdoptContainersRequest, control_pb2.AdoptContainersResponse
    ] = _Unary("AdoptContainers", control_pb2.AdoptContainersResponse)
    forget_containers: _Unary[
        control_pb2.ForgetContainersRequest, control_pb2.ForgetContainersResponse
    ] = _Unary("ForgetContainers", control_pb2.ForgetContainersResponse)
    list_events: _Unary[control_pb2.ListEventsRequest, control_pb2.ListEventsResponse] = _Unary(
        "ListEvents", control_pb2.ListEventsResponse
    )
    explain: _Unary[control_pb2.ExplainRequest, control_pb2.ExplainResponse] = _Unary(
        "Explain", control_pb2.ExplainResponse
    )
    stat_image: _Unary[control_pb2.StatImageRequest, control_pb2.StatImageResponse] = _Unary(
        "StatImage", control_pb2.StatImageResponse
    )
    get_cluster: _Unary[control_pb2.GetClusterRequest, control_pb2.GetClusterResponse] = _Unary(
        "GetCluster", control_pb2.GetClusterResponse
    )
    accept_restore: _Unary[control_pb2.AcceptRestoreRequest, control_pb2.AcceptRestoreResponse] = (
        _Unary("AcceptRestore", control_pb2.AcceptRestoreResponse)
    )


class Client(_Common, _Rpcs):
    """The synchronous client; safe to use from several threads."""

    def __init__(self, scheduler: str | Sequence[str] | None = None, **more: Any) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; `more`: see AsyncClient."""
        super().__init__(scheduler, **more)
        self._channels: dict[str, grpc.Channel] = {}

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
        self._is_closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def tasks(self, stack: str = "", service: str = "", **more: Any) -> Iterator[Any]:
        """Every TaskView there is, over all pages; `more` as in ListTasksRequest."""
        request = control_pb2.ListTasksRequest(stack=stack, service=service, **more)
        return self.pages(self.list_tasks, request, "tasks")

    def services(self, stack: str = "") -> Iterator[Any]:
        """Every ServiceView there is, over all pages."""
        request = control_pb2.ListServicesRequest(stack=stack)
        return self.pages(self.list_services, request, "services")

    def nodes(self) -> Iterator[Any]:
        """Every NodeView there is, over all pages."""
        return self.pages(self.list_nodes, control_pb2.ListNodesRequest(), "nodes")

    def stacks(self) -> Iterator[Any]:
        """Every Stack there is, over all pages."""
        return self.pages(self.list_stacks, control_pb2.ListStacksRequest(), "stacks")

    def pages(self, rpc: UnaryCall[Any, Any], request: Any, field: str) -> Iterator[Any]:
        """All that a paged RPC lists in `field` of its answers; `request` is used up."""
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
        call = self._channel().stream_unary(
            _SERVICE + "PushImage",
            request_serializer=_serialize,
            response_deserializer=control_pb2.PushImageResponse.FromString,
        )
        try:
            response: control_pb2.PushImageResponse = call(iter(requests), timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise self._final(failure(error)) from None
        return response

    def backup(self, timeout_seconds: float = 600) -> Iterator[bytes]:
        """The bytes of a backup file (`homeport.backup`); `backup_file.write` keeps them."""
        self.get_cluster(control_pb2.GetClusterRequest())  # finds a scheduler that answers
        call = self._channel().unary_stream(
            _SERVICE + "Backup",
            request_serializer=_serialize,
            response_deserializer=control_pb2.BackupResponse.FromString,
        )
        try:
            for message in call(control_pb2.BackupRequest(), timeout=timeout_seconds):
                yield message.data
        except grpc.RpcError as error:
            raise self._final(failure(error)) from None

    def _channel(self) -> grpc.Channel:
        address = self._route.current
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel

    def _unary(
        self, name: str, response: type[Response], request: Message, timeout_seconds: float
    ) -> Response:
        request = _prepared(request)
        now = time.monotonic()
        tries = Tries(self._route, now + timeout_seconds, now)
        while True:
            call = self._channel().unary_unary(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )
            limit = tries.timeout_seconds(time.monotonic())
            try:
                answer: Response = call(request, timeout=limit, metadata=self._metadata())
            except grpc.RpcError as error:
                failed = failure(error)
                pause = tries.after(failed, time.monotonic())
                if pause is None or self._is_closed:
                    raise self._final(failed) from None
                time.sleep(pause)
            else:
                self._saw(answer)
                return answer

    def _stream(self, name: str, response: type[Response], what: Any) -> Iterator[Response]:
        # A unary call first: it finds a scheduler that answers, or says at once that none does.
        self.get_cluster(control_pb2.GetClusterRequest())
        place: Place | None = what if isinstance(what, WatchPlace | LogPlace) else None
        going_on = Resumption(self._route, self._patience_seconds) if place is not None else None
        while True:
            kind = "unary_stream" if place is not None else "stream_stream"
            call = getattr(self._channel(), kind)(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )(place.request() if place is not None else what, metadata=self._metadata())
            try:
                for message in call:
                    if going_on is not None:
                        going_on.heard()
                    if place is None or place.is_new(message):
                        yield message
            except grpc.RpcError as error:
                pause = self._broke(failure(error), going_on)
            else:
                return
            finally:
                call.cancel()
            time.sleep(pause)


class AsyncClient(_Common, _Rpcs):
    """The client for asyncio: unary methods are coroutines, streams asynchronous iterators."""

    def __init__(self, scheduler: str | Sequence[str] | None = None, **more: Any) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; see `addresses`.

        `more`: `patience_seconds`, how long a watch or log looks for a scheduler to go on at,
        and `on_break`, called with the error and the next address when one has to.
        """
        super().__init__(scheduler, **more)
        self._channels: dict[str, grpc.aio.Channel] = {}

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
        self._is_closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    def tasks(self, stack: str = "", service: str = "", **more: Any) -> AsyncIterator[Any]:
        """Every TaskView there is, over all pages; `more` as in ListTasksRequest."""
        request = control_pb2.ListTasksRequest(stack=stack, service=service, **more)
        return self.pages(self.list_tasks, request, "tasks")

    def services(self, stack: str = "") -> AsyncIterator[Any]:
        """Every ServiceView there is, over all pages."""
        request = control_pb2.ListServicesRequest(stack=stack)
        return self.pages(self.list_services, request, "services")

    def nodes(self) -> AsyncIterator[Any]:
        """Every NodeView there is, over all pages."""
        return self.pages(self.list_nodes, control_pb2.ListNodesRequest(), "nodes")

    def stacks(self) -> AsyncIterator[Any]:
        """Every Stack there is, over all pages."""
        return self.pages(self.list_stacks, control_pb2.ListStacksRequest(), "stacks")

    async def pages(self, rpc: Any, request: Any, field: str) -> AsyncIterator[Any]:
        """Every item of a list RPC of this client; `field` is where a page has them."""
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

    def _channel(self) -> grpc.aio.Channel:
        address = self._route.current
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel

    async def _unary(
        self, name: str, response: type[Response], request: Message, timeout_seconds: float
    ) -> Response:
        request = _prepared(request)
        now = time.monotonic()
        tries = Tries(self._route, now + timeout_seconds, now)
        while True:
            call = self._channel().unary_unary(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )
            limit = tries.timeout_seconds(time.monotonic())
            try:
                answer: Response = await call(request, timeout=limit, metadata=self._metadata())
            except grpc.aio.AioRpcError as error:
                failed = failure(error)
                pause = tries.after(failed, time.monotonic())
                if pause is None or self._is_closed:
                    raise self._final(failed) from None
                await asyncio.sleep(pause)
            else:
                self._saw(answer)
                return answer

    async def _stream(
        self, name: str, response: type[Response], what: Any
    ) -> AsyncIterator[Response]:
        # A unary call first: it finds a scheduler that answers, or says at once that none does.
        await self.get_cluster(control_pb2.GetClusterRequest())
        place: Place | None = what if isinstance(what, WatchPlace | LogPlace) else None
        going_on = Resumption(self._route, self._patience_seconds) if place is not None else None
        while True:
            kind = "unary_stream" if place is not None else "stream_stream"
            call = getattr(self._channel(), kind)(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )(place.request() if place is not None else what, metadata=self._metadata())
            try:
                async for message in call:
                    if going_on is not None:
                        going_on.heard()
                    if place is None or place.is_new(message):
                        yield message
            except grpc.aio.AioRpcError as error:
                pause = self._broke(failure(error), going_on)
            else:
                return
            finally:
                call.cancel()
            await asyncio.sleep(pause)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
