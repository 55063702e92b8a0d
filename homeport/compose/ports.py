"""`ports:` and `expose:` in the short and the long syntax."""

from __future__ import annotations

import ipaddress

from homeport.compose import quantities
from homeport.compose.view import View
from homeport.spec import Port, PublishMode

PORTS_OF_STACK_MAX = 10_000
PROTOCOLS = ("tcp", "udp", "sctp")
_MODES = {"ingress": PublishMode.INGRESS, "host": PublishMode.HOST}


def read(service: View) -> tuple[Port, ...]:
    """The published ports of a service, each once."""
    found: dict[Port, None] = {}
    taken: dict[tuple[int, str], set[str]] = {}
    for item in service.listed("ports"):
        if service.context.ports > PORTS_OF_STACK_MAX:
            item.refuse(f"a stack publishes at most {PORTS_OF_STACK_MAX:,} ports")
            break
        ports = _long(item) if item.is_map else _short(item)
        service.context.ports += len(ports)
        for port in ports:
            addresses = taken.setdefault((port.published, port.protocol), set())
            if port not in found and port.published and _overlap(addresses, port.host_ip):
                item.refuse(
                    f"the port {port.published}/{port.protocol} of the host is published twice",
                    "Remove one of the two",
                )  # fmt: skip
            addresses.add(port.host_ip)
            found[port] = None
    return tuple(found)


def expose(service: View) -> tuple[str, ...]:
    """Ports that are open to other containers only."""
    found: dict[str, None] = {}
    for item in service.listed("expose"):
        text = item.as_text()
        ports, slash, protocol = text.partition("/")
        if _checked(item, ports) and (not slash or _protocol(item, protocol)):
            found[text.lower()] = None
    return tuple(found)


def _overlap(addresses: set[str], address: str) -> bool:
    everywhere = {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound to
    if address in everywhere:
        return bool(addresses - everywhere) or address in addresses
    return address in addresses or bool(addresses & everywhere)


def _short(item: View) -> list[Port]:
    text = item.as_text()
    body, slash, protocol_text = text.partition("/")
    left, _, target = body.rpartition(":")
    if left.endswith("]"):
        host_ip, host = left, ""
    else:
        host_ip, _, host = left.rpartition(":")
    if not target or not set(target + host) <= set("0123456789-") or len(text) > 100:
        item.refuse(
            f"{text[:60]!r} is not a port such as 8080:80, 127.0.0.1:8080:80/udp or 9000-9010",
            "Write [HOST:]CONTAINER[/PROTOCOL]",
        )
        return []
    host_ip = host_ip.removeprefix("[").removesuffix("]")
    protocol = _protocol(item, protocol_text) if slash else "tcp"
    targets = _checked(item, target)
    if not _is_address(item, host_ip) or protocol is None or targets is None:
        return []
    return _pairs(item, targets, host, Port(target=1, host_ip=host_ip, protocol=protocol))


def _long(item: View) -> list[Port]:
    target = item.at("target")
    if target is None:
        item.refuse("has no `target`, the port inside the container")
        return []
    targets = target.read(quantities.port_range, None)
    protocol = _protocol(item, item.text("protocol", "tcp"))
    host_ip = item.text("host_ip").strip("[]")
    model = Port(
        target=1,
        host_ip=host_ip,
        protocol=protocol or "tcp",
        mode=item.choice("mode", _MODES, PublishMode.INGRESS),
        name=item.text("name"),
        app_protocol=item.text("app_protocol"),
    )
    mode = item.at("mode")
    if mode is not None and model.mode is PublishMode.INGRESS:
        mode.notice(
            "published on the nodes that run the service, not yet on every node",
            "Write `mode: host` to say so",
        )  # fmt: skip
    published = item.at("published")
    host = published.as_text() if published is not None else ""
    if targets is None or protocol is None or not _is_address(item, host_ip):
        return []
    return _pairs(item, targets, host, model)


def _pairs(item: View, targets: range, host: str, model: Port) -> list[Port]:
    if host in ("", "0"):
        return [_port(model, target, 0) for target in targets]
    published = _checked(item, host)
    if published is None:
        return []
    if len(published) != len(targets):
        item.refuse(
            f"{len(published)} ports of the host do not fit {len(targets)} of the container",
            "Name as many on both sides, or leave the host's away and the engine picks one",
        )  # fmt: skip
        return []
    return [_port(model, t, p) for t, p in zip(targets, published, strict=True)]


def _port(model: Port, target: int, published: int) -> Port:
    return Port(
        target=target, published=published, host_ip=model.host_ip, protocol=model.protocol,
        mode=model.mode, name=model.name, app_protocol=model.app_protocol,
    )  # fmt: skip


def _checked(item: View, text: str) -> range | None:
    try:
        return quantities.port_range(text)
    except ValueError as error:
        item.refuse(str(error))
        return None


def _protocol(item: View, text: str) -> str | None:
    if text.lower() in PROTOCOLS:
        return text.lower()
    item.refuse(f"{text[:20]!r} is not one of {', '.join(PROTOCOLS)}")
    return None


def _is_address(item: View, text: str) -> bool:
    if not text:
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        item.refuse(f"{text[:60]!r} is not an address of the host, or not a port")
        return False
    return True
