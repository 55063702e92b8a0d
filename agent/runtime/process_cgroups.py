"""A cgroup of its own for a plain process, where this machine lets us have one.

With it a process has limits, honest counters, and nothing that it started can get away from
being ended. A newcomer's mistake: on cgroup v2 a group passes on only the controllers that
its parent was told to; on v1 each controller has a tree of its own.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.runtime.cgroups import mounted
from agent.runtime.proc import PROC

_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "blkio", "freezer")
_PERIOD_US = 100_000
REMOVE_SECONDS = 1.0


def make(name: str, limits: dict[str, Any], proc: Path = PROC) -> list[str]:
    """The cgroup `homeport/NAME` with these limits: its directories, one for each tree.

    Empty when this machine does not let us.
    """
    roots = mounted(proc)
    # Twice: another agent of this machine may remove an empty `homeport` under our hands.
    for _ in range(2):
        try:
            if "memory" in roots:
                return _make_v1(name, limits, roots)
            if "" in roots:
                return _make_v2(name, limits, roots[""])
        except FileNotFoundError:
            continue
        except OSError:
            remove(_folders(name, roots))
            break
    return []


def all_folders(proc: Path = PROC) -> list[str]:
    """The directories of all cgroups that were made here and still are."""
    return sorted(
        str(folder)
        for root in set(mounted(proc).values())
        for folder in (root / "homeport").glob("*")
        if folder.is_dir()
    )


def kill(folders: list[str]) -> None:
    """Kill whatever runs in a cgroup: also what a keeper would have ended, had it lived."""
    for folder in folders:
        with suppress(OSError):
            for line in (Path(folder) / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)


def remove(folders: list[str]) -> None:
    """Delete the directories of a cgroup, and what still runs there. Blocks for up to a second."""
    deadline = time.monotonic() + REMOVE_SECONDS
    left = folders
    while left and time.monotonic() < deadline:
        kill(left)
        left = [folder for folder in left if not _is_removed(folder)]
        if left:
            time.sleep(0.02)
    for parent in {str(Path(folder).parent) for folder in folders}:
        with suppress(OSError):
            os.rmdir(parent)  # unless there are others


def _is_removed(folder: str) -> bool:
    with suppress(OSError):
        os.rmdir(folder)
    return not os.path.exists(folder)


def _folders(name: str, roots: dict[str, Path]) -> list[str]:
    names = [each for each in (*_CONTROLLERS, "") if each in roots]
    return list(dict.fromkeys(str(roots[each] / "homeport" / name) for each in names))


def _make_v1(name: str, limits: dict[str, Any], roots: dict[str, Path]) -> list[str]:
    trees = {key: root for key, root in roots.items() if key in _CONTROLLERS}
    folders = _folders(name, trees)
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    place = {key: root / "homeport" / name for key, root in trees.items()}
    if limits["memory_bytes"]:
        (place["memory"] / "memory.limit_in_bytes").write_text(str(limits["memory_bytes"]))
    if limits["cpu_millis"]:
        quota = limits["cpu_millis"] * _PERIOD_US // 1000
        (place["cpu"] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (place["cpu"] / "cpu.cfs_quota_us").write_text(str(quota))
    if limits["pids"]:
        (place["pids"] / "pids.max").write_text(str(limits["pids"]))
    return folders


def _make_v2(name: str, limits: dict[str, Any], root: Path) -> list[str]:
    parent = root / "homeport"
    parent.mkdir(exist_ok=True)
    for folder in (root, parent):
        for controller in ("cpu", "memory", "pids", "io"):
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    place = parent / name
    place.mkdir(exist_ok=True)
    if limits["memory_bytes"]:
        (place / "memory.max").write_text(str(limits["memory_bytes"]))
    if limits["cpu_millis"]:
        quota = limits["cpu_millis"] * _PERIOD_US // 1000
        (place / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
    if limits["pids"]:
        (place / "pids.max").write_text(str(limits["pids"]))
    return [str(place)]
