"""One member of etcd: its own channel, its stubs, and whether it can be reached just now.

A channel per member, never one for all: gRPC would check every certificate against the list
of all addresses, and could not say which member failed. `ready` is what makes a write safe to
send elsewhere: a request that is only begun on a channel that stands cannot have been sent
before, and everything that fails later counts as possibly sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

from scheduler.store.etcd.certificates import Certificates

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),  # etcd ends connections that ask more often than 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),  # without it a frozen member is noticed after 65 s
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # also how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # or a second store would share our back-off
    ("grpc.enable_http_proxy", 0),
    # A record in somebody's DNS could tell gRPC to repeat calls, writes too.
    ("grpc.service_config_disable_resolution", 1),
)


_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class Member:
    """How we reach one endpoint."""

    def __init__(self, url: str, certificates: Certificates) -> None:
        """Make the channel; it connects when it is first used."""
        self.url = url
        self._certificates = certificates
        self._retired: grpc.aio.Channel | None = None
        self.trouble = ""
        """Why its last call failed; empty while it serves."""
        self.version = ""
        """Of its etcd, as of its last status."""
        self.rests = False
        """Asked only when there is nobody else: it is being defragmented."""
        self._use(self._dial())

    def _dial(self) -> grpc.aio.Channel:
        self._edition = self._certificates.edition
        target = "dns:///" + self.url.partition("://")[2]
        credentials = self._certificates.credentials
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)

    def _use(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.kv: Any = rpc_pb2_grpc.KVStub(channel)
        self.watch: Any = rpc_pb2_grpc.WatchStub(channel)
        self.lease: Any = rpc_pb2_grpc.LeaseStub(channel)
        self.auth: Any = rpc_pb2_grpc.AuthStub(channel)
        self.maintenance: Any = rpc_pb2_grpc.MaintenanceStub(channel)
        self.cluster: Any = rpc_pb2_grpc.ClusterStub(channel)

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def ready(self, seconds: float) -> bool:
        """Return when a call can be sent, or would fail at once with its reason; else False.

        False after `seconds` of connecting: nothing was sent. Never raises.
        """
        if not self.is_ready:
            await self._renew_unconnected()
        channel = self.channel
        state = channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(seconds):
                while state in (
                    grpc.ChannelConnectivity.IDLE,
                    grpc.ChannelConnectivity.CONNECTING,
                ):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except (TimeoutError, grpc.aio.UsageError):  # it was replaced twice meanwhile
            return False
        return True

    async def renew(self, seconds: float) -> str:
        """Take up certificates that were renewed; why that cannot be, and empty when all is well.

        A connection that stands stays until the member has answered on a new one: to be refused
        there would end what works. Its streams go on until the next renewal.
        """
        self._certificates.look()
        if self._edition == self._certificates.edition:
            return ""
        if not self.is_ready:
            await self._renew_unconnected()
            return ""
        before = self._edition
        channel = self._dial()
        try:
            await rpc_pb2_grpc.MaintenanceStub(channel).Status(
                rpc_pb2.StatusRequest(), timeout=seconds
            )
        except grpc.aio.AioRpcError as error:
            # Any other no, as that it asks for a token, comes from behind the handshake.
            if error.code() in _UNANSWERED:
                self._edition = before
                await channel.close()
                return error.details() or error.code().name
        await self._replace(channel)
        return ""

    async def _renew_unconnected(self) -> None:
        """There is nothing to be lost with this channel: it would connect with the old ones."""
        self._certificates.look()
        if self._edition != self._certificates.edition:
            await self._replace(self._dial())

    async def _replace(self, channel: grpc.aio.Channel) -> None:
        retired, self._retired = self._retired, self.channel
        self._use(channel)
        if retired is not None:
            await retired.close()

    async def status(self, seconds: float, token: str = "") -> Any:
        """What it says of itself, which needs no quorum, nor as yet a token. Raises AioRpcError."""
        metadata = (("token", token),) if token else ()
        answer = await self.maintenance.Status(
            rpc_pb2.StatusRequest(), metadata=metadata, timeout=seconds
        )
        self.version = answer.version
        return answer

    async def close(self) -> None:
        """End the connection and all its calls."""
        await self.channel.close()
        if self._retired is not None:
            await self._retired.close()
