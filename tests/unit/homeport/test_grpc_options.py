"""Every channel and server option that we set is one that gRPC knows.

gRPC ignores the others in silence: a misspelt limit on pings once let the server hang up on
every stream that was quiet for two minutes.
"""

from pathlib import Path

import pytest
from grpc._cython import cygrpc

from agent import grpc_transport
from homeport.client import asking
from scheduler.api import server


@pytest.fixture(scope="module")
def core() -> bytes:
    return Path(cygrpc.__file__).read_bytes()


@pytest.mark.parametrize(
    "options",
    [asking.CHANNEL_OPTIONS, server._OPTIONS, grpc_transport.OPTIONS],
    ids=["of the client", "of the scheduler", "of the agent"],
)
def test_every_option_is_known_to_grpc(options: tuple[tuple[str, int], ...], core: bytes) -> None:
    unknown = [name for name, _ in options if name.encode() + b"\0" not in core]
    assert unknown == []
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms\0" not in core  # what it was
