"""What every call meets: errors in words, request ids, deadlines, and no text of a bug.

The real server and interceptor on the loopback; the handlers are scripts.
"""
# ruff: noqa: N802 (gRPC gives the handlers' names)

import asyncio
import random

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import generate_latest

from homeport.seams import LinkLost
from homeport.v1 import control_pb2, control_pb2_grpc
from scheduler.api import interceptor
from scheduler.api.errors import NotFound
from scheduler.api.server import ApiServer, CannotListen
from scheduler.metrics import Metrics


class Scripted(control_pb2_grpc.ControlServicer):
    """Handlers that fail in every way."""

    async def ListStacks(self, request, context):
        if request.page_token == "bug":
            raise ValueError("a secret detail")
        if request.page_token == "hang":
            await asyncio.sleep(60)
        raise NotFound("stack", "x")

    async def Watch(self, request, context):
        await context.write(control_pb2.WatchResponse(synced=True))
        raise LinkLost("the node is gone")

    async def Logs(self, request, context):
        yield control_pb2.LogsResponse(name="web.1")
        raise ValueError("a secret detail")


@pytest.fixture
async def served():
    """(stub, metrics) of a server with those handlers."""
    metrics = Metrics()
    server = ApiServer(metrics, random.Random(1))
    port = server.bind("127.0.0.1:0")
    await server.start([lambda s: control_pb2_grpc.add_ControlServicer_to_server(Scripted(), s)])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield control_pb2_grpc.ControlStub(channel), metrics
    await server.close(0)


def trailers(error):
    return dict(error.trailing_metadata())


def info(error):
    status = status_pb2.Status.FromString(trailers(error)["grpc-status-details-bin"])
    found = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(found) for detail in status.details)
    return found


async def test_an_error_has_its_sentence_its_reason_and_the_call_s_id(served):
    stub, _ = served
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListStacks(
            control_pb2.ListStacksRequest(), metadata=(("x-request-id", "mine-1"),)
        )
    error = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "there is no stack x"
    assert info(error).reason == "NOT_FOUND"
    assert trailers(error)["x-request-id"] == "mine-1"


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_the_text_of_a_bug_reaches_no_client(served, kind):
    stub, _ = served
    unary = kind == "unary"
    bug = control_pb2.ListStacksRequest(page_token="bug")
    call = stub.ListStacks(bug) if unary else stub.Logs(control_pb2.LogsRequest())
    if not unary:
        assert (await call.read()).name == "web.1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if unary else call.read())
    error = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)
    assert trailers(error)["x-request-id"] in error.details()


async def test_a_stream_that_fails_says_why_after_what_it_had_to_say(served):
    stub, _ = served
    call = stub.Watch(control_pb2.WatchRequest())
    assert (await call.read()).synced
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "the node is gone"


async def test_a_unary_call_ends_by_its_deadline(served, monkeypatch):
    monkeypatch.setattr(interceptor, "UNARY_SECONDS", 0.05)
    stub, _ = served
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListStacks(control_pb2.ListStacksRequest(page_token="hang"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_are_counted_by_method_and_code(served):
    stub, metrics = served
    for token in ("", "", "bug"):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ListStacks(control_pb2.ListStacksRequest(page_token=token))
    labels = 'grpc_method="ListStacks",grpc_service="homeport.v1.Control",grpc_type="unary"'
    missed = f'grpc_server_handled_total{{grpc_code="NotFound",{labels}}} 2.0'
    internal = f'grpc_server_handled_total{{grpc_code="Internal",{labels}}} 1.0'

    def counted() -> set[str]:
        return {missed, internal} & set(generate_latest(metrics.registry).decode().split("\n"))

    # The client may have its answer before the server has counted it.
    async with asyncio.timeout(10):
        while counted() != {missed, internal}:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)


async def test_a_compressed_message_is_refused(served):
    # A megabyte on the wire could be a gigabyte in memory.
    stub, _ = served
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListStacks(
            control_pb2.ListStacksRequest(page_token="a" * 10_000),
            compression=grpc.Compression.Gzip,
        )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_that_is_taken_is_refused_with_a_sentence(served):
    server = ApiServer(Metrics(), random.Random(1))
    port = server.bind("127.0.0.1:0")
    with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}"):
        ApiServer(Metrics(), random.Random(1)).bind(f"127.0.0.1:{port}")
    await server.close(0)
