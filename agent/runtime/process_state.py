"""What is on disk of a plain process, and what it amounts to.

A newcomer's mistake: trusting a pid file. A run is known by pid and start time within one
boot; and an exit counts only for the run that it names.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.runtime import process_cgroups
from agent.runtime.base import Phase, Seen
from agent.runtime.labels import container_name
from agent.runtime.proc import boot_id, is_same_process
from homeport.model import BoundPort, Health, TaskId

LOST = 137
"""The exit code of a process whose end nobody saw."""
_HEALTH = {
    "starting": Health.STARTING,
    "healthy": Health.HEALTHY,
    "unhealthy": Health.UNHEALTHY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a task's program, as its keeper wrote it down."""

    keeper: int
    keeper_ticks: int
    pid: int
    ticks: int
    boot: str
    started_ms: int

    @property
    def is_kept(self) -> bool:
        """Whether its keeper lives."""
        return self.boot == boot_id() and is_same_process(self.keeper, self.keeper_ticks)

    @property
    def is_alive(self) -> bool:
        """Whether the program itself lives."""
        return self.boot == boot_id() and is_same_process(self.pid, self.ticks)


class ProcessFiles:
    """The directories of all processes of one agent."""

    def __init__(self, folder: Path, cluster: str) -> None:
        """Below `folder`; those of other clusters are not ours."""
        self.folder = folder
        self._cluster = cluster

    def places(self) -> list[Path]:
        """The directories, whosesoever."""
        return sorted(path.parent for path in self.folder.glob("*/task.json"))

    def place(self, task: TaskId) -> Path:
        """The directory of a task."""
        return self.folder / container_name(task)

    def described(self, place: Path) -> dict[str, Any] | None:
        """The task.json of a directory; None for what is not there or not our cluster's."""
        task = load(place / "task.json")
        if task is None or task["cluster"] != self._cluster:
            return None
        return task

    def seen(self, place: Path, watch: Callable[[TaskId, int], None]) -> Seen | None:
        """What a directory amounts to; None when there is nothing of ours.

        `watch` is told the keeper of a process that runs.
        """
        task = self.described(place)
        if task is None:
            return None
        run = run_of(place)
        base = Seen(
            container_id=task["container_id"],
            task=TaskId(task["task"]),
            generation=task["generation"],
            phase=Phase.CREATED,
        )
        end = _end(place, run)
        if end is not None:
            return replace(
                base,
                phase=Phase.EXITED,
                exit_code=end["code"],
                oom_killed=end["oom"],
                error=end["error"],
                started_ms=run.started_ms if run is not None else 0,
                finished_ms=end["finished_ms"],
            )
        if run is None:
            return base
        if run.is_kept:
            watch(base.task, run.keeper)
            return replace(
                base,
                phase=Phase.RUNNING,
                health=_health(place),
                pid=run.pid,
                started_ms=run.started_ms,
                ports=tuple(
                    BoundPort(target=target, published=published, protocol=protocol, host_ip=ip)
                    for target, published, protocol, ip in task["ports"]
                ),
            )
        if _end(place, run) is not None:
            return self.seen(place, watch)  # it ended while we looked
        if run.is_alive:
            # Nobody empties its pipes or will know its exit code: this is no way to live.
            kill_group(run.pid, signal.SIGKILL)
            process_cgroups.kill(task["cgroups"])
        why = "its keeper was killed" if run.boot == boot_id() else "the machine was restarted"
        return replace(
            base,
            phase=Phase.EXITED,
            exit_code=LOST,
            error=f"nobody saw how it ended: {why}",
            started_ms=run.started_ms,
            finished_ms=run.started_ms,
        )


def _health(place: Path) -> Health:
    try:
        return _HEALTH.get((place / "health").read_text(), Health.NONE)
    except OSError:
        return Health.NONE


def run_of(place: Path) -> Run | None:
    """The last run that a keeper wrote down in this directory."""
    found = load(place / "run.json")
    if found is None:
        return None
    return Run(
        keeper=found["keeper"],
        keeper_ticks=found["keeper_ticks"],
        pid=found["pid"],
        ticks=found["ticks"],
        boot=found["boot"],
        started_ms=found["started_ms"],
    )


def _end(place: Path, run: Run | None) -> dict[str, Any] | None:
    """How this run ended, as its keeper saw it; an earlier run's end does not count."""
    end = load(place / "exit.json")
    if end is None or run is None or (end["pid"], end["ticks"]) != (run.pid, run.ticks):
        return None
    return end


def load(path: Path) -> dict[str, Any] | None:
    """A file of JSON; None when there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def dump(path: Path, value: dict[str, Any]) -> None:
    """Replace a file of JSON in one step; for nobody else to read."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
    fresh.replace(path)


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signal a process and its group; not an error when there is none."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
