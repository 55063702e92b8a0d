"""What a caller sees of a call that failed: one exception, with the server's sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class CallFailed(Exception):
    """A call did not succeed; `str()` is a sentence for people."""

    def __init__(
        self,
        sentence: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        fields: Sequence[tuple[str, str]] = (),
        metadata: dict[str, str] | None = None,
    ) -> None:
        """`reason`: UPPER_SNAKE for programs; `fields`: (path, sentence) of each bad field."""
        super().__init__(sentence)
        self.code = code
        self.reason = reason
        self.fields = tuple(fields)
        self.metadata = metadata or {}


class Unreachable(CallFailed):
    """No scheduler answered."""


def failure(error: Any) -> CallFailed:
    """Our exception for a gRPC error, with what its details say."""
    code = error.code()
    sentence = error.details() or code.name.lower().replace("_", " ")
    reason, metadata, fields = "", {}, []
    status = _status_of(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = [(each.field, each.description) for each in bad.field_violations]
    return CallFailed(sentence, code=code, reason=reason, fields=fields, metadata=metadata)


def _status_of(error: Any) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # from something that is not a scheduler
                return None
    return None
