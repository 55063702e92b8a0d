"""Networks, endpoints and published ports as the engine takes them.

A decider. A newcomer's mistake: engines before API 1.44 take one network when a container
is created; the others are connected afterwards, before it starts, or the container would
miss names for its first moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.runtime.base import Work
from agent.runtime.labels import owner_labels
from homeport.spec import NetworkAttachment, NetworkSpec, Port

Body = dict[str, Any]

SEVERAL_AT_CREATION = (1, 44)
INTERFACE_NAME = "com.docker.network.endpoint.ifname"


@dataclass(frozen=True, slots=True, kw_only=True)
class Networking:
    """A container's networks and ports, in the engine's words."""

    mode: str
    mac_address: str = ""  # the container's, as engines before API 1.44 have it
    at_creation: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    afterwards: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    exposed: Mapping[str, Any]
    bindings: Mapping[str, Any]


def network_spec(work: Work, name: str) -> NetworkSpec:
    """The stack's network of this name; a plain one when the stack says nothing of it."""
    for network in work.networks:
        if network.name == name:
            return network
    return NetworkSpec(name=name)


def network_name(stack: str, network: NetworkSpec) -> str:
    """The engine's name of a stack's network."""
    return network.external_name or network.engine_name or f"{stack}_{network.name}"


def network_body(cluster: str, stack: str, network: NetworkSpec) -> Body:
    """The engine's "create a network" call for a stack's network."""
    body: Body = {
        "Name": network_name(stack, network),
        "CheckDuplicate": True,
        "Driver": network.driver or "bridge",
        "Options": dict(network.driver_opts),
        "Internal": network.internal,
        "Attachable": network.attachable,
        "EnableIPv6": network.enable_ipv6,
        "Labels": {**dict(network.labels), **owner_labels(cluster, stack)},
    }
    if network.enable_ipv4 is not None:
        body["EnableIPv4"] = network.enable_ipv4
    if network.subnets or network.ipam_driver or network.ipam_options:
        body["IPAM"] = {
            "Driver": network.ipam_driver or "default",
            "Options": dict(network.ipam_options),
            "Config": [
                {
                    key: value
                    for key, value in (
                        ("Subnet", subnet.subnet),
                        ("Gateway", subnet.gateway),
                        ("IPRange", subnet.ip_range),
                        ("AuxiliaryAddresses", dict(subnet.aux_addresses)),
                    )
                    if value
                }
                for subnet in network.subnets
            ],
        }
    return body


def networking(work: Work, api: tuple[int, int]) -> Networking:
    """The networks of the container of `work`, the one of highest priority first."""
    spec = work.generation.spec.container
    exposed: Body = {_with_protocol(port): {} for port in spec.expose}
    exposed.update({f"{port.target}/{port.protocol}": {} for port in spec.ports})
    bindings: dict[str, list[Body]] = {}
    for port in spec.ports:
        bindings.setdefault(f"{port.target}/{port.protocol}", []).append(_binding(port))
    attachments = ordered(spec.networks)
    if spec.network_mode or not attachments:
        return Networking(
            mode=spec.network_mode or "default",
            mac_address=spec.mac_address,
            exposed=exposed,
            bindings=bindings,
        )
    stack = work.assignment.stack
    endpoints = [
        (network_name(stack, network_spec(work, each.network)), _endpoint(work, each, api))
        for each in attachments
    ]
    mac_address = spec.mac_address or attachments[0].mac_address
    is_new = api >= SEVERAL_AT_CREATION
    if is_new and mac_address:
        endpoints[0][1]["MacAddress"] = mac_address
    return Networking(
        mode=endpoints[0][0],
        mac_address="" if is_new else mac_address,
        at_creation=tuple(endpoints if is_new else endpoints[:1]),
        afterwards=() if is_new else tuple(endpoints[1:]),
        exposed=exposed,
        bindings=bindings,
    )


def ordered(attachments: tuple[NetworkAttachment, ...]) -> list[NetworkAttachment]:
    """Highest priority first; equal ones by name, as Compose has it."""
    return sorted(attachments, key=lambda each: (-each.priority, each.network))


def objections(work: Work, api: tuple[int, int]) -> Iterator[str]:
    """Why an engine of this API version cannot attach the container as the spec asks."""
    spec = work.generation.spec.container
    engine = f"the engine of this node speaks API {api[0]}.{api[1]}"
    for position, each in enumerate(ordered(spec.networks)):
        where = f"network {each.network}"
        if each.mac_address and position > 0 and api < SEVERAL_AT_CREATION:
            yield (
                f"{where}: mac_address on any but the first network needs Docker Engine 25"
                f" (API 1.44); {engine}"
            )
        if each.gw_priority and api < (1, 48):
            yield f"{where}: gw_priority needs Docker Engine 28 (API 1.48); {engine}"
        if each.interface_name and api < (1, 48):
            yield f"{where}: interface_name needs Docker Engine 28 (API 1.48); {engine}"
        if network_spec(work, each.network).enable_ipv4 is False and api < (1, 48):
            yield f"{where}: enable_ipv4: false needs Docker Engine 28 (API 1.48); {engine}"


def slot_alias(work: Work) -> str:
    """The name by which one replica is found on its networks."""
    _, slot, _ = work.task.rsplit("/", 2)
    return f"{work.assignment.stack}-{work.assignment.service_name}-{slot}"


def _endpoint(work: Work, each: NetworkAttachment, api: tuple[int, int]) -> Body:
    options = dict(each.driver_opts)
    if each.interface_name:
        options[INTERFACE_NAME] = each.interface_name
    addresses = {
        key: value
        for key, value in (
            ("IPv4Address", each.ipv4_address),
            ("IPv6Address", each.ipv6_address),
            ("LinkLocalIPs", list(each.link_local_ips)),
        )
        if value
    }
    endpoint: Body = {"Aliases": [*each.aliases, slot_alias(work)], "DriverOpts": options}
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if each.mac_address and api >= SEVERAL_AT_CREATION:
        endpoint["MacAddress"] = each.mac_address
    if each.gw_priority:
        endpoint["GwPriority"] = each.gw_priority
    return endpoint


def _binding(port: Port) -> Body:
    return {"HostIp": port.host_ip, "HostPort": str(port.published) if port.published else ""}


def _with_protocol(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"
