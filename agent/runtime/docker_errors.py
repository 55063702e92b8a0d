"""What an engine's error means: it cannot be done here, try again, or it is gone.

A decider. A newcomer's mistake: the status code says little. An engine answers 500 both
for a port that is taken and for a containerd that has died; only its words tell them
apart. The words reach the user either way, with Docker's wrapping taken off.
"""

from __future__ import annotations

import re

from agent.runtime.base import Gone, Rejected, RuntimeFailure, Unavailable

_PASSING = (
    "containerd: ",
    "containerd.sock",
    "connection refused",
    "connection error",
    "transport is closing",
    "ttrpc: closed",
    "context deadline exceeded",
    "context canceled",
    "i/o timeout",
    "no space left on device",
    "read-only file system",
    "removal of container",
    "driver failed to remove",
    "unable to remove filesystem",
    "try again",
    "is ambiguous (",  # two agents have made one network; the later copy is about to go
    "cannot allocate memory",
    "too many open files",
)
"""Trouble of the engine or its machine: the same request may succeed later."""

_UNAVAILABLE = re.compile(r"code = Unavailable|: unavailable(?:: unknown)?\s*$")
"""How gRPC and containerd say the same: a shim that died in the middle is not a bad request."""

_MISSING = re.compile(r"no such container|container \S+ not found|no such exec", re.IGNORECASE)
_TAKEN = re.compile(
    r"(?:Bind for|listen (?P<listened>tcp|udp|sctp)[46]?|bind host port for) "
    r"(?:\[[^\]]*\]|[\d.]+|[:a-f\d]*?):(?P<port>\d+)\b(?:\S*/(?P<named>tcp|udp|sctp))?"
)
_TAKEN_WORDS = ("port is already allocated", "address already in use")
_WRAPPING = (
    "failed to create shim: ",
    "failed to create shim task: ",
    "failed to create task for container: ",
    "OCI runtime create failed: ",
    "runc create failed: ",
    "container_linux.go:380: ",
    "invalid mount config for type",
)


def failure(status: int, words: str, what: str) -> RuntimeFailure:
    """The failure that an error of the engine amounts to; `what` says what was tried."""
    text = plain(words)
    if _MISSING.search(words):
        return Gone(f"cannot {what}: {text}")
    if any(sign in words for sign in _PASSING) or _UNAVAILABLE.search(words):
        return Unavailable(f"cannot {what} now: {text}")
    if status in (502, 503, 504):
        return Unavailable(f"cannot {what} now: {text}")
    return Rejected(f"cannot {what}: {text}")


def taken_port(words: str) -> tuple[int, str] | None:
    """Port and protocol (as far as the words tell) that somebody else holds."""
    if not any(sign in words for sign in _TAKEN_WORDS):
        return None
    match = _TAKEN.search(words)
    if match is None:
        return None
    return int(match["port"]), match["listened"] or match["named"] or ""


def plain(words: str) -> str:
    """The engine's words without the layers that they were passed through."""
    text = " ".join(words.split())
    for layer in _WRAPPING[:-1]:
        text = text.replace(layer, "")
    return text.removeprefix("Error response from daemon: ")
