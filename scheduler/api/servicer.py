"""The gRPC face of the API: reads who calls from a call's context, and hands it to the front.

Methods are made from the contract, one for each RPC, so that none can be forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import structlog

from homeport.v1 import control_pb2
from scheduler.api.front import Front
from scheduler.api.hop import FORWARDED_BY, PEER, SEEN_REVISION
from scheduler.api.routing import Caller

Context = grpc.aio.ServicerContext[Any, Any]


class ControlServicer:
    """homeport.v1.Control, whoever leads; for `add_ControlServicer_to_server`."""

    def __init__(self, front: Front) -> None:
        """`front` answers."""
        for method in control_pb2.DESCRIPTOR.services_by_name["Control"].methods:
            if method.server_streaming:
                handler = _stream(front, method.name)
            elif method.client_streaming:
                handler = _upload(front, method.name)
            else:
                handler = _unary(front, method.name)
            setattr(self, method.name, handler)


def _unary(front: Front, method: str) -> Any:
    async def handle(request: Any, context: Context) -> Any:
        return await front.unary(method, request, caller_of(context))

    return handle


def _stream(front: Front, method: str) -> Any:
    async def handle(request: Any, context: Context) -> None:
        given = aiter(request) if hasattr(request, "__aiter__") else request
        await front.stream(method, given, caller_of(context), context.write)

    return handle


def _upload(front: Front, method: str) -> Any:
    async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
        return await front.upload(method, aiter(requests), caller_of(context))

    return handle


def caller_of(context: Context) -> Caller:
    """Who calls, and what goes with the call."""
    metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
    forwarded_by = str(metadata.get(FORWARDED_BY, ""))
    seen = str(metadata.get(SEEN_REVISION, ""))
    return Caller(
        # Only a scheduler may speak for somebody else.
        peer=str(metadata.get(PEER, "")) if forwarded_by else context.peer(),
        request_id=str(structlog.contextvars.get_contextvars().get("request_id", "")),
        forwarded_by=forwarded_by,
        seen_revision=int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 19 else 0,
        left_seconds=context.time_remaining(),
    )
