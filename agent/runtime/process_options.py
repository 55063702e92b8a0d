"""What of a spec a plain process can have, and the plan for starting it.

A decider. A process has no image, no mounts and no network of its own; a spec that asks for
them is refused with the names of all keys that cannot be had, so that nobody believes in an
isolation that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.runtime.base import Rejected, Work
from agent.runtime.labels import reserved
from homeport.spec import Argv, ContainerSpec, HealthCheck

_KEYS: Mapping[str, str] = {
    # field of the spec -> Compose's key
    "annotations": "annotations",
    "block_io": "blkio_config",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "cgroup_parent": "cgroup_parent",
    "cgroupns_mode": "cgroup",
    "cpu": "cpu_shares, cpu_quota, cpuset …",
    "device_cgroup_rules": "device_cgroup_rules",
    "device_requests": "gpus",
    "devices": "devices",
    "dns": "dns",
    "dns_options": "dns_opt",
    "dns_search": "dns_search",
    "domainname": "domainname",
    "extra_hosts": "extra_hosts",
    "files": "configs, secrets",
    "group_add": "group_add",
    "hostname": "hostname",
    "image_id": "build",
    "ipc_mode": "ipc",
    "isolation": "isolation",
    "logging": "logging",
    "mac_address": "mac_address",
    "memory_reservation_bytes": "mem_reservation",
    "memory_swap_bytes": "memswap_limit",
    "memory_swappiness": "mem_swappiness",
    "mounts": "volumes, tmpfs",
    "oci_runtime": "runtime",
    "oom_kill_disable": "oom_kill_disable",
    "pid_mode": "pid",
    "platform": "platform",
    "privileged": "privileged",
    "read_only": "read_only",
    "security_opt": "security_opt",
    "shm_size_bytes": "shm_size",
    "stdin_open": "stdin_open",
    "storage_opt": "storage_opt",
    "sysctls": "sysctls",
    "tty": "tty",
    "userns_mode": "userns_mode",
    "uts_mode": "uts",
}
_NOTHING = ContainerSpec()
_ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the process runs as; None: as the agent does."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    home: str = ""
    name: str = ""


def objections(work: Work) -> Iterator[str]:
    """Why this cannot be a plain process; a sentence for each reason."""
    spec = work.generation.spec.container
    for key in reserved(spec.labels):
        yield f"label {key}: labels that begin with dev.homeport. are Homeport's own"
    given = [
        key for field, key in _KEYS.items() if getattr(spec, field) != getattr(_NOTHING, field)
    ]
    if spec.network_mode not in ("", "host"):
        given.append(f"network_mode: {spec.network_mode}")
    given += [
        f"network {each.network}"
        for each in spec.networks
        if each.network != "default" or each.ipv4_address or each.ipv6_address
    ]
    if given:
        yield f"a plain process cannot have: {', '.join(given)} (leave them out, or use Docker)"
    if not _argv(spec):
        yield "a plain process needs a `command`: there is no image that could name one"
    for limit in spec.ulimits:
        if limit.name not in _ULIMITS:
            yield f"ulimits: there is no limit called {limit.name}"


def plan(
    work: Work,
    *,
    cluster: str,
    node: str,
    container_id: str,
    identity: Identity,
    base_env: Mapping[str, str],
    venv: str,
    default_dir: str,
) -> dict[str, Any]:
    """All that the shim and later agents need to know, as it is written to `task.json`.

    `base_env` has what every program needs of the agent's environment (PATH, LANG), `venv`
    is the path of its virtual environment or empty.
    """
    spec = work.generation.spec.container
    env = {**base_env}
    if identity.home:
        env |= {"HOME": identity.home, "USER": identity.name}
    if venv:
        env["PATH"] = f"{venv}/bin:{env.get('PATH', '')}"
        env["VIRTUAL_ENV"] = venv
    env.update(work.env)
    return {
        "cluster": cluster,
        "node": node,
        "task": work.task,
        "stack": work.assignment.stack,
        "service": work.assignment.service_name,
        "generation": work.assignment.generation,
        "container_id": container_id,
        "argv": _argv(spec),
        "env": env,
        "cwd": spec.working_dir or default_dir,
        "uid": identity.uid,
        "gid": identity.gid,
        "groups": list(identity.groups),
        "ulimits": [[limit.name, limit.soft, limit.hard] for limit in spec.ulimits],
        "oom_score_adj": spec.oom_score_adj,
        "stop_signal": spec.stop_signal,
        "health": _health(spec.health_check),
        "post_start": [_hook(hook.command, hook.working_dir, hook.env) for hook in spec.post_start],
        "pre_stop": [_hook(hook.command, hook.working_dir, hook.env) for hook in spec.pre_stop],
        "ports": [
            [port.target, port.published or port.target, port.protocol, port.host_ip]
            for port in spec.ports
        ],
        "limits": {
            "cpu_millis": spec.limits.cpu_millis,
            "memory_bytes": spec.limits.memory_bytes,
            "pids": spec.limits.pids,
        },
    }


def _argv(spec: ContainerSpec) -> list[str]:
    return [*(spec.entrypoint or Argv()).args, *(spec.command or Argv()).args]


def _hook(command: tuple[str, ...], working_dir: str, env: tuple[tuple[str, str], ...]) -> Any:
    return {"command": list(command), "working_dir": working_dir, "env": [list(e) for e in env]}


def _health(check: HealthCheck | None) -> dict[str, Any] | None:
    """The check with Docker's defaults filled in, times in seconds."""
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    kind, *words = check.test
    if kind not in ("CMD", "CMD-SHELL") or not words:
        raise Rejected(f"healthcheck: {kind} is neither NONE, CMD nor CMD-SHELL with a command")
    return {
        "argv": words if kind == "CMD" else ["/bin/sh", "-c", words[0]],
        "interval": check.interval_ms / 1000 or 30.0,
        "timeout": check.timeout_ms / 1000 or 30.0,
        "start_period": check.start_period_ms / 1000,
        "start_interval": check.start_interval_ms / 1000 or 5.0,
        "retries": check.retries or 3,
    }
