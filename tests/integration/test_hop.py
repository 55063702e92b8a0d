"""The hop from a follower to the leader over gRPC: what goes along, and what comes back.

The follower is a real front behind a real server; the leader is a servicer that remembers
how it was called.
"""

import asyncio
import random

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from homeport.client import AsyncClient, CallFailed
from homeport.seams import SystemClock
from homeport.v1 import control_pb2, control_pb2_grpc, dispatcher_pb2
from scheduler.api.front import Front
from scheduler.api.hop import GrpcHop
from scheduler.api.server import CONTROL, DISPATCHER, ApiServer
from scheduler.api.service import ControlService
from scheduler.api.servicer import ControlServicer
from scheduler.metrics import Metrics
from scheduler.store.base import ABSENT, LEADER_KEY, Write
from scheduler.store.images import Images
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror

NOBODY = "127.0.0.1:1"


class Leader(control_pb2_grpc.ControlServicer):
    """A leader that remembers its calls and answers as it is told."""

    def __init__(self):
        self.calls = []
        self.refusal = None
        self.hang = False
        self.called = asyncio.Event()
        self.left = asyncio.Event()

    async def _called(self, context):
        self.called.set()
        self.calls.append((dict(context.invocation_metadata()), context.time_remaining()))
        if self.refusal is not None:
            details = (("grpc-status-details-bin", self.refusal.SerializeToString()),)
            await context.abort(grpc.StatusCode.NOT_FOUND, self.refusal.message, details)
        if self.hang:
            try:
                await asyncio.sleep(3600)
            finally:
                self.left.set()

    async def Scale(self, request, context):  # noqa: N802
        await self._called(context)
        return control_pb2.ScaleResponse(revision=1)

    async def ListTasks(self, request, context):  # noqa: N802
        await self._called(context)
        return control_pb2.ListTasksResponse(next_page_token="the leader's")

    async def Watch(self, request, context):  # noqa: N802
        yield control_pb2.WatchResponse(reset=True)
        await self._called(context)

    async def Exec(self, requests, context):  # noqa: N802
        await self._called(context)
        async for request in requests:
            output = dispatcher_pb2.Output(data=request.input.data)
            yield control_pb2.ExecResponse(output=output)
            if request.input.eof:
                return

    async def PushImage(self, requests, context):  # noqa: N802
        await self._called(context)
        received = [request async for request in requests]
        return control_pb2.PushImageResponse(total_bytes=len(received))


class Follower:
    """A scheduler that does not lead."""

    def __init__(self, folder, leader):
        self.hop = GrpcHop("follower:7070")
        self.store = MemoryStore(SystemClock())
        self.mirror = Mirror(self.store)
        self.server = ApiServer(Metrics(), random.Random(1))
        self.address = f"127.0.0.1:{self.server.bind('127.0.0.1:0')}"
        self.control = ControlService(
            images=Images(folder),
            store=self.store,
            mirror=self.mirror,
            clock=SystemClock(),
            address=self.address,
        )
        self.control.leader = leader

    async def start(self):
        await self.store.commit([Write(LEADER_KEY, b"", ABSENT)])
        await self.mirror.start()
        servicer = ControlServicer(Front(self.control, self.store, self.hop))
        await self.server.start(
            [lambda server: control_pb2_grpc.add_ControlServicer_to_server(servicer, server)]
        )

    async def close(self):
        await self.server.close(0)
        await self.hop.close()


@pytest.fixture
async def leader():
    servicer = Leader()
    server = grpc.aio.server()
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(0)


@pytest.fixture
async def follower(tmp_path, leader):
    follower = Follower(tmp_path, leader.address)
    await follower.start()
    yield follower
    await follower.close()


@pytest.fixture
async def stub(follower):
    async with grpc.aio.insecure_channel(follower.address) as channel:
        yield control_pb2_grpc.ControlStub(channel)


async def test_the_callers_address_and_id_and_deadline_go_along(leader, follower, stub):
    metadata = (
        ("x-request-id", "call-7"),
        ("x-homeport-revision", "1"),
        ("x-homeport-peer", "somebody else"),
    )
    await stub.Scale(control_pb2.ScaleRequest(stack="hello"), metadata=metadata, timeout=2.0)
    ((given, left),) = leader.calls
    assert given["x-request-id"] == "call-7"
    assert given["x-homeport-revision"] == "1"
    assert given["x-homeport-forwarded-by"] == "follower:7070"
    # Who it is, the first scheduler sees; what a user says of it counts for nothing.
    assert given["x-homeport-peer"].startswith("ipv4:127.0.0.1:")
    assert 0 < left <= 2.0


async def test_the_leaders_no_arrives_with_its_details(leader, follower, stub):
    info = error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="homeport.dev")
    leader.refusal = status_pb2.Status(code=code_pb2.NOT_FOUND, message="there is no stack x")
    leader.refusal.details.add().Pack(info)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Scale(control_pb2.ScaleRequest(stack="x"))
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no stack x",
    )
    trailers = dict(refused.value.trailing_metadata())
    assert trailers["grpc-status-details-bin"] == leader.refusal.SerializeToString()
    assert trailers["x-request-id"]


async def test_a_leader_that_is_gone_costs_a_write_and_not_a_read(follower):
    follower.control.leader = NOBODY
    async with AsyncClient(follower.address) as client:
        with pytest.raises(CallFailed, match=r"leader at 127\.0\.0\.1:1 does not answer") as failed:
            await client.scale(control_pb2.ScaleRequest(stack="hello"), timeout_seconds=1.0)
        assert failed.value.reason == "LEADER_LOST"
        found = await client.list_tasks(control_pb2.ListTasksRequest())
        assert found.observed_unknown_since_ms
        assert client.observed_unknown_since_ms == found.observed_unknown_since_ms


async def test_a_read_of_what_is_observed_is_the_leaders(leader, stub):
    found = await stub.ListTasks(control_pb2.ListTasksRequest())
    assert found.next_page_token == "the leader's"


async def test_a_stream_that_its_reader_leaves_is_left_at_the_leader_too(leader, stub):
    leader.hang = True
    call = stub.Watch(control_pb2.WatchRequest())
    assert (await call.read()).reset
    async with asyncio.timeout(5):
        await leader.called.wait()
        call.cancel()
        await leader.left.wait()


async def test_what_is_typed_and_what_is_uploaded_crosses_message_by_message(leader, stub):
    async def typed():
        for word in (b"a", b"b"):
            yield control_pb2.ExecRequest(input=dispatcher_pb2.Input(data=word))
        yield control_pb2.ExecRequest(input=dispatcher_pb2.Input(eof=True))

    assert [each.output.data async for each in stub.Exec(typed())] == [b"a", b"b", b""]

    async def uploaded():
        for _ in range(3):
            yield control_pb2.PushImageRequest(image_id="sha256:" + "a" * 64)

    assert (await stub.PushImage(uploaded())).total_bytes == 3


async def test_users_are_served_by_whoever_has_read_the_store_and_agents_by_the_leader(follower):
    async with grpc.aio.insecure_channel(follower.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def is_serving(service):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        assert [await is_serving(each) for each in (CONTROL, DISPATCHER)] == [False, False]
        await follower.server.set_ready()
        assert [await is_serving(each) for each in (CONTROL, DISPATCHER)] == [True, False]
        await follower.server.set_leading(True)
        assert [await is_serving(each) for each in (CONTROL, DISPATCHER)] == [True, True]
