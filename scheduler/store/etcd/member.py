"""One member of etcd: its own channel, its stubs, and whether it can be reached just now.

A channel per member, never one for all: gRPC would check every certificate against the list
of all addresses, and could not say which member failed. `ready` is what makes a write safe to
send elsewhere: a request that is only begun on a channel that stands cannot have been sent
before, and everything that fails later counts as possibly sent.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

from scheduler.store.base import Unavailable
from scheduler.store.etcd.options import EtcdOptions

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


class Member:
    """How we reach one endpoint."""

    def __init__(self, url: str, credentials: grpc.ChannelCredentials | None) -> None:
        """Make the channel; it connects when it is first used."""
        self.url = url
        self.trouble = ""
        """Why its last call failed; empty while it serves."""
        self.version = ""
        """Of its etcd, as of its last status."""
        self.rests = False
        """Asked only when there is nobody else: it is being defragmented."""
        target = "dns:///" + url.partition("://")[2]
        self.channel = (
            grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)
        )
        self.kv: Any = rpc_pb2_grpc.KVStub(self.channel)
        self.watch: Any = rpc_pb2_grpc.WatchStub(self.channel)
        self.lease: Any = rpc_pb2_grpc.LeaseStub(self.channel)
        self.auth: Any = rpc_pb2_grpc.AuthStub(self.channel)
        self.maintenance: Any = rpc_pb2_grpc.MaintenanceStub(self.channel)
        self.cluster: Any = rpc_pb2_grpc.ClusterStub(self.channel)

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def ready(self, seconds: float) -> bool:
        """Return when a call can be sent, or would fail at once with its reason; else False.

        False after `seconds` of connecting: nothing was sent. Never raises.
        """
        state = self.channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(seconds):
                while state in (
                    grpc.ChannelConnectivity.IDLE,
                    grpc.ChannelConnectivity.CONNECTING,
                ):
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return True

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


def credentials_of(options: EtcdOptions) -> grpc.ChannelCredentials | None:
    """What TLS needs, read from the files; None without TLS. Raises Unavailable.

    Keys must be ECDSA P-256 or RSA: gRPC's TLS cannot use Ed25519.
    """
    if not options.is_tls:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_content(options.ca_file),
        private_key=_content(options.key_file),
        certificate_chain=_content(options.cert_file),
    )


def _content(path: str) -> bytes | None:
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read {path}, which etcd needs: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        raise Unavailable(f"{path}, which etcd needs, is not a PEM file")
    return content
