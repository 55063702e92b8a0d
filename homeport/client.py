"""The Python client of Homeport's gRPC API, synchronous and for asyncio.

    from homeport.client import Client
    from homeport.v1 import control_pb2

    with Client("pi4:7070,pi5:7070") as homeport:
        for task in homeport.tasks(stack="hello"):
            print(task.name, task.node_name)
        homeport.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 3}))

Methods are named after the RPCs and take and give the messages of `homeport.v1`. Several
addresses are tried in turn; a scheduler that does not lead sends its caller on to the one
that does. Mutations carry a request id, which this client fills in, so that a retry after
a lost answer changes nothing twice. Every failure is a `CallFailed` with the server's
sentence.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, overload

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from homeport.v1 import control_pb2

DEFAULT_ADDRESS = "127.0.0.1:7070"
ADDRESS_VARIABLE = "HOMEPORT_SCHEDULER"
DEADLINE_SECONDS = 10.0
"""How long a unary call may take, all tries together."""

_SERVICE = "/homeport.v1.Control/"
_DETAILS_KEY = "grpc-status-details-bin"
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a frozen peer is noticed after 65 s
    ("grpc.http2.max_pings_without_data", 0),  # no limit: a quiet stream is watched all the time
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
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        copy = type(request)()
        copy.CopyFrom(request)
        copy.request_id = secrets.token_hex(16)
        return copy
    return request


class _Route:
    """Which address is tried next; shared by both clients."""

    def __init__(self, given: str | Sequence[str] | None) -> None:
        self.addresses = addresses(given)
        self.current = self.addresses[0]

    def after(self, error: CallFailed) -> bool:
        """Turn to the next address; False when this error says that no other would help."""
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            return False
        leader = error.metadata.get("leader", "")
        if leader and leader != self.current:
            self.current = leader
            return True
        known = self.addresses
        place = known.index(self.current) if self.current in known else -1
        self.current = known[(place + 1) % len(known)]
        return True

    def unreachable(self, error: CallFailed) -> CallFailed:
        """The last error of many tries, in words for people."""
        if error.reason:
            return error  # a scheduler answered, and said what is the matter
        return Unreachable(
            f"cannot reach a scheduler at {', '.join(self.addresses)}: {error}",
            code=error.code,
            reason="UNREACHABLE",
        )


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


class Client(_Rpcs):
    """The synchronous client; safe to use from several threads."""

    def __init__(self, scheduler: str | Sequence[str] | None = None) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; see `addresses`."""
        self._route = _Route(scheduler)
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
        """Changes as they come; ends only by an error or when the generator is closed."""
        return self._stream("Watch", control_pb2.WatchResponse, request)

    def logs(self, request: control_pb2.LogsRequest) -> Iterator[control_pb2.LogsResponse]:
        """Output of tasks; with `follow` it goes on for ever."""
        return self._stream("Logs", control_pb2.LogsResponse, request)

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
            raise self._route.unreachable(failure(error)) from None
        return response

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
        deadline = time.monotonic() + timeout_seconds
        tries = 0
        while True:
            call = self._channel().unary_unary(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )
            left = deadline - time.monotonic()
            try:
                answer: Response = call(request, timeout=max(0.05, left))
            except grpc.RpcError as error:
                failed = failure(error)
                tries += 1
                pause = _pause(tries, len(self._route.addresses))
                if not self._route.after(failed) or time.monotonic() + pause >= deadline:
                    raise self._route.unreachable(failed) from None
                if tries >= 2 * len(self._route.addresses) + 1 and not failed.reason:
                    raise self._route.unreachable(failed) from None
                time.sleep(pause)
            else:
                return answer

    def _stream(self, name: str, response: type[Response], request: Any) -> Iterator[Response]:
        # A unary call first: it finds the leader, which a broken stream could not do quietly.
        self.get_cluster(control_pb2.GetClusterRequest())
        kind = "unary_stream" if isinstance(request, Message) else "stream_stream"
        call = getattr(self._channel(), kind)(
            _SERVICE + name,
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise failure(error) from None
        finally:
            call.cancel()


class AsyncClient(_Rpcs):
    """The client for asyncio: unary methods are coroutines, streams asynchronous iterators."""

    def __init__(self, scheduler: str | Sequence[str] | None = None) -> None:
        """`scheduler`: HOST:PORT, several with commas or as a list; see `addresses`."""
        self._route = _Route(scheduler)
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
        return self._stream("Watch", control_pb2.WatchResponse, request)

    def logs(self, request: control_pb2.LogsRequest) -> AsyncIterator[Any]:
        """Output of tasks; with `follow` it goes on for ever."""
        return self._stream("Logs", control_pb2.LogsResponse, request)

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
        deadline = time.monotonic() + timeout_seconds
        tries = 0
        while True:
            call = self._channel().unary_unary(
                _SERVICE + name,
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )
            left = deadline - time.monotonic()
            try:
                answer: Response = await call(request, timeout=max(0.05, left))
            except grpc.aio.AioRpcError as error:
                failed = failure(error)
                tries += 1
                pause = _pause(tries, len(self._route.addresses))
                if not self._route.after(failed) or time.monotonic() + pause >= deadline:
                    raise self._route.unreachable(failed) from None
                if tries >= 2 * len(self._route.addresses) + 1 and not failed.reason:
                    raise self._route.unreachable(failed) from None
                await asyncio.sleep(pause)
            else:
                return answer

    async def _stream(
        self, name: str, response: type[Response], request: Any
    ) -> AsyncIterator[Response]:
        # A unary call first: it finds the leader, which a broken stream could not do quietly.
        await self.get_cluster(control_pb2.GetClusterRequest())
        kind = "unary_stream" if isinstance(request, Message) else "stream_stream"
        call = getattr(self._channel(), kind)(
            _SERVICE + name,
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )(request)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise failure(error) from None
        finally:
            call.cancel()


def _pause(tries: int, known: int) -> float:
    """Seconds before the next try: none while there are addresses that were not tried."""
    return 0.0 if tries < known else min(0.5, 0.05 * 2 ** (tries - known))


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
