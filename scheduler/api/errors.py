"""What can be wrong with a call, and the one table that turns it into a gRPC status.

Every refusal is a sentence for people, an UPPER_SNAKE reason for programs, and details for
what a program might act upon: the bad fields, the object that is missing, the leader's
address, when to try again. Exceptions that are not in the table are bugs, and their text
never reaches a client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from homeport.codec import CodecError
from homeport.seams import LinkLost, Refused
from scheduler.store import base
from scheduler.store.authority import NotLeading
from scheduler.store.images import ImageError

DOMAIN = "homeport.dev"
Code = grpc.StatusCode


class ApiError(Exception):
    """A call was not carried out."""


class Invalid(ApiError):
    """The request cannot be meant: all its problems at once, as (field path, sentence)."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        """At least one violation."""
        self.violations = tuple(violations)
        first = "; ".join(f"{path}: {sentence}" for path, sentence in self.violations[:3])
        more = len(self.violations) - 3
        super().__init__(first + (f"; and {more} more" if more > 0 else ""))


class NotFound(ApiError):
    """An object that the request names does not exist."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        """`kind` as users say it: stack, service, task, node."""
        super().__init__(f"there is no {kind} {name}" + (f"; {hint}" if hint else ""))
        self.kind = kind
        self.name = name


class Outdated(ApiError):
    """The object is not at the generation that the caller saw."""


class RequestIdUsed(ApiError):
    """The request id was used before, for another request."""


class NotNow(ApiError):
    """The request is fine, but not in the state that the cluster is in."""


class TooLarge(ApiError):
    """More than can be written in one piece."""


class Unwell(ApiError):
    """The cluster cannot do it at the moment; trying again later may help."""


class StoreSilent(ApiError):
    """The store did not answer in time. What was asked of it may be done."""


class LeaderLost(ApiError):
    """The leader was asked for the caller, and did not answer. What was asked may be done."""


class Relayed(ApiError):
    """The leader's no, for the caller, as it said it."""

    def __init__(
        self, code: grpc.StatusCode, sentence: str, status: status_pb2.Status | None
    ) -> None:
        """`status` has the details; None where the leader sent none."""
        super().__init__(sentence)
        self.code = code
        self.status = status

    @property
    def reason(self) -> str:
        """The UPPER_SNAKE word for programs; empty where there is none."""
        info = error_details_pb2.ErrorInfo()
        for detail in self.status.details if self.status is not None else ():
            if detail.Unpack(info):
                return str(info.reason)
        return ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A status with its details."""

    code: grpc.StatusCode
    reason: str
    sentence: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    resource: tuple[str, str] | None = None
    retry_seconds: float | None = None
    relayed: status_pb2.Status | None = None

    def status(self) -> status_pb2.Status:
        """The google.rpc.Status that travels in the trailers."""
        if self.relayed is not None:
            return self.relayed
        details = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        ]
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for path, sentence in self.violations:
                bad.field_violations.add(field=path, description=sentence)
            details.append(bad)
        if self.resource is not None:
            kind, name = self.resource
            details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
        if self.retry_seconds is not None:
            delay = duration_pb2.Duration(nanos=round(self.retry_seconds * 1e9) % 1_000_000_000)
            delay.seconds = int(self.retry_seconds)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.sentence)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


_TABLE: tuple[tuple[type[Exception], grpc.StatusCode, str, float | None], ...] = (
    # The first row whose type matches counts: subclasses stand before their bases.
    (Invalid, Code.INVALID_ARGUMENT, "INVALID", None),
    (ImageError, Code.INVALID_ARGUMENT, "BAD_IMAGE", None),
    (CodecError, Code.INVALID_ARGUMENT, "UNREADABLE", None),
    (NotFound, Code.NOT_FOUND, "NOT_FOUND", None),
    (Outdated, Code.ABORTED, "GENERATION_CHANGED", None),
    (RequestIdUsed, Code.ALREADY_EXISTS, "REQUEST_ID_USED", None),
    (NotNow, Code.FAILED_PRECONDITION, "NOT_NOW", None),
    (LeaderLost, Code.UNAVAILABLE, "LEADER_LOST", 0.5),
    (StoreSilent, Code.UNAVAILABLE, "STORE_UNAVAILABLE", 1.0),
    (TooLarge, Code.RESOURCE_EXHAUSTED, "TOO_LARGE", None),
    (Unwell, Code.UNAVAILABLE, "UNAVAILABLE", 1.0),
    (NotLeading, Code.UNAVAILABLE, "NOT_LEADER", 0.5),
    (Refused, Code.FAILED_PRECONDITION, "REFUSED", None),
    (LinkLost, Code.UNAVAILABLE, "NODE_UNREACHABLE", 1.0),
    (base.Conflict, Code.ABORTED, "CONFLICT", 0.1),
    (base.Fenced, Code.UNAVAILABLE, "NOT_LEADER", 0.5),
    (base.Ambiguous, Code.UNAVAILABLE, "OUTCOME_UNKNOWN", 1.0),
    (base.Damaged, Code.INTERNAL, "STORE_DAMAGED", None),
    (base.TooLarge, Code.RESOURCE_EXHAUSTED, "TOO_LARGE", None),
    (base.StoreError, Code.UNAVAILABLE, "STORE_UNAVAILABLE", 1.0),
)

_SENTENCES: Mapping[type[Exception], str] = {
    base.Conflict: "something changed at the same moment; try again",
    base.Fenced: "this scheduler does not lead any more",
}


def failure(error: Exception) -> Failure | None:
    """What to answer for this exception; None for one that only a bug can cause."""
    if isinstance(error, Relayed):
        return Failure(error.code, error.reason, str(error), relayed=error.status)
    for kind, code, reason, retry_seconds in _TABLE:
        if isinstance(error, kind):
            return Failure(
                code=code,
                reason=reason,
                sentence=_SENTENCES.get(kind, str(error)),
                metadata=_metadata(error),
                violations=error.violations if isinstance(error, Invalid) else (),
                resource=(error.kind, error.name) if isinstance(error, NotFound) else None,
                retry_seconds=retry_seconds,
            )
    return None


def _metadata(error: Exception) -> dict[str, str]:
    if isinstance(error, NotLeading) and error.leader:
        return {"leader": error.leader}
    return {}
