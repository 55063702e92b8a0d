"""From the engine's account of a container to what we say we saw.

A decider: the caller has already looked in /proc and passes what it found. A newcomer's
mistake: believing `Running`. An engine with a full disk goes on showing containers as up
that died long ago, so its word counts only together with the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.runtime.base import LABEL_STACK, Phase, Seen
from agent.runtime.labels import generation_of, task_of
from homeport.model import BoundPort, Health
from homeport.spec import Pairs, pairs

_PHASES = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "paused": Phase.PAUSED,
    "removing": Phase.EXITED,
    "exited": Phase.EXITED,
    "dead": Phase.EXITED,
}
_HEALTH = {
    "starting": Health.STARTING,
    "healthy": Health.HEALTHY,
    "unhealthy": Health.UNHEALTHY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A container's first process by the engine's word."""

    pid: int
    started_ms: int


def labels_of(inspected: Mapping[str, Any]) -> dict[str, str]:
    """The labels of an inspected container."""
    return (inspected.get("Config") or {}).get("Labels") or {}


def claimed_process(inspected: Mapping[str, Any]) -> Process | None:
    """The process that the engine says is running; None when it says that none is."""
    state = inspected["State"]
    if _PHASES.get(state["Status"]) not in (Phase.RUNNING, Phase.PAUSED):
        return None
    return Process(pid=state["Pid"], started_ms=instant_ms(state["StartedAt"]))


def seen(
    inspected: Mapping[str, Any], *, cluster: str, is_alive: bool, image_digest: str = ""
) -> Seen | None:
    """What an inspected container amounts to; None when it is not of our cluster.

    `is_alive` is what /proc says of the process that `claimed_process` names.
    """
    labels = labels_of(inspected)
    task = task_of(labels, cluster)
    if task is None:
        return None
    state = inspected["State"]
    phase = _PHASES.get(state["Status"], Phase.EXITED)
    claim = claimed_process(inspected)
    error = state.get("Error") or ""
    if claim is not None and not is_alive:
        phase = Phase.EXITED
        error = f"the engine says that it runs, but its process {claim.pid} is gone"
    is_up = phase in (Phase.RUNNING, Phase.PAUSED)
    is_ghost = claim is not None and not is_up
    network = inspected.get("NetworkSettings") or {}
    return Seen(
        container_id=inspected["Id"],
        task=task,
        generation=generation_of(labels),
        phase=phase,
        health=_health(state) if is_up else Health.NONE,
        pid=state["Pid"] if is_up else 0,
        exit_code=state["ExitCode"] if phase is Phase.EXITED and not is_ghost else None,
        oom_killed=bool(state.get("OOMKilled")) and not is_up,
        error=error,
        started_ms=instant_ms(state["StartedAt"]),
        finished_ms=instant_ms(state["FinishedAt"]) if not is_up else 0,
        image_digest=image_digest,
        ports=_ports(network) if is_up else (),
        addresses=_addresses(network, labels) if is_up else (),
    )


def seen_in_list(listed: Mapping[str, Any], *, cluster: str) -> Seen | None:
    """The little that a list says of a container, for when it cannot be inspected."""
    labels = listed.get("Labels") or {}
    task = task_of(labels, cluster)
    if task is None:
        return None
    return Seen(
        container_id=listed["Id"],
        task=task,
        generation=generation_of(labels),
        phase=_PHASES.get(listed.get("State", ""), Phase.EXITED),
        error="the engine does not answer when asked about this container",
    )


def digest_of(image: Mapping[str, Any]) -> str:
    """The digest under which a registry knows this image; its id when none does."""
    for reference in image.get("RepoDigests") or ():
        _, _, digest = reference.partition("@")
        if digest:
            return str(digest)
    return str(image.get("Id", ""))


def instant_ms(text: str) -> int:
    """The engine's time as milliseconds since 1970; its zero time is 0."""
    if not text or text.startswith("0001-"):
        return 0
    return int(datetime.fromisoformat(text).timestamp() * 1000)


_NOT_TRIED = ("transport:", "containerd.sock", "ttrpc: closed")
"""What an engine writes for a check's output when its containerd is away."""


def _health(state: Mapping[str, Any]) -> Health:
    told = state.get("Health") or {}
    log = told.get("Log") or ()
    last = log[-1] if log else {}
    if last.get("ExitCode") == -1 and any(word in str(last.get("Output")) for word in _NOT_TRIED):
        # The engine could not even ask: that says nothing of the container.
        return Health.NONE
    health = _HEALTH.get(told.get("Status", ""), Health.NONE)
    if health is Health.UNHEALTHY and told.get("FailingStreak") == 0:
        # A pause ends the checks, which an engine calls unhealthy also after the pause, until the
        # next check: none has failed.
        return Health.STARTING
    return health


def _ports(network: Mapping[str, Any]) -> tuple[BoundPort, ...]:
    found = []
    for target, bindings in (network.get("Ports") or {}).items():
        number, _, protocol = target.partition("/")
        found += [
            BoundPort(
                target=int(number),
                published=int(binding["HostPort"]),
                protocol=protocol,
                host_ip=binding["HostIp"],
            )
            for binding in bindings or ()
            if binding.get("HostPort")
        ]
    return tuple(sorted(found, key=lambda port: (port.target, port.protocol, port.host_ip)))


def _addresses(network: Mapping[str, Any], labels: Mapping[str, str]) -> Pairs:
    """Network as the stack calls it, and the address there (IPv4 where there is one)."""
    stack = labels.get(LABEL_STACK, "")
    return pairs(
        (name.removeprefix(f"{stack}_"), address)
        for name, endpoint in (network.get("Networks") or {}).items()
        if (address := endpoint.get("IPAddress") or endpoint.get("GlobalIPv6Address"))
    )
