"""What a failed call to etcd means: may it be asked again, and what does one tell the user?

A pure decider over a status code and etcd's or gRPC's own words. What counts is whether a
write may have happened. A newcomer's mistake: taking UNAVAILABLE for "nothing happened".
etcd says UNAVAILABLE also of a write that it proposed and whose answer it never saw
("request timed out, possibly due to previous leader failure"), and gRPC of a connection that
broke behind the request. Only the texts listed here are certain.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from scheduler.store.etcd.options import EtcdOptions


class Kind(enum.Enum):
    """What to do about a failure."""

    UNSENT = "nothing was done: ask another member, also for a write"
    UNKNOWN = "it may have been done: ask another member, but not for a write"
    OUTDATED = "nothing was done: authenticate anew and ask again"
    REFUSED = "nothing was done, and asking again is of no use"
    NO_SPACE = "nothing was written, and no put will be until there is space"
    TOO_LARGE = "nothing was written: the request is larger than etcd takes"
    LEASE_GONE = "nothing was written: the lease has ended"
    COMPACTED = "the revision is no longer in the history"
    FUTURE = "the revision is yet to come"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A failure, understood. `why` completes "etcd at ENDPOINT: …"."""

    kind: Kind
    why: str


_BY_TEXT = (
    ("mvcc: required revision has been compacted", Kind.COMPACTED, "that history is gone"),
    ("mvcc: required revision is a future revision", Kind.FUTURE, "that revision is yet to come"),
    ("mvcc: database space exceeded", Kind.NO_SPACE, "its database is full"),
    ("requested lease not found", Kind.LEASE_GONE, "the lease has ended"),
    ("request is too large", Kind.TOO_LARGE, "the request is too large"),
    ("received message larger than max", Kind.TOO_LARGE, "the request is too large"),
    ("too many operations in txn", Kind.TOO_LARGE, "its --max-txn-ops is below 128"),
    ("no leader", Kind.UNSENT, "it knows no leader, too few members are up"),
    ("too many requests", Kind.UNSENT, "it has too many requests waiting"),
    ("rpc not supported for learner", Kind.UNSENT, "it is a learner, which answers nobody yet"),
    ("invalid auth token", Kind.OUTDATED, "our token is no longer known"),
    ("revision of auth store is old", Kind.OUTDATED, "its users changed"),
    ("corrupt cluster", Kind.REFUSED, "its members hold different data (alarm CORRUPT)"),
)
"""etcd's own words, in any case of a code; each is said before anything is written."""

_NEVER_CONNECTED = ("failed to connect to all addresses", "dns resolution failed")
"""How gRPC begins when a request never left this process."""


def judge(code: str, details: str, options: EtcdOptions) -> Verdict:
    """What a call's failure means; `code` is gRPC's name of it, as UNAVAILABLE."""
    text = details.lower()
    for words, kind, why in _BY_TEXT:
        if words in text:
            return Verdict(kind, why)
    if refused := _refused(text, options):
        return Verdict(Kind.REFUSED, refused)
    if code == "UNAVAILABLE" and text.startswith(_NEVER_CONNECTED):
        return Verdict(Kind.UNSENT, connection_failure(details, options))
    if code in ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"):
        return Verdict(Kind.REFUSED, details or code)
    if code == "DEADLINE_EXCEEDED":
        return Verdict(Kind.UNKNOWN, "no answer in time")
    return Verdict(Kind.UNKNOWN, details or code)


def _refused(text: str, options: EtcdOptions) -> str:
    if "authentication failed, invalid user id or password" in text:
        return f"it does not know the user {options.user!r} with that password"
    if "user name is empty" in text or "user name not found" in text:
        return "it asks for a user: set etcd_user and etcd_password (or ETCDCTL_USER)"
    if "permission denied" in text:
        who = f"the user {options.user!r}" if options.user else "whoever shows our certificate"
        return (
            f"{who} may not do this; grant it a role that reads and writes {options.prefix}"
            " (etcdctl role grant-permission ROLE --prefix=true readwrite"
            f" {options.prefix})"
        )
    return ""


def connection_failure(details: str, options: EtcdOptions) -> str:
    """Why no connection came about, in words that say what to look at."""
    text = details.lower()
    if "certificate_verify_failed" in text:
        signed = (
            f"is not signed by {options.ca_file}"
            if options.ca_file
            else "is not signed by an authority that this machine trusts: set etcd_ca_file"
        )
        return f"its certificate {signed}, or has expired"
    if "is not in peer certificate" in text or "hostname verification" in text:
        return "its certificate does not name that host: it needs a SAN with it"
    if "tsi_data_corrupted" in text or "tlsv1 alert" in text or "bad certificate" in text:
        return certificate_refused(options)
    if "wrong_version_number" in text or "wrong version number" in text:
        return "it does not speak TLS there: write http://, or give it certificates"
    if "handshake read failed" in text:
        return "it ends the handshake: if it does not speak TLS there, write http://"
    if "connection refused" in text:
        return "connection refused"
    if "dns resolution failed" in text:
        return "its name cannot be resolved"
    if "timed out" in text or "timeout" in text or "deadline" in text:
        return "no connection in time"
    if "no route to host" in text or "network is unreachable" in text:
        return "no route to it"
    if "socket closed" in text or "connection reset" in text or "broken pipe" in text:
        question = "" if options.is_tls else "; does it want TLS (https://)?"
        return f"it closes the connection{question}"
    return details


def certificate_refused(options: EtcdOptions) -> str:
    """The member ended the handshake over our certificate, or over the lack of one."""
    if options.cert_file:
        return f"it refused our certificate {options.cert_file}: its trusted CA is another one"
    return "it wants a certificate from us: set etcd_cert_file and etcd_key_file"
