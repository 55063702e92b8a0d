"""Says things twice: a user's request with the same id, and an agent's reports on the wire (F17).

A newcomer would copy the bytes of a connection, which HTTP/2 takes for an error of the protocol.
So a gRPC relay stands between agent and scheduler that knows no message, and sends each report of
the session's lane twice.
"""

import itertools
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from homeport.client import CallFailed, Client
from tests.faults import load
from tests.faults.cluster import PORT
from tests.faults.world import World
from tests.testbed.hosts import Host

_SESSION = "/homeport.v1.Dispatcher/Session"
_WARM_UP = 1
"""Messages of a session that are not reports: the greeting."""


def repeated_apply(world: World) -> list[int]:
    """The same request, by each scheduler and twice; the revisions that were answered."""
    request = load.request(999_999)
    request.stack.name = "twice"
    found = []
    for address in [*world.cluster.addresses.split(",")] * 2:
        with Client(address) as client:
            try:
                found.append(client.apply(request).revision)
            except CallFailed as error:
                world.note(f"{address} answered: {error}")
    world.cluster.homeport("rm", "twice")
    return found


class _Doubler(grpc.GenericRpcHandler):
    """Passes every call on to the real scheduler, bytes as they are."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.doubled = 0

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        method = details.method

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = self._channel.stream_stream(method)(self._twice(method, requests))
            context.add_callback(call.cancel)
            try:
                yield from call
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(handle)

    def _twice(self, method: str, requests: Iterator[bytes]) -> Iterator[bytes]:
        for index in itertools.count():
            try:
                message = next(requests)
            except (StopIteration, grpc.RpcError):
                return
            yield message
            if method == _SESSION and index >= _WARM_UP:
                self.doubled += 1
                yield message

    def close(self) -> None:
        self._channel.close()


def doubled_reports(world: World, host: Host) -> int:
    """Let an agent's session go through a doubler for a while; how many messages came twice."""
    from tests.faults.network import rule

    leader = world.cluster.leader()
    doubler = _Doubler(leader.address)
    server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[doubler])
    port = server.add_insecure_port(f"{world.lab.address}:0")
    server.start()
    agent = world.cluster.agents[host.name]
    words = [
        *("OUTPUT", "-p", "tcp", "-d", leader.host.address, "--dport", str(PORT)),
        *("-j", "DNAT", "--to-destination", f"{world.lab.address}:{port}"),
    ]
    try:
        with rule(host, *words, table="nat"):
            agent.kill9()
            agent.start()
            world.wait(lambda: doubler.doubled >= 3, "reports to come twice", seconds=40)
    finally:
        agent.kill9()
        stopped: threading.Event = server.stop(0)
        stopped.wait(5)
        doubler.close()
        agent.start()
    return doubler.doubled
