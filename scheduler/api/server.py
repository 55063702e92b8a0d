"""The gRPC server: its options, reflection, health, and the interceptor around everything.

The options are measured, not guessed: without `ping_timeout_ms` a frozen agent is noticed
after 65 s, without `so_reuseport=0` two schedulers share one port without a word, and with
gRPC's own limit of pending calls a burst of reconnecting agents is turned away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from homeport.seams import Randomness
from scheduler.api.interceptor import Interceptor
from scheduler.metrics import Metrics

CONTROL = "homeport.v1.Control"
DISPATCHER = "homeport.v1.Dispatcher"
SERVICES = (CONTROL, DISPATCHER)

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Identity only: a compressed message of a megabyte can hold a gigabyte.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)


class CannotListen(Exception):
    """The address cannot be listened on; a sentence."""


class ApiServer:
    """The server with its health."""

    def __init__(self, metrics: Metrics, randomness: Randomness, *, store: str = "") -> None:
        """Nothing listens before `bind`. `store` is what people call the store."""
        self._server = grpc.aio.server(
            options=_OPTIONS, interceptors=[Interceptor(metrics, randomness, store=store)]
        )
        self._health = health.aio.HealthServicer()

    def bind(self, address: str) -> int:
        """Take the address, HOST:PORT; returns the port. Raises CannotListen."""
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListen(
                f"cannot listen on {address}: it is taken, or not an address of this machine"
            ) from error

    async def start(self, servicers: Iterable[Callable[[grpc.aio.Server], None]]) -> None:
        """Serve; `servicers` add themselves to the server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for add in servicers:
            add(self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._server.start()
        for name in SERVICES:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def set_ready(self) -> None:
        """The store was read: users are served from now on, whoever leads."""
        await self._health.set(CONTROL, health_pb2.HealthCheckResponse.SERVING)

    async def set_leading(self, is_leading: bool) -> None:
        """Agents are served by the leader alone."""
        state = (
            health_pb2.HealthCheckResponse.SERVING
            if is_leading
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        await self._health.set(DISPATCHER, state)

    async def close(self, grace_seconds: float) -> None:
        """Take no new calls, and give those that run this long."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
