"""The devices of a machine, each once, with all names by which a service may ask for it.

Listed are those that people hand to containers. What fits no pattern here is unknown to the
scheduler, and a task that asks for it by its path may go anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.hardware.gpus import gpus
from agent.hardware.tree import Tree
from homeport.model import MachineDevice

PATTERNS = (
    ("/dev/accel/accel*", "accelerator"),
    ("/dev/apex_*", "accelerator"),
    ("/dev/bus/usb", "directory"),
    ("/dev/dri", "directory"),
    ("/dev/dri/card*", "display"),
    ("/dev/dri/renderD*", "display"),
    ("/dev/dvb/adapter*", "tuner"),
    ("/dev/fuse", "fuse"),
    ("/dev/gpiochip*", "gpio"),
    ("/dev/gpiomem*", "gpio"),
    ("/dev/hailo*", "accelerator"),
    ("/dev/hidraw*", "hid"),
    ("/dev/i2c-*", "i2c"),
    ("/dev/kfd", "kfd"),
    ("/dev/kvm", "kvm"),
    ("/dev/net/tun", "tun"),
    ("/dev/nvidia[0-9]", "gpu"),
    ("/dev/nvme[0-9]n[0-9]", "disk"),
    ("/dev/sd[a-z]", "disk"),
    ("/dev/snd", "sound"),
    ("/dev/spidev*", "spi"),
    ("/dev/ttyACM*", "serial"),
    ("/dev/ttyAMA*", "serial"),
    ("/dev/ttyUSB*", "serial"),
    ("/dev/video[0-9]*", "video"),
)
"""(paths of device nodes, their kind)."""
LINKS = (
    "/dev/dri/by-path/*",
    "/dev/serial/by-id/*",
    "/dev/serial/by-path/*",
    "/dev/v4l/by-id/*",
    "/dev/v4l/by-path/*",
)
"""Other names of such nodes."""
DEVICES_MAX = 256
_CLASSES = {"serial": "tty", "video": "video4linux", "hid": "hidraw", "disk": "block"}
"""Kind → where /sys has the devices of that kind."""
_USB = "/sys/bus/usb/devices"
_HUB = "09"


def look(tree: Tree, more: Iterable[str] = ()) -> tuple[tuple[MachineDevice, ...], tuple[str, ...]]:
    """(devices sorted by id, patterns of all paths that would be among them).

    `more`: PATTERN or KIND=PATTERN of the operator's own; a link of theirs gives its target the
    kind.
    """
    own = [_own(each) for each in more]
    nodes, aliases, kinds = _nodes(tree, own)
    cards = gpus(tree)
    of_a_card = {name for card in cards for name in card.names}
    found = [_with(card, aliases) for card in cards]
    seen: set[str] = set()
    for path, kind in sorted(nodes.items()):
        if path in of_a_card or kind == "gpu":
            continue
        usb = _usb_of(tree, path, kind)
        seen.add(usb)
        found.append(_device(tree, path, kinds.get(path, kind), aliases.get(path, []), usb))
    found += _bare_usb(tree, seen)
    devices = {device.id: device for device in found}
    listed = tuple(devices[each] for each in sorted(devices)[:DEVICES_MAX])
    if len(listed) < len(devices):
        return listed, ()  # what was left out may be there
    patterns = sorted({*(pattern for pattern, _ in (*PATTERNS, *own)), *LINKS})
    return listed, tuple(patterns)


def _own(text: str) -> tuple[str, str]:
    kind, equals, pattern = text.partition("=")
    return (pattern, kind) if equals else (text, "")


def _nodes(
    tree: Tree, own: list[tuple[str, str]]
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """(node → kind, node → its other names, node → kind that the operator gives it)."""
    nodes = {path: kind for pattern, kind in PATTERNS for path in tree.listed(pattern)}
    aliases: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for pattern, kind in [*((pattern, "") for pattern in LINKS), *own]:
        for path in tree.listed(pattern):
            target = tree.followed(path)
            if target == path:
                nodes[path] = kind
                continue
            aliases.setdefault(target, []).append(path)
            nodes.setdefault(target, kind)
            if kind:
                kinds[target] = kind
    return {path: kind for path, kind in nodes.items() if tree.has(path)}, aliases, kinds


def _with(card: MachineDevice, aliases: dict[str, list[str]]) -> MachineDevice:
    links = [link for name in card.names for link in aliases.get(name, ())]
    return MachineDevice(
        id=card.id,
        kind=card.kind,
        names=(*card.names, *links),
        vendor=card.vendor,
        model=card.model,
        memory_bytes=card.memory_bytes,
    )


def _device(tree: Tree, path: str, kind: str, links: list[str], usb: str) -> MachineDevice:
    by_id = [link for link in links if "/by-id/" in link]
    identity = by_id[0] if by_id else path
    names = (identity, path, *links, *_usb_names(tree, usb))
    return MachineDevice(
        id=identity,
        kind=kind,
        names=tuple(dict.fromkeys(names)),
        vendor=tree.text(f"{usb}/manufacturer").lower() if usb else "",
        model=tree.text(f"{usb}/product") if usb else "",
    )


def _usb_of(tree: Tree, path: str, kind: str) -> str:
    """The directory in /sys of the USB device that a node belongs to; empty: of none."""
    if kind not in _CLASSES:
        return ""
    entry = tree.followed(f"/sys/class/{_CLASSES[kind]}/{path.rpartition('/')[2]}")
    above = tree.followed(f"{entry}/device")
    while above.count("/") > 2:
        if tree.has(f"{above}/idVendor"):
            return above
        above = above.rpartition("/")[0]
    return ""


def _usb_names(tree: Tree, usb: str) -> tuple[str, ...]:
    if not usb:
        return ()
    name = f"usb:{tree.text(f'{usb}/idVendor')}:{tree.text(f'{usb}/idProduct')}".lower()
    serial = tree.text(f"{usb}/serial")
    return (name, f"{name}:{serial}") if serial else (name,)


def _bare_usb(tree: Tree, seen: set[str]) -> list[MachineDevice]:
    """USB devices that no node above belongs to: programs speak to them by the bus."""
    found = []
    for name in tree.names(_USB):
        usb = tree.followed(f"{_USB}/{name}")
        if usb in seen or not tree.has(f"{usb}/idVendor"):
            continue
        bus, number = tree.text(f"{usb}/busnum"), tree.text(f"{usb}/devnum")
        if tree.text(f"{usb}/bDeviceClass") == _HUB or not (bus.isdigit() and number.isdigit()):
            continue
        path = f"/dev/bus/usb/{int(bus):03}/{int(number):03}"
        names = _usb_names(tree, usb)
        found.append(
            MachineDevice(
                id=f"{names[-1]}@{name}",  # where it is plugged in: two of them may be alike
                kind="usb",
                names=(f"{names[-1]}@{name}", *names, path),
                vendor=tree.text(f"{usb}/manufacturer").lower(),
                model=tree.text(f"{usb}/product"),
            )
        )
    return found
