"""What a Docker engine is, and whether it can do work now.

A newcomer's mistake: `_ping`, and even a list of containers, are answered by an engine whose
containerd is dead or whose disk is full. What tells: `info`, for which dockerd asks
containerd for its version, and the real work itself. Writing on purpose in calm times would
wear a flash card for nothing, so that is done only after real work failed, until it
succeeds: a container that is made and removed, never started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from agent.runtime import cgroups
from agent.runtime.base import LABEL_CLUSTER, EngineFacts, RuntimeFailure
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.labels import LABEL_PROBE
from homeport.model import Condition
from homeport.spec import Pairs, Resources, pairs

CHECK_SECONDS = 5.0


class EngineCheck:
    """Watches one engine's ability to work."""

    def __init__(self, engine: Engine, cluster: str) -> None:
        """`cluster` marks the container that is made on trial."""
        self._engine = engine
        self._cluster = cluster
        self._doubt = ""

    def doubt(self, failure: RuntimeFailure) -> None:
        """Real work failed because of the engine."""
        self._doubt = str(failure)

    def trust(self) -> None:
        """Real work succeeded."""
        self._doubt = ""

    async def facts(self) -> EngineFacts:
        """What the engine is and offers. Raises Unavailable."""
        info = await self._info()
        labels = [label.partition("=") for label in info.get("Labels") or ()]
        return EngineFacts(
            engine=f"docker {info.get('ServerVersion', '')}",
            engine_labels=pairs((key, value) for key, _, value in labels),
            oci_runtimes=tuple(sorted(info.get("Runtimes") or ())),
            data_root=info.get("DockerRootDir", ""),
            cgroup_version=int(info.get("CgroupVersion") or 1),
            unfenced=_unfenced(sees_processes=self._engine.sees_processes),
            capacity=Resources(
                cpu_millis=info.get("NCPU", 0) * 1000,
                memory_bytes=info.get("MemTotal", 0),
                generic=generic(info.get("GenericResources") or ()),
            ),
        )

    async def condition(self) -> Condition:
        """Whether the engine can do work now. Never raises."""
        sentence = ""
        try:
            info = await self._info()
            if (info.get("ContainerdCommit") or {}).get("ID") == "N/A":
                sentence = "Docker answers, but its containerd does not: no container can start"
            elif self._doubt:
                await self._try_writing()
                self._doubt = ""
        except RuntimeFailure as error:
            sentence = str(error)
        if sentence:
            return Condition(name="engine", ok=False, message=sentence)
        stuck = self._engine.stuck
        return Condition(name="engine", ok=True, message=f"{stuck} calls hang" if stuck else "")

    async def _info(self) -> dict[str, Any]:
        def request(client: Client) -> dict[str, Any]:
            info: dict[str, Any] = client.ask_json("GET", "/info")
            return info

        return await self._engine.call("ask Docker how it is", request, seconds=CHECK_SECONDS)

    async def _try_writing(self) -> None:
        labels = {LABEL_CLUSTER: self._cluster, LABEL_PROBE: "true"}
        ours = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})

        def request(client: Client) -> None:
            for left in client.ask_json(
                "GET", "/containers/json", params={"all": 1, "filters": ours}
            ):
                client.ask("DELETE", f"/containers/{left['Id']}", params={"force": 1})
            images = client.ask_json("GET", "/images/json")
            if not images:
                return
            made = client.ask_json(
                "POST",
                "/containers/create",
                json={"Image": images[0]["Id"], "Cmd": ["true"], "Labels": labels},
            )
            client.ask("DELETE", f"/containers/{made['Id']}")

        await self._engine.call("make a container on trial", request, seconds=CHECK_SECONDS)


def generic(resources: Iterable[dict[str, Any]]) -> Pairs:
    """The engine's node-generic-resources as kind → count; named ones are counted."""
    counts: dict[str, int] = {}
    for resource in resources:
        named = resource.get("NamedResourceSpec")
        spec = named or resource.get("DiscreteResourceSpec") or {}
        kind, count = spec.get("Kind", ""), 1 if named else spec.get("Value", 0)
        if kind:
            counts[kind] = counts.get(kind, 0) + int(count)
    return pairs((kind, str(count)) for kind, count in counts.items())


def _unfenced(*, sees_processes: bool) -> str:
    """Why the guard could not end this engine's containers; empty: it could."""
    if not sees_processes:
        return (
            "the agent does not see the processes of its engine: run it on the machine itself, or"
            " in a container with `pid: host`"
        )
    if not cgroups.mounted():
        return "the control groups are not there: mount /sys/fs/cgroup into the agent's container"
    if os.geteuid() != 0:
        return "only an agent that runs as root can end the processes of containers"
    return ""
