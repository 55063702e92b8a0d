"""The Python client, both of its kinds, against real schedulers and against what is not one."""

import asyncio
import contextlib
import json
import socket
from concurrent import futures

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from homeport import client as clients
from homeport.client import AsyncClient, CallFailed, Client, Unreachable
from homeport.v1 import control_pb2, control_pb2_grpc, dispatcher_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, until

pytestmark = pytest.mark.timeout(90)

DEAD = "127.0.0.1:1"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler with one node and a stack `hello`."""
    folder = tmp_path_factory.mktemp("client")
    scheduler = Scheduler(folder / "scheduler")
    processes = [scheduler]
    try:
        scheduler.leads()
        processes.append(Agent(folder / "n1", scheduler.address, "n1"))
        with Client(scheduler.address) as client:
            until(
                "the node is ready",
                lambda: [view.state for view in client.nodes()] == [types_pb2.NODE_STATE_READY],
            )
            client.apply(control_pb2.ApplyRequest(stack=stack()))
            running(client, "hello", 2)
        yield scheduler.address
    finally:
        for process in reversed(processes):
            process.end()


class Told(control_pb2_grpc.ControlServicer):
    """A scheduler that answers as it is told, and remembers what it was asked."""

    def __init__(self, leader=""):
        self.leader = leader
        self.asked = []

    def GetCluster(self, request, context):  # noqa: N802
        self.asked.append(request)
        if self.leader:
            info = error_details_pb2.ErrorInfo(
                reason="NOT_LEADER", domain="homeport", metadata={"leader": self.leader}
            )
            detail = any_pb2.Any()
            detail.Pack(info)
            status = status_pb2.Status(
                code=code_pb2.UNAVAILABLE, message="this one does not lead", details=[detail]
            )
            context.abort_with_status(rpc_status.to_status(status))
        return control_pb2.GetClusterResponse(leader="it")

    def Scale(self, request, context):  # noqa: N802
        self.asked.append(request)
        if len(self.asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer got lost")
        return control_pb2.ScaleResponse()


@contextlib.contextmanager
def serving(servicer):
    """The address of a server with this servicer."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.fixture(params=["sync", "asyncio"])
def call(request):
    """Call one RPC of a new client of either kind: call(addresses, method, request)."""

    def sync(given, method, message, **more):
        with Client(given) as client:
            return getattr(client, method)(message, **more)

    def through_asyncio(given, method, message, **more):
        async def run():
            async with AsyncClient(given) as client:
                return await getattr(client, method)(message, **more)

        return asyncio.run(run())

    return sync if request.param == "sync" else through_asyncio


# ------------------------------------------------------------------------------ addresses


def test_addresses_come_from_the_caller_or_the_environment_or_this_machine(monkeypatch):
    monkeypatch.delenv(clients.ADDRESS_VARIABLE, raising=False)
    assert clients.addresses() == ("127.0.0.1:7070",)
    assert clients.addresses("pi4:7070, pi5:7070,") == ("pi4:7070", "pi5:7070")
    assert clients.addresses(["pi4:7070"]) == ("pi4:7070",)
    monkeypatch.setenv(clients.ADDRESS_VARIABLE, "pi6:7070")
    assert clients.addresses() == ("pi6:7070",)
    monkeypatch.setenv(clients.ADDRESS_VARIABLE, "")
    assert clients.addresses() == ("127.0.0.1:7070",)
    for nothing in ("", ",", []):
        with pytest.raises(ValueError, match="names no scheduler"):
            Client(nothing)


def test_a_dead_address_is_passed_over(address, call):
    answer = call(f"{DEAD},{address}", "get_cluster", control_pb2.GetClusterRequest())
    assert answer.leader == address


def test_no_address_that_answers_is_unreachable(call):
    with pytest.raises(Unreachable, match=r"cannot reach a scheduler at 127.0.0.1:1, 127") as found:
        call(f"{DEAD},127.0.0.1:2", "get_cluster", control_pb2.GetClusterRequest())
    assert (found.value.reason, found.value.code) == (
        "UNREACHABLE",
        grpc.StatusCode.UNAVAILABLE,
    )


def test_a_server_that_never_answers_costs_the_deadline_and_no_more(call):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(CallFailed):
            call(
                f"127.0.0.1:{port}",
                "get_cluster",
                control_pb2.GetClusterRequest(),
                timeout_seconds=0.5,
            )


def test_who_does_not_lead_sends_on_to_who_does(call):
    with serving(Told()) as leader, serving(Told(leader=leader)) as follower:
        answer = call(follower, "get_cluster", control_pb2.GetClusterRequest())
    assert answer.leader == "it"


def test_a_leader_that_nobody_is_says_what_the_server_said(call):
    follower = Told(leader=DEAD)
    with serving(follower) as address, pytest.raises(CallFailed) as found:
        call(address, "get_cluster", control_pb2.GetClusterRequest(), timeout_seconds=1.0)
    assert found.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert follower.asked


# ------------------------------------------------------------------------------ calls


def test_a_retry_carries_the_same_request_id_and_the_callers_message_stays(call):
    told = Told()
    request = control_pb2.ScaleRequest(stack="hello", replicas={"web": 3})
    with serving(told) as address:
        call(address, "scale", request)
    first, second = told.asked
    assert len(first.request_id) == 32
    assert first == second
    assert request.request_id == ""


def test_an_id_of_the_callers_own_is_kept(call):
    told = Told()
    with serving(told) as address:
        call(address, "scale", control_pb2.ScaleRequest(stack="hello", request_id="mine"))
    assert {asked.request_id for asked in told.asked} == {"mine"}


def test_a_bad_request_names_its_fields(address, call):
    bad = stack("bad", service(replicas=-1, depends_on=[{"service": "nobody"}]))
    with pytest.raises(CallFailed) as found:
        call(address, "apply", control_pb2.ApplyRequest(stack=bad))
    assert found.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {path for path, _ in found.value.fields} == {
        "services.web.replicas",
        "services.web.depends_on",
    }
    assert all(sentence for _, sentence in found.value.fields)


def test_what_is_not_there_has_its_reason(address, call):
    with pytest.raises(CallFailed, match="there is no stack nope") as found:
        call(address, "remove_stack", control_pb2.RemoveStackRequest(stack="nope"))
    assert (found.value.code, isinstance(found.value, Unreachable)) == (
        grpc.StatusCode.NOT_FOUND,
        False,
    )
    assert found.value.reason


# ------------------------------------------------------------------------------ lists, streams


def test_lists_go_over_all_pages(address):
    with Client(address) as client:
        request = control_pb2.ListTasksRequest(stack="hello", page_size=1)
        names = [view.name for view in client.pages(client.list_tasks, request, "tasks")]
        assert names == [view.name for view in client.tasks(stack="hello")] == ["web.1", "web.2"]
        assert [view.service.name for view in client.services("hello")] == ["web"]
        assert [each.name for each in client.stacks()] == ["hello"]
        assert [view.node.name for view in client.nodes()] == ["n1"]

    async def again():
        async with AsyncClient(address) as client:
            request = control_pb2.ListTasksRequest(stack="hello", page_size=1)
            found = [view.name async for view in client.pages(client.list_tasks, request, "tasks")]
            assert found == names
            assert [view.name async for view in client.tasks(stack="hello")] == names
            assert [view.service.name async for view in client.services("hello")] == ["web"]
            assert [each.name async for each in client.stacks()] == ["hello"]
            assert [view.node.name async for view in client.nodes()] == ["n1"]

    asyncio.run(again())


def test_a_stream_finds_the_scheduler_that_lives_and_ends_when_it_is_left(address):
    with Client(f"{DEAD},{address}") as client:
        watching = client.watch(control_pb2.WatchRequest(stack="hello", kinds=["tasks"]))
        seen = set()
        for change in watching:
            if change.synced:
                break
            seen.add(change.task.name)
        watching.close()
        assert {"web.1", "web.2"} <= seen

    async def again():
        async with AsyncClient(f"{DEAD},{address}") as client:
            found = set()
            watching = client.watch(control_pb2.WatchRequest(stack="hello", kinds=["tasks"]))
            async for change in watching:
                if change.synced:
                    break
                found.add(change.task.name)
            await watching.aclose()
            return found

    assert asyncio.run(again()) == seen


def test_a_stream_that_fails_raises_as_calls_do(address):
    with Client(address) as client, pytest.raises(CallFailed, match="no service or task nope"):
        list(client.logs(control_pb2.LogsRequest(stack="hello", objects=["nope"])))

    async def again():
        async with AsyncClient(address) as client:
            request = control_pb2.LogsRequest(stack="hello", objects=["nope"])
            return [each async for each in client.logs(request)]

    with pytest.raises(CallFailed, match="no service or task nope"):
        asyncio.run(again())
    with Client(DEAD) as client, pytest.raises(Unreachable):
        list(client.logs(control_pb2.LogsRequest(stack="hello")))


def test_a_command_runs_through_both_clients(address):
    start = control_pb2.ExecRequest(
        start=control_pb2.ExecStart(
            stack="hello",
            object="web.1",
            work=dispatcher_pb2.ExecWork(command=["cat"], interactive=True),
        )
    )
    requests = [
        start,
        control_pb2.ExecRequest(input=dispatcher_pb2.Input(data=b"hello\n")),
        control_pb2.ExecRequest(input=dispatcher_pb2.Input(eof=True)),
    ]
    with Client(address) as client:
        *output, end = client.exec(iter(requests))
    assert b"hello" in b"".join(each.output.data for each in output)
    assert end.end.exit_code == 0

    async def again():
        async def each_request():
            for each in requests:
                yield each

        async with AsyncClient(address) as client:
            return [answer async for answer in client.exec(each_request())]

    assert asyncio.run(again())[-1].end.exit_code == 0


def test_documents_of_messages_are_json(address):
    """What -o json prints is what the API's own JSON form says, in its own names."""
    from homeport.cli import options

    with Client(address) as client:
        (view,) = client.services("hello")
    document = json.loads(json.dumps(options.as_document(view)))
    assert document["service"]["name"] == "web"
    assert document["service"]["mode"] == "MODE_REPLICATED"
