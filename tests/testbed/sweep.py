"""Finds and removes what a run of the testbed has left on the machine: the only place that kills.

One code path serves an engine's ordinary end, a lab's, and the sweep after a crash, so the rare
one is exercised by the frequent ones. Nothing is found by its program's name. A process is ours
because its environment carries the run's mark, because it lives in a namespace that the run made,
or because it is in the control group of a container whose bundle lies in the run's directory:
containers outlive their shims, and have neither our environment nor our namespace.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.testbed.commands import ip, output_of

# ledger.MARK, which imports this module.
_MARK = b"HOMEPORT_TESTBED="
_CGROUPS = Path("/sys/fs/cgroup")
_NAMESPACES = Path("/run/netns")
_SHARED = Path("/dev/shm")
_DEADLINE_SECONDS = 15.0
_YOUNG_SECONDS = 1.0
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


# --------------------------------------------------------------------------------- processes


def start_time(pid: int) -> str | None:
    """When the process started, in ticks since boot: with its pid, its name for good.

    None if there is no such process, or only its exit status is left (a zombie).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


def marked(mark: str) -> set[int]:
    """Processes of a component (`run/component`) or of a whole run (`run/`)."""
    wanted = _MARK + mark.encode()
    if not mark.endswith("/"):
        wanted += b"\0"
    found = set()
    for pid in _pids():
        environment = _environment_of(pid)
        if (environment.startswith(wanted) or b"\0" + wanted in environment) and start_time(pid):
            found.add(pid)
    return found


def _environment_of(pid: int) -> bytes:
    """A process's environment; empty for one that is gone or belongs to the kernel.

    While the kernel starts a program its environment reads as empty, already after the parent was
    told that it runs. So one that is empty and young is asked again.
    """
    while True:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""
        if environment or not _is_young(pid):
            return environment
        time.sleep(0.002)


def _is_young(pid: int) -> bool:
    started = start_time(pid)
    if started is None:
        return False
    seconds = int(started) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - seconds < _YOUNG_SECONDS


def in_namespace(name: str) -> set[int]:
    """Processes whose network is the named namespace."""
    try:
        wanted = (_NAMESPACES / name).stat().st_ino
    except FileNotFoundError:
        return set()
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino == wanted and start_time(pid):
                found.add(pid)
    return found


def in_containers(directory: Path) -> set[int]:
    """Processes of the containers whose bundles lie below `directory`."""
    return {
        int(pid)
        for group in _container_groups(directory)
        for listing in group.rglob("cgroup.procs")
        for pid in _lines(listing)
        # 0 is a process that this namespace cannot see.
        if pid != "0" and start_time(int(pid))
    }


def kill(find: Callable[[], set[int]], *, what: str) -> None:
    """SIGKILL what `find` finds until it finds nothing, since what is killed may have children.

    RuntimeError names what is still there after 15 s.
    """
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while pids := find() - {os.getpid()}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"cannot end {what}: {', '.join(map(describe, sorted(pids)))}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def stop(pids: set[int]) -> None:
    """SIGSTOP, and return when every thread stands still: the kernel takes a moment to tell all.

    RuntimeError names what still moves after 15 s.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while moving := [pid for pid in pids if not _stands_still(pid)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"cannot stop {', '.join(map(describe, moving))}")
        time.sleep(0.002)


def _stands_still(pid: int) -> bool:
    """Whether every thread of the process is stopped, or gone."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            text = stat.read_text()
            if text[text.rindex(")") + 2] not in "TtZX":
                return False
    return True


def describe(pid: int) -> str:
    """A process as a person would point at it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        words = ""
    return f"process {pid} ({words or 'gone'})"


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


# --------------------------------------------------------------------------------- containers


def _bundles(directory: Path) -> list[Path]:
    """The bundles of the containers of one engine's directory, or of all engines of a run's."""
    bundles = "exec/containerd/io.containerd.runtime.v2.task/*/*/"
    return [*directory.glob(bundles), *directory.glob("*/" + bundles)]


def _container_groups(directory: Path) -> list[Path]:
    """The control groups of those containers, in every hierarchy (v1) or the only one (v2)."""
    groups = []
    for bundle in _bundles(directory):
        try:
            spec = json.loads((bundle / "config.json").read_text())
        except (OSError, ValueError):
            continue
        path = spec.get("linux", {}).get("cgroupsPath", "").strip("/")
        if path:
            candidates = [_CGROUPS / path, *_CGROUPS.glob(f"*/{path}")]
            groups += [candidate for candidate in candidates if candidate.is_dir()]
    return groups


def kill_containers(directory: Path) -> None:
    """End the containers whose bundles lie below `directory`, and what their shims left.

    Their shims and containerd must be gone already, or they would clean up at the same time.
    """
    groups = _container_groups(directory)

    def find() -> set[int]:
        # What is frozen does not even die; and runc, before it kills a container, freezes it. One
        # that was at that when its shim went may do so late.
        for group in groups:
            _write(group / "freezer.state", "THAWED")
            _write(group / "cgroup.freeze", "0")
        return in_containers(directory)

    kill(find, what="containers")
    for group in groups:
        nested = [path for path in group.rglob("*") if path.is_dir()]
        for path in sorted(nested, key=lambda path: len(path.parts), reverse=True):
            _remove_group(path)
        _remove_group(group)
    for bundle in _bundles(directory):
        for address in _lines(bundle / "address"):
            Path(address.removeprefix("unix://")).unlink(missing_ok=True)


def _remove_group(group: Path) -> None:
    """Remove an empty control group; one that a dying process still holds needs a moment."""
    for _ in range(20):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


# ------------------------------------------------------------------------------------- mounts


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below `directory`, the innermost first."""
    prefix = str(directory)
    points = [
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4])
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [p for p in reversed(points) if p == prefix or p.startswith(prefix + "/")]


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below `directory`, busy or not."""
    for _ in range(10):
        for point in mounts_below(directory):
            _LIBC.umount2(os.fsencode(point), _MNT_DETACH)
        if not mounts_below(directory):
            return
    raise RuntimeError(f"cannot unmount {', '.join(mounts_below(directory))}")


def lift_throttle(device: str) -> None:
    """Let a block device (`7:3`) write as fast as it can again; nothing if it was not held back."""
    for kind in ("bps", "iops"):
        _write(_CGROUPS / "blkio" / f"blkio.throttle.write_{kind}_device", f"{device} 0")


# ------------------------------------------------------------------------ components and runs


def sweep_component(directory: Path, mark: str, *, namespace: str | None = None) -> None:
    """Remove an engine, a host or a daemon: processes, containers, mounts, files."""
    power_off(directory, mark, namespace=namespace)
    shutil.rmtree(directory, ignore_errors=True)


def power_off(directory: Path, mark: str, *, namespace: str | None = None) -> None:
    """End every process of a component at once, as a power cut would, and unmount its mounts."""

    def find() -> set[int]:
        return marked(mark) | (in_namespace(namespace) if namespace else set())

    kill(find, what=mark)
    kill_containers(directory)
    unmount_below(directory)


def sweep_run(directory: Path) -> None:
    """Remove everything that a run has made, its directory last."""
    namespaces = _recorded(directory, "namespace")
    for name in namespaces:
        kill(lambda name=name: in_namespace(name), what=f"namespace {name}")  # type: ignore[misc]
    power_off(directory, directory.name + "/")
    for name in namespaces:
        remove_namespace(name)
    for name in _recorded(directory, "link"):
        remove_link(name)
    for name in _recorded(directory, "shared"):
        shutil.rmtree(_SHARED / name, ignore_errors=True)
    for device in _recorded(directory, "throttle"):
        lift_throttle(device)
    for block in _recorded(directory, "block"):
        remove_bridges(block)
        remove_forward_rule(block)
        (directory.parent.parent / "blocks" / block).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def leftovers(directory: Path) -> list[str]:
    """What a run still has on the machine, each as a sentence."""
    found = [f"{describe(pid)} still runs" for pid in sorted(marked(directory.name + "/"))]
    found += [
        f"{describe(pid)} of a container still runs" for pid in sorted(in_containers(directory))
    ]
    found += [f"{point} is still mounted" for point in mounts_below(directory)]
    found += [
        f"{_SHARED / name} is still there"
        for name in _recorded(directory, "shared")
        if (_SHARED / name).exists()
    ]
    for name in _recorded(directory, "namespace"):
        found += [f"{describe(pid)} still runs in {name}" for pid in sorted(in_namespace(name))]
        if (_NAMESPACES / name).exists():
            found.append(f"network namespace {name} is still there")
    found += [
        f"network link {name} is still there"
        for name in _recorded(directory, "link")
        if Path(f"/sys/class/net/{name}").exists()
    ]
    found += [
        f"bridge {name} is still there"
        for block in _recorded(directory, "block")
        for name in _bridges_in(block)
    ]
    return found


def remove_namespace(name: str) -> None:
    """Delete a network namespace, and with it the links inside."""
    if (_NAMESPACES / name).exists():
        ip("netns", "delete", name)


def remove_link(name: str) -> None:
    """Delete a network link of this namespace, if it is there."""
    if Path(f"/sys/class/net/{name}").exists():
        # A veth may go at the same moment with the namespace that its other end was in.
        ip("link", "delete", name, check=False)


def remove_bridges(block: str, *, keep: str = "") -> None:
    """Delete the bridges that an engine in this namespace made in its own /20, but one."""
    for name in _bridges_in(block):
        if name != keep:
            remove_link(name)


def forward_rule(block: str) -> list[str]:
    """The rule (without -I or -D) that lets containers of one engine talk to each other."""
    network = f"{block}/20"
    comment = ["-m", "comment", "--comment", f"homeport-testbed {block}"]
    return ["FORWARD", "-s", network, "-d", network, *comment, "-j", "ACCEPT"]


def remove_forward_rule(block: str) -> None:
    """Take the rule away again, if it is there."""
    rule = forward_rule(block)
    while f"homeport-testbed {block}" in output_of("iptables", "-w", "-S", "FORWARD", check=False):
        output_of("iptables", "-w", "-D", *rule)


def _bridges_in(block: str) -> list[str]:
    """Bridges of this namespace with an address in the /20 that starts at `block`."""
    links = json.loads(ip("-j", "-4", "addr", "show", "to", f"{block}/20") or "[]")
    return [link["ifname"] for link in links if link and _is_bridge(link["ifname"])]


def _is_bridge(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/bridge").exists()


def _recorded(directory: Path, kind: str) -> list[str]:
    names: Iterable[Path] = (directory / "records").glob(f"{kind}:*")
    return sorted(name.name.partition(":")[2] for name in names)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    with suppress(OSError):
        path.write_text(text)
