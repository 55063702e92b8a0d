"""What both clients know and decide alike; they differ in how they wait, and in nothing else.

A client opens the calls that are made here, and tells what came of each: nothing here waits
or reads. A newcomer's mistake: deciding something in one of the clients. It would be copied
to the other, or forgotten there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from homeport.client.failures import CallFailed, Unreachable, failure
from homeport.retrying import (
    STORE_REASONS,
    LogPlace,
    Place,
    Resumption,
    Route,
    Tries,
    WatchPlace,
    is_transient,
)

DEFAULT_ADDRESS = "127.0.0.1:7070"
ADDRESS_VARIABLE = "HOMEPORT_SCHEDULER"
DEADLINE_SECONDS = 10.0
"""How long a unary call may take, all tries together."""
PATIENCE_SECONDS = 60.0
"""How long a watch or log looks for a scheduler to go on at."""

REQUEST_BYTES_MAX = 4 * 1024 * 1024 - 1024
"""gRPC's stock limit of a message, less a request id and the like."""

_SERVICE = "/homeport.v1.Control/"
_SEEN_KEY = "x-homeport-revision"
CHANNEL_OPTIONS = (
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

Response = TypeVar("Response", bound=Message)

OnBreak = Callable[[CallFailed, str], None]
"""Told that a stream broke, and the address that is asked next; once for each break."""


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


class Asking:
    """Whom a client asks next, and what it knows from the answers so far."""

    def __init__(
        self,
        scheduler: str | Sequence[str] | None,
        dial: Callable[[str], Any],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_break: OnBreak | None = None,
    ) -> None:
        """`dial` makes a channel to an address. The rest: see the clients."""
        self.route = Route(addresses(scheduler))
        self.patience_seconds = patience_seconds
        self.on_break = on_break
        self.observed_unknown_since_ms = 0
        self.is_closed = False
        self._dial = dial
        self._seen_revision = 0
        self._channels: dict[str, Any] = {}

    def method(self, name: str, kind: str, response: type[Message]) -> Any:
        """An RPC at the scheduler that is asked now; `kind` as in `unary_unary`."""
        address = self.route.current
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._dial(address)
        return getattr(channel, kind)(
            _SERVICE + name,
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )

    def close(self) -> list[Any]:
        """Ask no more; returns the channels, which are to be closed."""
        self.is_closed = True
        channels, self._channels = self._channels, {}
        return list(channels.values())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the highest revision that was seen."""
        return ((_SEEN_KEY, str(self._seen_revision)),) if self._seen_revision else ()

    def saw(self, answer: Any) -> None:
        """Take note of what an answer says of itself."""
        self._seen_revision = max(self._seen_revision, getattr(answer, "revision", 0))
        self.observed_unknown_since_ms = getattr(answer, "observed_unknown_since_ms", 0)

    def final(self, error: CallFailed) -> CallFailed:
        """The last error of many tries, in words for people."""
        if error.reason or not is_transient(error):
            return error  # a scheduler answered, and said what is the matter
        return Unreachable(
            f"cannot reach a scheduler at {', '.join(self.route.addresses)}: {error}",
            code=error.code,
            reason="UNREACHABLE",
        )


class UnaryTries(Generic[Response]):
    """One unary call, and all its tries."""

    def __init__(
        self,
        asking: Asking,
        name: str,
        response: type[Response],
        request: Message,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds`: for all tries together. Raises CallFailed for what is too large."""
        self._asking = asking
        self._name = name
        self._response = response
        self._request = _prepared(request)
        now = time.monotonic()
        self._tries = Tries(asking.route, now + timeout_seconds, now)
        self._cause: CallFailed | None = None  # what was last said of the store

    def begin(self) -> Any:
        """The next try: its answer, or in asyncio what is awaited for one."""
        call = self._asking.method(self._name, "unary_unary", self._response)
        limit = self._tries.timeout_seconds(time.monotonic())
        return call(self._request, timeout=limit, metadata=self._asking.metadata())

    def failed(self, error: grpc.RpcError) -> float:
        """Seconds to wait before the next try. Raises CallFailed where there is none."""
        told = failure(error)
        pause = self._tries.after(told, time.monotonic())
        if told.reason in STORE_REASONS:
            self._cause = told
        if pause is None or self._asking.is_closed:
            # Who then had too little time to say it again is not the cause.
            raise self._asking.final(self._cause or told) from None
        return pause

    def answered(self, answer: Response) -> Response:
        """The answer, of which note is taken."""
        self._asking.saw(answer)
        return answer


class StreamTries(Generic[Response]):
    """One stream of answers, and how it goes on where it breaks."""

    def __init__(self, asking: Asking, name: str, response: type[Response], what: Any) -> None:
        """`what`: a Place, from which it goes on, or an iterator of requests, which cannot."""
        self._asking = asking
        self._name = name
        self._response = response
        self._what = what
        self._place: Place | None = what if isinstance(what, WatchPlace | LogPlace) else None
        self._resumption = Resumption(asking.route, asking.patience_seconds)

    def begin(self) -> Any:
        """The stream from where it was read to: an iterator with `cancel`."""
        place, metadata = self._place, self._asking.metadata()
        if place is None:
            return self._method("stream_stream")(self._what, metadata=metadata)
        return self._method("unary_stream")(place.request(), metadata=metadata)

    def is_new(self, message: Response) -> bool:
        """Take a message in; whether it was not told before."""
        self._resumption.heard()
        return self._place is None or self._place.is_new(message)

    def failed(self, error: grpc.RpcError) -> float:
        """Seconds to wait before it goes on. Raises CallFailed where it does not."""
        asking, told = self._asking, failure(error)
        if self._place is None or asking.is_closed:
            raise asking.final(told) from None
        pause = self._resumption.after(told, time.monotonic())
        if pause is None:
            raise asking.final(told) from None
        if asking.on_break is not None and self._resumption.is_first:
            asking.on_break(told, asking.route.current)
        return pause

    def _method(self, kind: str) -> Any:
        return self._asking.method(self._name, kind, self._response)


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


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
