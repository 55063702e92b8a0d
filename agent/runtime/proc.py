"""What /proc says of a process: whether it lives, since when, and when it ends.

A pid alone names nothing: it is used again. So a process is known by pid and start time,
or by the container id in its cgroup path. A newcomer's mistake: a zombie still has a
directory in /proc; it is dead all the same.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """The few fields of /proc/PID/stat that we need."""

    state: str
    start_ticks: int  # since boot; with the pid it names a process until the next boot
    user_seconds: float
    system_seconds: float
    rss_bytes: int

    @property
    def is_alive(self) -> bool:
        """Not a zombie, and not on its way out."""
        return self.state not in "ZXx"


def process_stat(pid: int, proc: Path = PROC) -> ProcessStat | None:
    """Read /proc/PID/stat; None when there is no such process."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name stands in parentheses and may itself contain any of them.
    fields = text.rpartition(")")[2].split()
    return ProcessStat(
        state=fields[0],
        start_ticks=int(fields[19]),
        user_seconds=int(fields[11]) / _TICKS_PER_SECOND,
        system_seconds=int(fields[12]) / _TICKS_PER_SECOND,
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def boot_id(proc: Path = PROC) -> str:
    """Changes with every boot of the machine."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def boot_time_ms(proc: Path = PROC) -> int:
    """Wall clock of the last boot, in milliseconds, as the kernel counts it now."""
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * 1000
    return 0


def is_same_process(pid: int, start_ticks: int, proc: Path = PROC) -> bool:
    """Whether the process that had this pid and start time still lives."""
    stat = process_stat(pid, proc)
    return stat is not None and stat.is_alive and stat.start_ticks == start_ticks


def cgroup_names(pid: int, name: str, proc: Path = PROC) -> bool:
    """Whether the process is in a cgroup whose path contains `name`."""
    try:
        return name in (proc / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return False


def is_container_alive(pid: int, container_id: str, started_ms: int, proc: Path = PROC) -> bool:
    """Whether `pid` is the living first process of this container.

    Its cgroup names the container as a rule; where an OCI runtime arranges cgroups its own
    way, a start time close to the engine's word has to do. Both clocks are wall clocks, so
    a clock that was set in between decides nothing when the cgroup speaks.
    """
    stat = process_stat(pid, proc) if pid > 0 else None
    if stat is None or not stat.is_alive:
        return False
    if cgroup_names(pid, container_id, proc):
        return True
    age = boot_time_ms(proc) + stat.start_ticks * 1000 // _TICKS_PER_SECOND
    return abs(age - started_ms) < 10_000


def shares_pid_namespace(pid: int, proc: Path = PROC) -> bool:
    """Whether process numbers of `pid`'s world are ours too."""
    try:
        return os.readlink(proc / str(pid) / "ns/pid") == os.readlink(proc / "self/ns/pid")
    except OSError:
        return False


async def wait_for_exit(pid: int, seconds: float) -> bool:
    """Wait until the process has ended; False when it has not after `seconds`.

    Costs no thread and no polling: the kernel makes the descriptor readable.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True
