"""What this machine has: processors, memory, disk, platform, addresses, engine.

It is stored, so it must not change from one look to the next without cause: free memory
and the like are usage and belong elsewhere. A newcomer's mistake: reporting the kernel's
names of architectures; images and Compose files use Go's.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from agent.runtime.base import EngineFacts
from homeport.model import Inventory
from homeport.spec import Driver, Resources, pairs

PROC = Path("/proc")

_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv8l": "arm/v7",  # a 32-bit system on a 64-bit processor
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
_SIOCGIFADDR = 0x8915
_OWN_INTERFACES = ("lo", "docker", "br-", "veth", "virbr", "cni", "flannel", "vxlan")


def architecture(machine: str) -> str:
    """An image's name for what `uname -m` says."""
    return _ARCHITECTURES.get(machine, machine)


def look(
    facts: EngineFacts,
    *,
    driver: Driver,
    labels: Mapping[str, str],
    version: str,
    metrics_address: str,
    state_dir: Path,
) -> Inventory:
    """The inventory of this machine; what its engine says of the capacity comes first."""
    engine = facts.capacity
    memory = meminfo(PROC / "meminfo").get("MemTotal", 0)
    data_root = facts.data_root if os.path.isdir(facts.data_root) else state_dir
    capacity = Resources(
        cpu_millis=engine.cpu_millis or 1000 * (os.cpu_count() or 1),
        memory_bytes=engine.memory_bytes or memory,
        pids=engine.pids or _number(PROC / "sys/kernel/pid_max"),
        disk_bytes=engine.disk_bytes or shutil.disk_usage(data_root).total,
        generic=engine.generic,
    )
    return Inventory(
        hostname=platform.node(),
        os=platform.system().lower(),
        architecture=architecture(platform.machine()),
        kernel=platform.release(),
        capacity=capacity,
        engine=facts.engine,
        engine_labels=facts.engine_labels,
        drivers=(driver.name,),
        oci_runtimes=facts.oci_runtimes,
        addresses=addresses(),
        agent_version=version,
        cgroup_version=facts.cgroup_version,
        labels=pairs(labels),
        metrics_address=metrics_address,
    )


def addresses() -> tuple[str, ...]:
    """The machine's own addresses that others may reach, IPv4 first."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if name.startswith(_OWN_INTERFACES):
                continue
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # it has none
            found.append(socket.inet_ntoa(answer[20:24]))
    return (*sorted(found), *_ipv6())


def _ipv6() -> list[str]:
    try:
        lines = (PROC / "net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        digits, _, _, scope, flags, name = line.split()
        is_global = scope == "00"
        is_lasting = not int(flags, 16) & 0x01  # privacy addresses come and go
        if is_global and is_lasting and not name.startswith(_OWN_INTERFACES):
            found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)))
    return sorted(found)


def boot_id() -> str:
    """Which boot of the machine this is."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def meminfo(path: Path) -> dict[str, int]:
    """The kernel's figures on memory, in bytes; empty where there are none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    figures = {}
    for line in lines:
        name, _, rest = line.partition(":")
        number, *unit = rest.split()
        figures[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return figures


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
