"""Networks: the stack's, and how a service joins them.

The aliases of a service are its name, its `container_name` and what it gives; slots and
containers are named by Homeport. A newcomer's surprise: a service that names no network joins
`default`, which exists without being written anywhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from homeport.compose import suggest
from homeport.compose.view import View
from homeport.spec import NetworkAttachment, NetworkSpec, SubnetSpec, pairs

DEFAULT = "default"
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_ALIAS = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,253}[a-zA-Z0-9_])?")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_ENGINE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_OWN_MODES = ("bridge", "default", "host", "none")


def stack_network(name: str, view: View) -> NetworkSpec:
    """One entry of the top-level `networks:`."""
    external = external_name(name, view, ("driver", "driver_opts", "ipam", "internal", "labels"))
    if external:
        return NetworkSpec(name=name, external_name=external)
    driver = view.at("driver")
    driver_name = driver.as_text() if driver is not None else ""
    if driver is not None and driver_name == "overlay":
        driver.notice(
            "is made as a bridge on every node: Homeport connects the nodes itself",
            "Remove the line",
        )  # fmt: skip
        driver_name = ""
    ipam = view.at("ipam")
    ipv4 = view.at("enable_ipv4")
    return NetworkSpec(
        name=name,
        driver=driver_name,
        driver_opts=view.pairs("driver_opts"),
        internal=view.flag("internal"),
        attachable=view.flag("attachable"),
        enable_ipv4=ipv4.as_bool(True) if ipv4 is not None else None,
        enable_ipv6=view.flag("enable_ipv6"),
        labels=view.pairs("labels"),
        ipam_driver=ipam.text("driver") if ipam is not None else "",
        ipam_options=ipam.pairs("options") if ipam is not None else (),
        subnets=tuple(map(_subnet, ipam.listed("config"))) if ipam is not None else (),
        engine_name=engine_name(view),
    )


def external_name(name: str, view: View, conflicting: tuple[str, ...]) -> str:
    """The engine's name of what exists already; empty when the stack makes it."""
    if not view.is_map and not _is_empty(view):
        view.refuse("must be a map")
        return ""
    external = view.at("external")
    if external is None:
        return ""
    if external.is_map:
        stated = external.text("name", name)
    elif external.as_bool():
        stated = view.text("name", name)
    else:
        return ""
    for key in conflicting:
        other = view.at(key)
        if other is not None:
            other.refuse("cannot be given for what is `external`", "Remove one of the two")
    if not _ENGINE_NAME.fullmatch(stated):
        external.refuse(f"{stated[:60]!r} is not a name that the engine takes")
    return stated


def engine_name(view: View) -> str:
    """`name:` of a network or volume."""
    found = view.at("name")
    if found is None:
        return ""
    text = found.as_text()
    if not _ENGINE_NAME.fullmatch(text) or len(text) < 2:
        found.refuse(
            f"{text[:60]!r} is not a name that the engine takes",
            "Use two or more letters, digits, _, . and -",
        )
        return ""
    return text


def _is_empty(view: View) -> bool:
    return getattr(view.node, "value", "") is None


def _subnet(item: View) -> SubnetSpec:
    subnet = _network(item.at("subnet"))
    return SubnetSpec(
        subnet=subnet,
        gateway=address(item, "gateway"),
        ip_range=_network(item.at("ip_range")),
        aux_addresses=pairs(
            (key.name, _address(entry)) for key, entry in item.named("aux_addresses")
        ),
    )


def _network(found: View | None) -> str:
    if found is None:
        return ""
    text = found.as_text()
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        found.refuse(f"{text[:60]!r} is not a range of addresses such as 172.20.0.0/16")
        return ""
    return text


def address(view: View, key: str, version: int = 0) -> str:
    """An IP address under a key; version 4 or 6, or 0 for either."""
    found = view.at(key)
    return _address(found, version) if found is not None else ""


def _address(found: View, version: int = 0) -> str:
    text = found.as_printed()
    try:
        is_right = not version or ipaddress.ip_address(text).version == version
        ipaddress.ip_address(text)
    except ValueError:
        is_right = False
    if not is_right:
        found.refuse(f"{text[:60]!r} is not an IP{f'v{version}' if version else ''} address")
        return ""
    return text


def mode(service: View) -> str:
    """`network_mode:`; empty for the stack's networks."""
    found = service.at("network_mode")
    if found is None:
        return ""
    text = found.as_text()
    if text.startswith(("service:", "container:")):
        found.refuse(
            "is not supported: two containers share one network only on one node",
            "Join both to a network of the stack and use the service's name as address",
        )
        return ""
    if service.at("networks") is not None:
        found.refuse("cannot be given together with `networks`", "Remove one of the two")
    if text not in _OWN_MODES and not _ENGINE_NAME.fullmatch(text):
        found.refuse(f"{text[:60]!r} is not one of {', '.join(_OWN_MODES)} or a network's name")
        return ""
    return text


def attachments(
    service: View, name: str, known: Collection[str], replicas: int
) -> tuple[NetworkAttachment, ...]:
    """The networks of the stack that a service joins."""
    aliases = [name]
    container_name = service.at("container_name")
    if container_name is not None:
        alias = container_name.as_text()
        if not _ALIAS.fullmatch(alias):
            container_name.refuse(f"{alias[:60]!r} is not a name that other containers can use")
        else:
            aliases.append(alias)
    section = service.at("networks")
    if section is None:
        return (NetworkAttachment(network=DEFAULT, aliases=tuple(dict.fromkeys(aliases))),)
    if section.is_list:
        entries = [(item.as_text(), item) for item in section.items()]
    else:
        entries = [(key.name, item) for key, item in section.entries()]
    found: dict[str, NetworkAttachment] = {}
    for network, item in entries:
        if network not in known and network != DEFAULT:
            item.refuse(
                f"the network {network[:60]!r} is not defined",
                suggest.nearest(network, known) or "Add it under the top-level `networks:`",
            )
        elif item.is_map:
            found[network] = _attachment(item, network, aliases, replicas)
        else:
            if not section.is_list and not _is_empty(item):
                item.refuse("must be a map, or nothing")
            found[network] = NetworkAttachment(
                network=network, aliases=tuple(dict.fromkeys(aliases))
            )
    return tuple(found.values())


def _attachment(item: View, network: str, aliases: list[str], replicas: int) -> NetworkAttachment:
    given = item.texts("aliases")
    for alias in given:
        if not _ALIAS.fullmatch(alias):
            item.refuse(f"the alias {alias[:60]!r} is not a name that other containers can use")
    mac = item.at("mac_address")
    for key in ("ipv4_address", "ipv6_address"):
        static = item.at(key)
        if static is not None and replicas > 1:
            static.refuse(f"one address cannot serve {replicas} replicas", "Remove it")
    interface = item.at("interface_name")
    if interface is not None and not _INTERFACE.fullmatch(interface.as_text()):
        interface.refuse("is not a name of a network interface: at most 15 characters")
    return NetworkAttachment(
        network=network,
        aliases=tuple(dict.fromkeys((*aliases, *given))),
        ipv4_address=address(item, "ipv4_address", 4),
        ipv6_address=address(item, "ipv6_address", 6),
        link_local_ips=tuple(_address(one) for one in item.listed("link_local_ips")),
        mac_address=mac_address(mac) if mac is not None else "",
        driver_opts=item.pairs("driver_opts"),
        interface_name=item.text("interface_name"),
        priority=item.whole("priority", 0, 1_000_000),
        gw_priority=item.whole("gw_priority", -1_000_000, 1_000_000),
    )


def mac_address(found: View) -> str:
    """A MAC address."""
    text = found.as_text()
    if not _MAC.fullmatch(text):
        found.refuse(f"{text[:40]!r} is not a MAC address such as 02:42:ac:11:00:02")
        return ""
    return text
