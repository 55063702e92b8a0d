"""Around every call: an id, a log context, metrics, a deadline, and errors in words.

The outermost thing that a client's call meets, for both services. What a handler raises
becomes a status by `errors.failure`; what is not in that table is a bug: it is logged with
its traceback under the call's id, and the client learns nothing but that id.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog

from homeport.seams import Randomness, identifier
from scheduler.api.errors import Failure, Unwell, failure
from scheduler.api.hop import DETAILS, FORWARDED_BY, PEER, REQUEST_ID
from scheduler.metrics import Metrics

UNARY_SECONDS = 4.5
"""How long a unary call of ours may take: without a store it fails within 5 s."""

_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_OURS = "homeport.v1."

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Call:
    service: str
    method: str
    kind: str

    @property
    def labels(self) -> tuple[str, str, str]:
        return (self.service, self.method, self.kind)


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    def __init__(self, metrics: Metrics, randomness: Randomness, *, store: str = "") -> None:
        """`randomness` makes the ids of calls that bring none; `store` is named when it is slow."""
        self._metrics = metrics
        self._store = f"the store, {store}," if store else "the store"
        self._randomness = randomness

    async def intercept_service(
        self,
        continuation: Any,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of this call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        _, service, method = handler_call_details.method.split("/")
        given = dict(handler_call_details.invocation_metadata).get(REQUEST_ID, "")
        call_id = (
            given
            if isinstance(given, str) and _GIVEN_ID.fullmatch(given)
            else identifier(self._randomness, 64)
        )
        make, inner = _parts(handler)
        call = _Call(service, method, _kind(handler))
        if inspect.isasyncgenfunction(inner):
            wrapped: Any = self._generator(inner, call, call_id)
        else:
            limit = UNARY_SECONDS if call.kind == "unary" and service.startswith(_OURS) else None
            wrapped = self._coroutine(inner, call, call_id, limit)
        return make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _coroutine(self, inner: Any, call: _Call, call_id: str, limit: float | None) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            with self._observed(call, call_id, context):
                try:
                    try:
                        async with asyncio.timeout(limit):
                            return await inner(request, context)
                    except TimeoutError as error:
                        raise Unwell(
                            f"this took longer than {limit} s; {self._store} may be slow or away"
                        ) from error
                except Exception as error:  # noqa: BLE001 (every failure becomes a status)
                    await _abort(context, call, call_id, error)

        return handle

    def _generator(self, inner: Any, call: _Call, call_id: str) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._observed(call, call_id, context):
                try:
                    async for response in inner(request, context):
                        yield response
                except Exception as error:  # noqa: BLE001 (every failure becomes a status)
                    await _abort(context, call, call_id, error)

        return handle

    @contextmanager
    def _observed(self, call: _Call, call_id: str, context: Context) -> Iterator[None]:
        self._metrics.grpc_started.labels(*call.labels).inc()
        began = time.perf_counter()
        code = "OK"
        # The caller as the first scheduler saw it, and the scheduler that sent it on.
        given = dict(context.invocation_metadata() or ())
        via = given.get(FORWARDED_BY, "")
        bound = {"peer": str(given.get(PEER, "")), "via": str(via)} if via else {}
        with structlog.contextvars.bound_contextvars(request_id=call_id, **bound):
            try:
                yield
            except asyncio.CancelledError:
                code = "Canceled"
                raise
            except BaseException:
                code = _camel(context.code())
                raise
            finally:
                self._metrics.grpc_handled.labels(*call.labels, code).inc()
                if call.kind == "unary":
                    spent = time.perf_counter() - began
                    self._metrics.grpc_handling.labels(*call.labels).observe(spent)


async def _abort(context: Context, call: _Call, call_id: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    found = failure(error)
    if found is None:
        log.error("a call failed by a bug", method=call.method, exc_info=error)
        found = Failure(
            grpc.StatusCode.INTERNAL,
            "INTERNAL",
            f"the scheduler failed on this call; its log has the details under {call_id}",
        )
    trailers = (
        (REQUEST_ID, call_id),
        (DETAILS, found.status().SerializeToString()),
    )
    await context.abort(found.code, found.sentence, trailers)


def _parts(handler: Any) -> tuple[Any, Any]:
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _kind(handler: Any) -> str:
    if handler.request_streaming and handler.response_streaming:
        return "bidi_stream"
    if handler.request_streaming:
        return "client_stream"
    return "server_stream" if handler.response_streaming else "unary"


def _camel(code: Any) -> str:
    """`NOT_FOUND` as go-grpc-middleware writes it: NotFound."""
    if isinstance(code, int):
        code = next((each for each in grpc.StatusCode if each.value[0] == code), None)
    if not isinstance(code, grpc.StatusCode):
        return "Unknown"
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
