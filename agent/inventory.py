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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.hardware import Tree, look, places
from agent.runtime.base import EngineFacts
from homeport.model import Inventory, MachineDevice
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
_Hardware = tuple[tuple[MachineDevice, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_SIOCGIFADDR = 0x8915
_OWN_INTERFACES = ("lo", "docker", "br-", "veth", "virbr", "cni", "flannel", "vxlan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How full the file system under a path is."""

    path: str
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the machine as a whole uses now."""

    cpu_seconds: float  # busy, of all processors together, since it started
    memory_available_bytes: int
    memory_total_bytes: int
    disks: tuple[Disk, ...]


class Machine(Protocol):
    """The machine under the agent; a simulation brings its own."""

    def inventory(self, facts: EngineFacts, /) -> Inventory:
        """What it has; `facts` is what its engine says."""
        ...

    def load(self, data_root: str, /) -> Load:
        """What it uses now; `data_root` is where its engine writes, or empty."""
        ...


class LinuxMachine:
    """This machine."""

    def __init__(
        self,
        *,
        driver: Driver,
        labels: Mapping[str, str],
        version: str,
        metrics_address: str,
        state_dir: Path,
        host_root: str,
        devices: Sequence[str] = (),
        paths: Sequence[str] = (),
    ) -> None:
        """`host_root`: where the machine's own file tree is; empty: hidden from us.

        `devices` and `paths`: patterns that the operator wants listed, beside our own.
        """
        self._driver = driver
        self._labels = labels
        self._version = version
        self._metrics_address = metrics_address
        self._state_dir = state_dir
        self._tree = Tree(host_root) if host_root else None
        self._device_patterns = devices
        self._path_patterns = paths

    def inventory(self, facts: EngineFacts, /) -> Inventory:
        """What it has; what its engine says of the capacity comes first."""
        engine = facts.capacity
        memory = meminfo(PROC / "meminfo").get("MemTotal", 0)
        data_root = facts.data_root if os.path.isdir(facts.data_root) else self._state_dir
        capacity = Resources(
            cpu_millis=engine.cpu_millis or 1000 * (os.cpu_count() or 1),
            memory_bytes=engine.memory_bytes or memory,
            pids=engine.pids or _number(PROC / "sys/kernel/pid_max"),
            disk_bytes=engine.disk_bytes or shutil.disk_usage(data_root).total,
            generic=engine.generic,
        )
        found, device_patterns, path_patterns, listed = self._hardware()
        return Inventory(
            hostname=platform.node(),
            os=platform.system().lower(),
            architecture=architecture(platform.machine()),
            kernel=platform.release(),
            capacity=capacity,
            engine=facts.engine,
            engine_labels=facts.engine_labels,
            drivers=(self._driver.name,),
            oci_runtimes=facts.oci_runtimes,
            addresses=addresses(),
            agent_version=self._version,
            cgroup_version=facts.cgroup_version,
            labels=pairs(self._labels),
            metrics_address=self._metrics_address,
            unfenced=facts.unfenced,
            devices=found,
            device_patterns=device_patterns,
            paths=listed,
            path_patterns=path_patterns,
        )

    def _hardware(self) -> _Hardware:
        """(devices, patterns of devices, patterns of paths, paths); empty where all is hidden."""
        if self._tree is None:
            return (), (), (), ()
        return (
            *look(self._tree, self._device_patterns),
            *places(self._tree, self._path_patterns),
        )

    def load(self, data_root: str, /) -> Load:
        """What it uses now."""
        figures = meminfo(PROC / "meminfo")
        paths = [str(self._state_dir)]
        if data_root and os.path.isdir(data_root):
            paths.append(data_root)
        disks = []
        for path in paths:
            usage = shutil.disk_usage(path)
            # What only root may still write counts as used: containers may run as anybody.
            disks.append(
                Disk(path=path, used_bytes=usage.total - usage.free, total_bytes=usage.total)
            )
        return Load(
            cpu_seconds=_busy_seconds(),
            memory_available_bytes=figures.get("MemAvailable", 0),
            memory_total_bytes=figures.get("MemTotal", 0),
            disks=tuple(disks),
        )


def architecture(machine: str) -> str:
    """An image's name for what `uname -m` says."""
    return _ARCHITECTURES.get(machine, machine)


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


def _busy_seconds() -> float:
    try:
        first = (PROC / "stat").read_text().splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return 0.0
    ticks = [int(number) for number in first[:8]]
    idle = ticks[3] + ticks[4]  # idle and waiting for a disk
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
