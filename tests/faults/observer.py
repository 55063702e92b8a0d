"""The /proc observer: which container's processes live, looked at every 20 ms, believing no daemon.

    python -m tests.faults.observer OUT h1=/path/to/data h2=…

A newcomer would ask the engines, which hang, lie when their disk is full, and are what is being
broken. This looks at the control groups of the engines' containers, one read for each container
and look, and writes a line only when the main process of one comes or goes. Whose container it is
stands in the engine's own file (config.v2.json), which outlives the engine.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.history import Recorder

PERIOD_SECONDS = 0.02
_GROUPS = (Path("/sys/fs/cgroup/pids/docker"), Path("/sys/fs/cgroup/docker"))
_TRIES = 100
_TICK_SECONDS = 1.0


class _Container:
    """One container of ours, and its main process as it was last seen."""

    def __init__(self, group: Path, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._procs = str(group / "cgroup.procs")
        self.main = b""

    def pids(self) -> list[bytes]:
        try:
            handle = os.open(self._procs, os.O_RDONLY)
        except OSError:
            return []
        try:
            return os.read(handle, 65536).split()
        except OSError:
            return []
        finally:
            os.close(handle)


def observe(out: Path, data: dict[str, Path]) -> None:
    """Until killed."""
    recorder = Recorder(out, "proc")
    root = next((group.parent for group in _GROUPS if group.parent.exists()), _GROUPS[0].parent)
    parent = root / "docker"
    known: dict[str, _Container | None] = {}
    tries: dict[str, int] = {}
    worst_ns = 0
    before = time.monotonic_ns()
    tick = before
    while True:
        now = time.monotonic_ns()
        worst_ns = max(worst_ns, now - before)
        before = now
        if now - tick > _TICK_SECONDS * 1e9:
            recorder.write(t_ns=now, kind="tick", gap_ns=worst_ns)
            tick, worst_ns = now, 0
        try:
            present = os.listdir(parent)
        except OSError:
            present = []
        for name in present:
            if name not in known and len(name) == 64:
                facts = _facts(name, data)
                tries[name] = tries.get(name, 0) + 1
                if facts is not None:
                    known[name] = _Container(parent / name, facts)
                elif tries[name] > _TRIES:
                    known[name] = None
        for name, container in list(known.items()):
            if container is None:
                continue
            _look(recorder, container, now)
            if not container.main and name not in present:
                # It may be started again: then it is found anew.
                del known[name]
                tries.pop(name, None)
        rest = PERIOD_SECONDS - (time.monotonic_ns() - now) / 1e9
        if rest > 0:
            time.sleep(rest)


def _look(recorder: Recorder, container: _Container, now: int) -> None:
    pids = container.pids()
    if container.main in pids:
        return
    if container.main:
        recorder.write(t_ns=now, kind="down", pid=int(container.main), **container.facts)
        container.main = b""
    if pids:
        main = min(pids, key=_started)
        container.main = main
        started = _started(main)
        recorder.write(t_ns=now, kind="up", pid=int(main), start=started, **container.facts)


def _started(pid: bytes) -> int:
    """When the process started, in ticks since boot; far in the future if it is gone."""
    try:
        text = Path(f"/proc/{pid.decode()}/stat").read_text()
    except OSError:
        return 1 << 62
    return int(text[text.rindex(")") + 2 :].split()[19])


def _facts(name: str, data: dict[str, Path]) -> dict[str, Any] | None:
    """The node, name and labels of a container of one of the engines; None for anybody else's."""
    for node, directory in data.items():
        try:
            config = json.loads((directory / "containers" / name / "config.v2.json").read_text())
        except (OSError, ValueError):
            continue
        labels = (config.get("Config") or {}).get("Labels") or {}
        return {
            "node": node,
            "container": name,
            "name": str(config.get("Name", "")).lstrip("/"),
            "labels": {
                key.rpartition(".")[2]: value
                for key, value in labels.items()
                if key.startswith("dev.homeport.")
            },
        }
    return None


if __name__ == "__main__":
    observe(
        Path(sys.argv[1]),
        {word.partition("=")[0]: Path(word.partition("=")[2]) for word in sys.argv[2:]},
    )
