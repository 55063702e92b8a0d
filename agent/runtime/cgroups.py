"""Counters of one container from its cgroup files, for cgroup v1, v2 and both at once.

The path is found through /proc/PID/cgroup and the mount table, never by guessing how an
engine names its groups. A newcomer's mistake: a missing file means "this kernel does not
count that", and reads as 0; only a process that is gone makes the whole sample None.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.runtime.base import Sample
from agent.runtime.proc import PROC

_MICROSECONDS = 1e6
_NANOSECONDS = 1e9
_TICKS = 100.0  # cpuacct.stat counts in USER_HZ, which is 100 on every Linux architecture we run on
_NO_LIMIT = 1 << 60  # v1 says "no limit" as a number near 2**63


def sample(pid: int, proc: Path = PROC) -> Sample | None:
    """Read the counters of the cgroup that `pid` is in; None when the process is gone."""
    folders = cgroup_folders(pid, proc)
    if folders is None:
        return None
    unified = folders.get("")
    if unified is not None and (unified / "cpu.stat").exists() and "memory" not in folders:
        counters = _version_2(unified)
    else:
        counters = _version_1(folders)
    return Sample(**counters, network=_network(pid, proc))


def cgroup_folders(pid: int, proc: Path = PROC) -> dict[str, Path] | None:
    """Where each v1 controller (and "" for v2) keeps the files of this process's cgroup."""
    try:
        groups = (proc / str(pid) / "cgroup").read_text(errors="replace")
        mounts = (proc / "self/mountinfo").read_text(errors="replace")
    except OSError:
        return None
    roots = dict(_mounts(mounts))
    folders = {}
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in roots:
                mounted, root = roots[controller]
                folders[controller] = mounted / _below(path, root)
    return folders


def mounted(proc: Path = PROC) -> dict[str, Path]:
    """Where each v1 controller (and "" for v2) is mounted, as far as the whole tree is seen."""
    try:
        mounts = (proc / "self/mountinfo").read_text(errors="replace")
    except OSError:
        return {}
    return {controller: place for controller, (place, root) in _mounts(mounts) if root == "/"}


def oom_kills(folder: Path) -> int:
    """How many processes the kernel killed in this cgroup for want of memory."""
    return max(
        _pairs(folder / name).get("oom_kill", 0) for name in ("memory.events", "memory.oom_control")
    )


def _mounts(mountinfo: str) -> Iterator[tuple[str, tuple[Path, str]]]:
    """Of each controller: where it is mounted, and which part of its tree is seen there."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        place = (Path(_unescaped(fields[4])), _unescaped(fields[3]))
        if kind[0] == "cgroup2":
            yield "", place
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                yield option, place


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _below(path: str, root: str) -> str:
    """`path` as it is found under a mount that shows only the subtree `root`."""
    inside = path.removeprefix(root) if root != "/" else path
    return inside.lstrip("/")


def _version_2(folder: Path) -> dict[str, Any]:
    cpu = _pairs(folder / "cpu.stat")
    memory = _pairs(folder / "memory.stat")
    events = _pairs(folder / "memory.events")
    usage = _number(folder / "memory.current")
    io = _io_stat(folder / "io.stat")
    return {
        "cpu_seconds": cpu.get("usage_usec", 0) / _MICROSECONDS,
        "cpu_user_seconds": cpu.get("user_usec", 0) / _MICROSECONDS,
        "cpu_system_seconds": cpu.get("system_usec", 0) / _MICROSECONDS,
        "cpu_periods": cpu.get("nr_periods", 0),
        "cpu_throttled_periods": cpu.get("nr_throttled", 0),
        "cpu_throttled_seconds": cpu.get("throttled_usec", 0) / _MICROSECONDS,
        "memory_usage_bytes": usage,
        "memory_working_set_bytes": max(0, usage - memory.get("inactive_file", 0)),
        "memory_rss_bytes": memory.get("anon", 0),
        "memory_cache_bytes": memory.get("file", 0),
        "memory_swap_bytes": _number(folder / "memory.swap.current"),
        "memory_max_bytes": _number(folder / "memory.peak"),
        "memory_fail_count": events.get("max", 0),
        "oom_events": events.get("oom_kill", 0),
        "pids": _number(folder / "pids.current"),
        "read_bytes": io.get("rbytes", 0),
        "write_bytes": io.get("wbytes", 0),
        "reads": io.get("rios", 0),
        "writes": io.get("wios", 0),
    }


def _version_1(folders: dict[str, Path]) -> dict[str, Any]:
    nowhere = Path("/nonexistent")
    accounts = folders.get("cpuacct", nowhere)
    memory_folder = folders.get("memory", nowhere)
    block = folders.get("blkio", nowhere)
    cpu = _pairs(folders.get("cpu", nowhere) / "cpu.stat")
    times = _pairs(accounts / "cpuacct.stat")
    memory = _pairs(memory_folder / "memory.stat")
    usage = _number(memory_folder / "memory.usage_in_bytes")
    inactive = memory.get("total_inactive_file", memory.get("inactive_file", 0))
    transferred = _blkio(block, "io_service_bytes")
    operations = _blkio(block, "io_serviced")
    return {
        "cpu_seconds": _number(accounts / "cpuacct.usage") / _NANOSECONDS,
        "cpu_user_seconds": times.get("user", 0) / _TICKS,
        "cpu_system_seconds": times.get("system", 0) / _TICKS,
        "cpu_periods": cpu.get("nr_periods", 0),
        "cpu_throttled_periods": cpu.get("nr_throttled", 0),
        "cpu_throttled_seconds": cpu.get("throttled_time", 0) / _NANOSECONDS,
        "memory_usage_bytes": usage,
        "memory_working_set_bytes": max(0, usage - inactive),
        "memory_rss_bytes": memory.get("total_rss", memory.get("rss", 0)),
        "memory_cache_bytes": memory.get("total_cache", memory.get("cache", 0)),
        "memory_swap_bytes": memory.get("total_swap", memory.get("swap", 0)),
        "memory_max_bytes": _number(memory_folder / "memory.max_usage_in_bytes"),
        "memory_fail_count": _number(memory_folder / "memory.failcnt"),
        "oom_events": _pairs(memory_folder / "memory.oom_control").get("oom_kill", 0),
        "pids": _number(folders.get("pids", nowhere) / "pids.current"),
        "read_bytes": transferred.get("Read", 0),
        "write_bytes": transferred.get("Write", 0),
        "reads": operations.get("Read", 0),
        "writes": operations.get("Write", 0),
    }


def _network(pid: int, proc: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """Counters of every interface in the network namespace of `pid`, loopback left out."""
    try:
        lines = (proc / str(pid) / "net/dev").read_text().splitlines()[2:]
    except OSError:
        return ()
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        values = [int(value) for value in rest.split()]
        if name.strip() != "lo" and len(values) >= 11:
            found.append((name.strip(), values[0], values[8], values[2], values[10]))
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    value = int(text) if text.isdecimal() else 0
    return 0 if value >= _NO_LIMIT else value


def _pairs(path: Path) -> dict[str, int]:
    found = {}
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdecimal():
            found[key] = int(value)
    return found


def _io_stat(path: Path) -> dict[str, int]:
    """`8:0 rbytes=… wbytes=…`, summed over the devices."""
    total: dict[str, int] = {}
    for line in _text(path).splitlines():
        for item in line.split()[1:]:
            key, _, value = item.partition("=")
            if value.isdecimal():
                total[key] = total.get(key, 0) + int(value)
    return total


def _blkio(folder: Path, what: str) -> dict[str, int]:
    """`8:0 Read 4096`, summed over the devices.

    The recursive file is the one that is kept up to date under every I/O scheduler.
    """
    lines = _text(folder / f"blkio.throttle.{what}_recursive") or _text(
        folder / f"blkio.throttle.{what}"
    )
    total: dict[str, int] = {}
    for line in lines.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[2].isdecimal():
            total[fields[1]] = total.get(fields[1], 0) + int(fields[2])
    return total
