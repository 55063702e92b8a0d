"""The GPUs of a machine, from what drivers say in /sys and /proc; no tool is called.

A GPU is what computes: a render node, or a device of nvidia's own driver. The picture card of a
server's maintenance controller, or a virtual one, is none.
"""

from __future__ import annotations

import re

from agent.hardware.tree import Tree
from homeport.devices import GPU
from homeport.model import MachineDevice

_NVIDIA = "/proc/driver/nvidia/gpus"
_DRM = "/sys/class/drm"
_VENDORS = {"0x1002": "amd", "0x8086": "intel", "0x10de": "nouveau"}
"""By PCI id. Without nvidia's own driver the engine cannot hand an nvidia GPU to a container."""


def gpus(tree: Tree) -> list[MachineDevice]:
    """Every GPU once; nvidia's have the number that its tools give them among their names."""
    nodes = _nodes(tree)
    found = _nvidia(tree, nodes)
    taken = {address for gpu in found for address in gpu.names}
    for address, (device, paths) in sorted(nodes.items()):
        if address in taken or not any("/renderD" in path for path in paths):
            continue
        identity = f"{tree.text(f'{device}/vendor')}:{tree.text(f'{device}/device')}"
        vendor = _VENDORS.get(identity.partition(":")[0]) or _driver(tree, device)
        memory = tree.text(f"{device}/mem_info_vram_total")
        found.append(
            MachineDevice(
                id=address,
                kind=GPU,
                names=(address, *paths),
                vendor=vendor,
                model=tree.text(f"{device}/product_name")
                or (identity.replace("0x", "") if identity != ":" else ""),
                memory_bytes=int(memory) if memory.isdecimal() else 0,
            )
        )
    return found


def _nodes(tree: Tree) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Bus address → (its directory in /sys, its device nodes)."""
    found = {}
    for name in tree.names(_DRM):
        if not re.fullmatch(r"card[0-9]+", name):
            continue
        card = tree.followed(f"{_DRM}/{name}")
        device = tree.followed(f"{card}/device")
        nodes = tuple(f"/dev/dri/{each}" for each in tree.names(f"{device}/drm"))
        address = device.rpartition("/")[2]
        found[address] = (device, tuple(each for each in nodes if tree.has(each)))
    return found


def _nvidia(tree: Tree, nodes: dict[str, tuple[str, tuple[str, ...]]]) -> list[MachineDevice]:
    found = []
    for number, address in enumerate(tree.names(_NVIDIA)):
        said = _fields(tree.text(f"{_NVIDIA}/{address}/information"))
        uuid = said.get("GPU UUID", "")
        node = f"/dev/nvidia{said.get('Device Minor', number)}"
        _, paths = nodes.get(address, ("", ()))
        found.append(
            MachineDevice(
                id=uuid or address,
                kind=GPU,
                names=tuple(dict.fromkeys((uuid or address, address, str(number), node, *paths))),
                vendor="nvidia",
                model=said.get("Model", ""),
            )
        )
    return found


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _driver(tree: Tree, device: str) -> str:
    link = f"{device}/driver"
    driver = tree.followed(link)
    return driver.rpartition("/")[2] if driver != link else ""
