"""Every error that is meant for users has a code, a reason, a sentence and details."""

import grpc
import pytest
from google.rpc import error_details_pb2

from homeport.codec import CodecError
from homeport.seams import LinkLost, Refused
from scheduler.api import errors
from scheduler.store import base
from scheduler.store.authority import NotLeading


def details(error):
    status = errors.failure(error).status()
    found = {}
    for detail in status.details:
        for kind in ("ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if detail.Unpack(message):
                found[kind] = message
    return status, found


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.Invalid([("a.b", "is wrong")]), "INVALID_ARGUMENT", "INVALID"),
        (errors.NotFound("stack", "x"), "NOT_FOUND", "NOT_FOUND"),
        (errors.Outdated("changed"), "ABORTED", "GENERATION_CHANGED"),
        (errors.RequestIdUsed("used"), "ALREADY_EXISTS", "REQUEST_ID_USED"),
        (errors.NotNow("not now"), "FAILED_PRECONDITION", "NOT_NOW"),
        (errors.TooLarge("large"), "RESOURCE_EXHAUSTED", "TOO_LARGE"),
        (NotLeading("a:1"), "UNAVAILABLE", "NOT_LEADER"),
        (Refused("no"), "FAILED_PRECONDITION", "REFUSED"),
        (LinkLost("gone"), "UNAVAILABLE", "NODE_UNREACHABLE"),
        (CodecError("enum 99"), "INVALID_ARGUMENT", "UNREADABLE"),
        (base.Conflict(["k"]), "ABORTED", "CONFLICT"),
        (base.Fenced("x"), "UNAVAILABLE", "NOT_LEADER"),
        (base.Ambiguous("x"), "UNAVAILABLE", "OUTCOME_UNKNOWN"),
        (base.Unavailable("disk full"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (base.Damaged("bad page"), "INTERNAL", "STORE_DAMAGED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_the_table(error, code, reason):
    status, found = details(error)
    assert status.code == getattr(grpc.StatusCode, code).value[0]
    assert found["ErrorInfo"].reason == reason
    assert found["ErrorInfo"].domain == errors.DOMAIN
    assert status.message


def test_every_bad_field_is_in_the_details():
    _, found = details(errors.Invalid([("a", "x"), ("b", "y")]))
    assert [each.field for each in found["BadRequest"].field_violations] == ["a", "b"]


def test_the_object_that_is_missing_is_in_the_details():
    _, found = details(errors.NotFound("node", "pi"))
    assert (found["ResourceInfo"].resource_type, found["ResourceInfo"].resource_name) == (
        "node",
        "pi",
    )


def test_who_does_not_lead_names_the_leader_and_when_to_come_back():
    _, found = details(NotLeading("10.0.0.1:7070"))
    assert found["ErrorInfo"].metadata["leader"] == "10.0.0.1:7070"
    assert found["RetryInfo"].retry_delay.nanos == 500_000_000


def test_a_bug_is_not_in_the_table():
    assert errors.failure(ValueError("secret detail")) is None
    assert errors.failure(KeyError("x")) is None
