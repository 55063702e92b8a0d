"""A request that no scheduler takes is refused where it is made, with the way out."""

import grpc
import pytest

from homeport.client import REQUEST_BYTES_MAX, CallFailed, Client
from homeport.v1 import control_pb2, types_pb2


def test_a_stack_that_is_too_large_is_told_to_be_split():
    files = [types_pb2.FileSpec(name=f"f{n}", data=b"x" * 1_000_000) for n in range(5)]
    request = control_pb2.ApplyRequest(stack=types_pb2.StackSpec(name="s", files=files))
    assert request.ByteSize() > REQUEST_BYTES_MAX
    with Client("127.0.0.1:1") as client, pytest.raises(CallFailed) as caught:
        client.apply(request)
    assert "4.8 MiB" in str(caught.value)
    assert "split the stack" in str(caught.value)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
