"""Verify what a failure of etcd means: what may be asked again, and what people are told."""

import pytest

from scheduler.store.etcd.faults import Kind, judge
from scheduler.store.etcd.options import EtcdOptions

PLAIN = EtcdOptions(endpoints=("http://a:2379",))
SECURE = EtcdOptions(
    endpoints=("https://a:2379",), ca_file="/ca.pem", cert_file="/me.pem", key_file="/me.key"
)
NO_CERTIFICATE = EtcdOptions(endpoints=("https://a:2379",), ca_file="/ca.pem")
USER = EtcdOptions(endpoints=("http://a:2379",), user="ann", password="secret")

REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect"
    " to remote host: connect: Connection refused (111)"
)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", REFUSED),
        ("UNAVAILABLE", "DNS resolution failed for etcd-1:2379: not found"),
        ("UNAVAILABLE", "etcdserver: no leader"),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests"),
        ("UNAVAILABLE", "etcdserver: rpc not supported for learner"),
    ],
)
def test_what_no_member_has_seen_may_be_sent_again(code, details):
    assert judge(code, details, PLAIN).kind is Kind.UNSENT


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", "etcdserver: request timed out"),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to previous leader failure"),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to connection lost"),
        ("UNAVAILABLE", "etcdserver: server stopped"),
        ("UNAVAILABLE", "etcdserver: leader changed"),
        ("UNAVAILABLE", "Socket closed"),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer"),
        ("UNAVAILABLE", "keepalive watchdog timeout"),
        ("UNKNOWN", "context deadline exceeded"),
        ("UNKNOWN", "raft proposal dropped"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("INTERNAL", "Received RST_STREAM with error code 2"),
        ("CANCELLED", ""),
        ("DATA_LOSS", "?"),
    ],
)
def test_everything_else_may_have_been_done(code, details):
    # The rule that no write is ever made twice hangs on this list being closed.
    assert judge(code, details, PLAIN).kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Kind.NO_SPACE),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", Kind.TOO_LARGE),
        ("NOT_FOUND", "etcdserver: requested lease not found", Kind.LEASE_GONE),
        (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision has been compacted",
            Kind.COMPACTED,
        ),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision", Kind.FUTURE),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Kind.OUTDATED),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", Kind.OUTDATED),
        ("DATA_LOSS", "etcdserver: corrupt cluster", Kind.REFUSED),
        ("INVALID_ARGUMENT", "something new", Kind.REFUSED),
        ("UNIMPLEMENTED", "unknown service etcdserverpb.KV", Kind.REFUSED),
    ],
)
def test_etcd_s_own_refusals_are_known(code, details, kind):
    assert judge(code, details, PLAIN).kind is kind


@pytest.mark.parametrize(
    ("options", "details", "words"),
    [
        (PLAIN, REFUSED, "connection refused"),
        (SECURE, "… SSL routines::CERTIFICATE_VERIFY_FAILED: …", "not signed by /ca.pem"),
        (SECURE, "… Hostname Verification Check failed.", "does not name that host"),
        (SECURE, "… TSI_DATA_CORRUPTED …", "refused our certificate /me.pem"),
        (NO_CERTIFICATE, "… TSI_DATA_CORRUPTED …", "set etcd_cert_file"),
        (SECURE, "… WRONG_VERSION_NUMBER …", "does not speak TLS"),
        (PLAIN, "… Socket closed", "want TLS"),
        (SECURE, "… No route to host", "no route"),
    ],
)
def test_a_connection_that_does_not_come_about_has_a_reason(options, details, words):
    text = f"failed to connect to all addresses; last error: {details}"

    assert words in judge("UNAVAILABLE", text, options).why


@pytest.mark.parametrize(
    ("options", "details", "words"),
    [
        (USER, "etcdserver: authentication failed, invalid user ID or password", "'ann'"),
        (PLAIN, "etcdserver: user name is empty", "ETCDCTL_USER"),
        (USER, "etcdserver: permission denied", "grant-permission ROLE --prefix=true readwrite"),
    ],
)
def test_who_is_not_let_in_is_told_what_to_do_and_no_password(options, details, words):
    verdict = judge("PERMISSION_DENIED", details, options)

    assert verdict.kind is Kind.REFUSED
    assert words in verdict.why
    assert "secret" not in verdict.why
