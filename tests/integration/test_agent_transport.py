"""The agent's gRPC transport against a real gRPC server: lanes, refusals, and how they end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from agent.grpc_transport import GrpcTransport
from homeport.seams import LinkLost, Refused
from homeport.v1 import dispatcher_pb2 as pb, dispatcher_pb2_grpc


class Dispatcher(dispatcher_pb2_grpc.DispatcherServicer):
    """Answers in the way that each test's first message asks for."""

    async def Join(self, request, context):  # noqa: N802 - gRPC's name
        if request.name == "taken":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "the name taken is taken")
        if request.name == "later":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "does not lead")
        return pb.JoinResponse(node_id="n1")

    async def Session(self, request_iterator, context):  # noqa: N802 - gRPC's name
        async for request in request_iterator:
            if request.HasField("goodbye"):
                return
            if request.hello.node_id == "break":
                await context.abort(grpc.StatusCode.INTERNAL, "out of order")
            yield pb.SessionResponse(report_ack=pb.ReportAck(sequence=request.report.sequence))


@pytest.fixture
async def server() -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(Dispatcher(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield server, f"127.0.0.1:{port}"
    await server.stop(0)


def report(sequence: int) -> pb.SessionRequest:
    return pb.SessionRequest(report=pb.Report(sequence=sequence))


async def test_a_lane_carries_both_ways_and_ends_cleanly(server) -> None:
    link = GrpcTransport().connect(server[1])
    lane = link.session()
    answers = aiter(lane)
    for sequence in range(1, 4):
        await lane.send(report(sequence))
        assert (await anext(answers)).report_ack.sequence == sequence
    await lane.send(pb.SessionRequest(goodbye=pb.Goodbye()))
    assert await anext(answers, None) is None
    await lane.close()
    await link.close()


async def test_answers_to_a_join(server) -> None:
    link = GrpcTransport().connect(server[1])
    assert (await link.join(pb.JoinRequest(name="pi"))).node_id == "n1"
    with pytest.raises(Refused, match="the name taken is taken"):
        await link.join(pb.JoinRequest(name="taken"))
    with pytest.raises(LinkLost, match="does not lead"):
        await link.join(pb.JoinRequest(name="later"))
    await link.close()


async def test_a_lane_that_fails_says_why(server) -> None:
    link = GrpcTransport().connect(server[1])
    lane = link.session()
    await lane.send(pb.SessionRequest(hello=pb.Hello(node_id="break")))
    with pytest.raises(LinkLost, match="out of order"):
        await anext(aiter(lane))
    with pytest.raises(LinkLost):
        await lane.send(report(1))
    await lane.close()
    await link.close()


async def test_a_scheduler_that_dies_ends_the_lane(server) -> None:
    link = GrpcTransport().connect(server[1])
    lane = link.session()
    await lane.send(report(1))
    answers = aiter(lane)
    await anext(answers)
    await server[0].stop(0)
    with pytest.raises(LinkLost):
        async with asyncio.timeout(5):
            await anext(answers)
    await link.close()


async def test_nobody_listens() -> None:
    link = GrpcTransport().connect("127.0.0.1:1")
    with pytest.raises(LinkLost):
        async with asyncio.timeout(5):
            await link.join(pb.JoinRequest(name="pi"))
    lane = link.session()
    async with asyncio.timeout(5):
        with pytest.raises(LinkLost):
            await anext(aiter(lane))
    await link.close()


async def test_closing_the_link_ends_a_lane_and_not_who_reads_it(server) -> None:
    link = GrpcTransport().connect(server[1])
    lane = link.session()
    await lane.send(report(1))
    answers = aiter(lane)
    await anext(answers)

    async def read() -> str:
        try:
            await anext(answers)
        except LinkLost as error:
            return str(error)
        return ""

    async with asyncio.TaskGroup() as background:
        reading = background.create_task(read())
        await asyncio.sleep(0)
        await link.close()
    assert reading.result() == "the link was closed"
