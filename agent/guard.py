"""The guard: a process of its own that ends exclusive tasks when the node's lease is over.

The agent may be stopped, killed or hanging, and so may the engine; the promise that an
exclusive task never runs twice must not depend on either. So the agent leaves word on a
shared page (until when the lease lasts, and how the processes of those tasks are known),
and this program, which needs neither of them, kills what still runs when the time is over,
also what an engine starts late.

A newcomer's mistakes: importing more here (each module is memory, and another way to fail
when the machine is in trouble), and asking the engine for anything. Processes are found in
/proc and killed by the kernel.

    python -I -S guard.py PAGE      runs until the page names no task any more

A mark says how the processes of a task are known:

    c ID       the path of their control group contains ID, a container's
    p NAME     a part of that path is NAME
    r PATH     PATH is the run.json of a plain process: its process group
    n TASK     nothing yet: the task is about to be made
"""

from __future__ import annotations

import mmap
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

LOOK_NS = 100_000_000
"""From the lease's end until its renewal: how often it looks for processes."""
STAMP_NS = 200_000_000
"""While the lease lasts: how often it looks at the page, and shows that it lives."""
ROUNDS = 10
"""Looks in a row while more come, as from a program that forks."""
KILL = 9


# ------------------------------------------------------------------------------- what is due


def is_over(now_ns: int, lease_until_ns: int) -> bool:
    """Whether the lease has ended, by boot time."""
    return now_ns >= lease_until_ns


def is_due(now_ns: int, lease_until_ns: int, marks: Sequence[str]) -> bool:
    """Whether the processes that `marks` name are to be killed now."""
    return bool(marks) and is_over(now_ns, lease_until_ns)


def pause_ns(now_ns: int, lease_until_ns: int, marks: Sequence[str]) -> int:
    """How long nothing is to be done."""
    if is_due(now_ns, lease_until_ns, marks):
        return LOOK_NS
    return max(1, min(STAMP_NS, lease_until_ns - now_ns)) if marks else STAMP_NS


def is_named(cgroups: str, marks: Sequence[str]) -> bool:
    """Whether a process with this /proc/PID/cgroup belongs to one of the marks."""
    for mark in marks:
        kind, name = mark[:2], mark[2:]
        if kind == "c " and name in cgroups:
            return True
        if kind == "p " and (f"/{name}\n" in cgroups or f"/{name}/" in cgroups):
            return True
    return False


# ------------------------------------------------------------------------------- the page


class Page:
    """What agent and guard tell each other: a small file in memory, which outlives both.

    Every word is one aligned store of eight bytes, and the marks are written beside those
    that count before one such store makes them count. So whoever dies in the middle of
    writing leaves a page that makes sense.
    """

    MAGIC = int.from_bytes(b"hpguard1", "little")
    _MAGIC, _LEASE, _EDITION, _PID, _TICKS, _STAMP, _KILLS, _FAILED = range(8)
    _HEAD = 64
    MARKS_BYTES = 64 * 1024
    _LAPSED = (_HEAD + 2 * MARKS_BYTES) // 8
    SIZE = (_LAPSED + 1) * 8

    def __init__(self, path: str) -> None:
        """Open the page at `path`, or make an empty one. Raises OSError."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size != self.SIZE:
            os.ftruncate(self._file, self.SIZE)
        self._bytes = mmap.mmap(self._file, self.SIZE)
        self._words = memoryview(self._bytes).cast("Q")
        self._known: tuple[int, tuple[str, ...]] = (-1, ())
        if self._words[self._MAGIC] != self.MAGIC:
            self._bytes[:] = bytes(self.SIZE)
            self._words[self._MAGIC] = self.MAGIC

    @property
    def lease_until_ns(self) -> int:
        """Boot time at which the node's lease ends; 0: it has none."""
        return self._words[self._LEASE]

    @lease_until_ns.setter
    def lease_until_ns(self, until_ns: int) -> None:
        self._words[self._LEASE] = until_ns

    @property
    def lapsed_ns(self) -> int:
        """Boot time at which the lease before that one had ended; 0: it is the first."""
        return self._words[self._LAPSED]

    @lapsed_ns.setter
    def lapsed_ns(self, lapsed_ns: int) -> None:
        self._words[self._LAPSED] = lapsed_ns

    @property
    def marks(self) -> tuple[str, ...]:
        """How the processes of the tasks that need a lease are known."""
        edition = self._words[self._EDITION]
        if edition != self._known[0]:
            place = self._place(edition)
            size = int.from_bytes(self._bytes[place : place + 8], "little")
            text = bytes(self._bytes[place + 8 : place + 8 + size]).decode()
            self._known = (edition, tuple(text.splitlines()))
        return self._known[1]

    def arm(self, marks: Sequence[str]) -> None:
        """Put these marks in place of those that are there. Raises ValueError: too many."""
        text = "\n".join(marks).encode()
        if len(text) > self.MARKS_BYTES - 8:
            raise ValueError(f"{len(marks)} tasks are more than the guard can keep in mind")
        edition = self._words[self._EDITION] + 1
        place = self._place(edition)
        self._bytes[place : place + 8] = len(text).to_bytes(8, "little")
        self._bytes[place + 8 : place + 8 + len(text)] = text
        self._words[self._EDITION] = edition

    def _place(self, edition: int) -> int:
        return self._HEAD + (edition & 1) * self.MARKS_BYTES

    @property
    def guard(self) -> tuple[int, int]:
        """Pid and start time, in ticks since boot, of the guard that wrote here last."""
        return self._words[self._PID], self._words[self._TICKS]

    @property
    def stamp_ns(self) -> int:
        """Boot time at which that guard was last at work."""
        return self._words[self._STAMP]

    @property
    def kills(self) -> int:
        """How many processes guards have killed."""
        return self._words[self._KILLS]

    @property
    def failures(self) -> int:
        """How many processes they could not kill."""
        return self._words[self._FAILED]

    def sign(self, pid: int, ticks: int) -> None:
        """This guard is at work from now on."""
        self._words[self._TICKS] = ticks
        self._words[self._PID] = pid

    def stamp(self, now_ns: int) -> None:
        """It still is."""
        self._words[self._STAMP] = now_ns

    def count(self, killed: int, failed: int) -> None:
        """So many processes were killed, and so many could not be."""
        self._words[self._KILLS] += killed
        self._words[self._FAILED] += failed

    def is_gone(self) -> bool:
        """Whether the file was deleted: nobody who comes later will find this page."""
        return os.fstat(self._file).st_nlink == 0

    def close(self) -> None:
        """Let go of it; it stays."""
        self._words.release()
        self._bytes.close()
        os.close(self._file)


# ------------------------------------------------------------------------------- the guard


def watch(page: Page, proc: str = "/proc") -> None:
    """Do what is due until the page names no task any more."""
    page.sign(os.getpid(), start_ticks(os.getpid()))
    while True:
        now_ns = boottime_ns()
        marks = page.marks
        if not marks or page.is_gone():
            return
        page.stamp(now_ns)
        if is_due(now_ns, page.lease_until_ns, marks):
            page.count(*end(marks, proc))
        time.sleep(pause_ns(boottime_ns(), page.lease_until_ns, marks) / 1e9)


def end(marks: Sequence[str], proc: str = "/proc") -> tuple[int, int]:
    """Kill all processes of these marks; how many were killed, and how many could not be."""
    killed: set[int] = set()
    failed: set[int] = set()
    for _ in range(ROUNDS):
        before = len(killed)
        for kill, pid in processes(marks, proc):
            try:
                kill(pid, KILL)
                killed.add(pid)
            except ProcessLookupError:
                pass
            except PermissionError:
                failed.add(pid)
        if len(killed) == before:
            break
    return len(killed), len(failed)


def processes(
    marks: Sequence[str], proc: str = "/proc"
) -> Iterable[tuple[Callable[[int, int], None], int]]:
    """The living processes of these marks, each with the call that kills it."""
    if any(mark.startswith(("c ", "p ")) for mark in marks):
        own = str(os.getpid())
        for name in os.listdir(proc):
            if not name.isdigit() or name == own:
                continue
            if is_named(read(f"{proc}/{name}/cgroup"), marks) and is_alive(int(name), proc):
                yield os.kill, int(name)
    for mark in marks:
        if mark.startswith("r "):
            run = read(mark[2:])
            pid, ticks = number(run, "pid"), number(run, "ticks")
            if pid and start_ticks(pid) == ticks and is_alive(pid):
                yield os.killpg, pid


def is_alive(pid: int, proc: str = "/proc") -> bool:
    """Whether a process is more than an entry that its parent has not read yet."""
    return fields(pid, proc)[:1] not in ([], ["Z"], ["X"])


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since boot; 0 when there is none."""
    found = fields(pid)
    return int(found[19]) if len(found) > 19 else 0


def fields(pid: int, proc: str = "/proc") -> list[str]:
    """/proc/PID/stat from the state on; nothing when there is no such process."""
    return read(f"{proc}/{pid}/stat").rpartition(")")[2].split()


def number(text: str, key: str) -> int:
    """The number behind a key of a flat JSON object: a module less to load."""
    digits = text.partition(f'"{key}": ')[2]
    return int(digits[: len(digits) - len(digits.lstrip("0123456789"))] or 0)


def read(path: str) -> str:
    """A small file; empty when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 8192).decode(errors="replace")
    except OSError:
        return ""  # it ended while we looked
    finally:
        os.close(descriptor)


def boottime_ns() -> int:
    """Boot time: the agent's clock, which no pause and no suspend stops."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def main(path: str) -> NoReturn:
    """Be the guard of this page."""
    os.chdir("/")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        pass  # a guard that may not come first is better than none
    watch(Page(path))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
