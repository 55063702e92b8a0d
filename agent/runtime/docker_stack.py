"""What the tasks of one stack share on an engine: its networks and its named volumes.

Both are made when the first task needs them. A newcomer's mistakes: an engine happily
makes two networks of one name when asked twice at once, so there is one lock per name; and
a volume is never removed here, whatever happens to its stack.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import suppress
from typing import Any

import docker.errors

from agent.runtime.base import LABEL_CLUSTER, LABEL_STACK, Rejected, Work
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.docker_mounts import volume_name, volume_spec
from agent.runtime.docker_networking import network_body, network_name, network_spec
from agent.runtime.labels import owner_labels
from homeport.spec import MountKind, NetworkSpec, VolumeSpec

CREATE_SECONDS = 30.0
_OWNER = (LABEL_CLUSTER, LABEL_STACK)


class StackResources:
    """The networks and volumes of our cluster's stacks on one engine."""

    def __init__(self, engine: Engine, cluster: str) -> None:
        """Only what carries the label of `cluster` is ever removed."""
        self._engine = engine
        self._cluster = cluster
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known_networks: set[str] = set()

    async def prepare(self, work: Work) -> None:
        """Have all networks and named volumes of `work`. Raises Rejected, Unavailable."""
        spec = work.generation.spec.container
        if not spec.network_mode:
            for attachment in spec.networks:
                await self._network(work, network_spec(work, attachment.network))
        for mount in spec.mounts:
            if mount.kind is MountKind.VOLUME and mount.source:
                await self._volume(work, volume_spec(work, mount.source))

    def forget(self) -> None:
        """Look again: the engine was restarted, or a network proved missing."""
        self._known_networks.clear()

    async def clean(self, stack: str) -> None:
        """Remove our networks of a stack, as far as no container is on them."""
        filters = json.dumps(
            {"label": [f"{LABEL_CLUSTER}={self._cluster}", f"{LABEL_STACK}={stack}"]}
        )

        def request(client: Client) -> None:
            for network in client.ask_json("GET", "/networks", params={"filters": filters}):
                found = client.ask_json("GET", f"/networks/{network['Id']}")
                if not found.get("Containers"):
                    client.ask("DELETE", f"/networks/{network['Id']}")

        self.forget()
        await self._engine.call(
            f"remove the networks of stack {stack}", request, seconds=CREATE_SECONDS
        )

    async def _network(self, work: Work, network: NetworkSpec) -> None:
        stack = work.assignment.stack
        name = network_name(stack, network)
        async with self._locks[f"network {name}"]:
            if name in self._known_networks:
                return
            found = await self._find_network(name)
            if found is None:
                if network.external_name:
                    raise Rejected(
                        f"the external network {name} does not exist on this node: make it with"
                        f" `docker network create {name}`"
                    )
                await self._create_network(network_body(self._cluster, stack, network))
            elif not network.external_name and not _is_ours(found, self._cluster, stack):
                raise Rejected(
                    f"a network called {name} is on this node already and is not this stack's:"
                    " give yours another `name:`, or declare it `external: true`"
                )
            self._known_networks.add(name)

    async def _find_network(self, name: str) -> dict[str, Any] | None:
        filters = json.dumps({"name": [name]})

        def request(client: Client) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.ask_json(
                "GET", "/networks", params={"filters": filters}
            )
            return found

        networks = await self._engine.call("look for a network", request)
        # The filter matches parts of names.
        same = (each for each in networks if each["Name"] == name)
        return min(same, key=lambda each: (each["Created"], each["Id"]), default=None)

    async def _create_network(self, body: dict[str, Any]) -> None:
        def request(client: Client) -> None:
            client.ask("POST", "/networks/create", json=body)

        try:
            await self._engine.call(
                f"create the network {body['Name']}", request, seconds=CREATE_SECONDS
            )
        except Rejected:
            # Another agent of this machine may have been faster.
            if await self._find_network(body["Name"]) is None:
                raise
        await self._remove_duplicates(body)

    async def _remove_duplicates(self, body: dict[str, Any]) -> None:
        """Leave one network of this name: its check for duplicates does not hold at once.

        Two agents that share the engine made one each at the same moment. Both keep the
        earlier one, and whoever made the later one gets here before it is used.
        """
        filters = json.dumps(
            {"name": [body["Name"]], "label": [f"{key}={body['Labels'][key]}" for key in _OWNER]}
        )

        def request(client: Client) -> None:
            listed = client.ask_json("GET", "/networks", params={"filters": filters})
            same = [each for each in listed if each["Name"] == body["Name"]]
            same.sort(key=lambda each: (each["Created"], each["Id"]))
            for later in same[1:]:
                # Gone already, or in use: then it is for the next look.
                with suppress(docker.errors.APIError):
                    client.ask("DELETE", f"/networks/{later['Id']}")

        await self._engine.call(
            f"look for a second network {body['Name']}", request, seconds=CREATE_SECONDS
        )

    async def _volume(self, work: Work, volume: VolumeSpec) -> None:
        stack = work.assignment.stack
        name = volume_name(stack, volume)
        body = {
            "Name": name,
            "Driver": volume.driver or "local",
            "DriverOpts": dict(volume.driver_opts),
            "Labels": {**dict(volume.labels), **owner_labels(self._cluster, stack)},
        }

        def request(client: Client) -> None:
            if volume.external_name:
                client.ask("GET", f"/volumes/{name}")
            else:
                # The engine answers with the volume of that name when there is one.
                client.ask("POST", "/volumes/create", json=body)

        try:
            await self._engine.call(f"create the volume {name}", request, seconds=CREATE_SECONDS)
        except Rejected as error:
            if volume.external_name:
                raise Rejected(
                    f"the external volume {name} does not exist on this node: make it with"
                    f" `docker volume create {name}`"
                ) from error
            raise


def _is_ours(network: dict[str, Any], cluster: str, stack: str) -> bool:
    labels = network.get("Labels") or {}
    return all(labels.get(key) == value for key, value in owner_labels(cluster, stack).items())
