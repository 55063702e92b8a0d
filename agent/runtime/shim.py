"""The keeper of one plain process: starts it, keeps its output, tells how it ended.

A process runs on while the agent is restarted, and somebody has to be its parent then:
to take its exit code, to empty its pipes, to run its health check. That is this program,
one for each process, started by file name with the standard library only. It talks
to the agent through files in the task's directory:

    task.json    what to run (the agent writes it)
    run.json     who runs: pids and start times; written before the program itself begins
    health       starting | healthy | unhealthy
    exit.json    how that run ended; its absence while nobody runs means: nobody saw
    log, log.1   what it wrote: "<ms> <o|e> <F|P> <text>"; P: the line goes on

and wakes it by a line in the FIFO `events`. A newcomer's mistake: importing more here. Each
process pays for every module with memory, and this is the one program that must not fail.
"""

# ruff: noqa: SIM105 - contextlib would be one more module

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
import time
import warnings  # noqa: F401 - os.execvpe wants it, when another user may not read our library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

LOG_BYTES = 10_000_000
LONGEST_LINE = 16 * 1024
QUIET_SECONDS = 0.2
"""An unfinished line is passed on after this long: it may be a prompt."""
DRAIN_SECONDS = 1.0
NOT_FOUND = 127
NOT_EXECUTABLE = 126


def main(folder: str) -> NoReturn:
    """Start the program of `folder`, tell on standard output how that went, and stay."""
    os.chdir(folder)
    with open("task.json") as file:
        task = json.load(file)
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        # The starter waits for this process only, so that the keeper is nobody's child.
        with os.fdopen(told, "rb") as answer:
            sys.stdout.buffer.write(answer.read())
            sys.stdout.flush()
        os._exit(0)
    os.close(told)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Keeper(task, tell).run()
    os._exit(0)


class Keeper:
    """The parent of the program, from its start to its end."""

    def __init__(self, task: dict[str, Any], tell: int) -> None:
        self.task = task
        self.tell = tell
        self.log = Log("log")
        self.health: HealthCount | None = None
        if task["health"]:
            self.health = HealthCount(task["health"])
        self.pid = 0
        self.ticks = 0
        self.started = 0.0
        self.check_pid = 0
        self.check_due = 0.0
        self.check_ends = 0.0

    def run(self) -> None:
        """Start it, keep it, bury it."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        output = self.start()
        if output is None:
            return
        status = self.keep(wake, output)
        self.bury(status, output)

    # -------------------------------------------------------------------------- the start

    def start(self) -> dict[int, bytes] | None:
        """Fork, say who it is, let it begin. The pipes of its output; None when it cannot."""
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        begin, begin_end = os.pipe()
        failed, failed_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.read(begin, 1)
            become(self.task, self.task["argv"], out_end, err_end, failed_end)
        for each in (out_end, err_end, begin, failed_end):
            os.close(each)
        write("health", self.health.word if self.health else "")
        self.started = time.monotonic()
        self.ticks = start_ticks(self.pid)
        # Before it begins: whoever finds the program alive finds out whose it is.
        write(
            "run.json",
            json.dumps(
                {
                    "keeper": os.getpid(),
                    "keeper_ticks": start_ticks(os.getpid()),
                    "pid": self.pid,
                    "ticks": self.ticks,
                    "boot": boot_id(),
                    "started_ms": now_ms(),
                }
            ),
        )
        os.write(begin_end, b"1")
        os.close(begin_end)
        with os.fdopen(failed, "rb") as answer:
            words = answer.read().decode(errors="replace")
        if words:
            os.waitpid(self.pid, 0)
            code, _, sentence = words.partition(" ")
            self.ended(int(code), sentence)
            self.answer({"error": sentence})
            return None
        self.answer({"pid": self.pid})
        if self.health:
            self.check_due = self.started + self.health.pause(0.0)
        return {out: b"o", err: b"e"}

    def answer(self, words: dict[str, object]) -> None:
        """Tell the starter how it went; it waits for this."""
        os.write(self.tell, json.dumps(words).encode())
        os.close(self.tell)

    # ------------------------------------------------------------------------- the middle

    def keep(self, wake: int, output: dict[int, bytes]) -> int:
        """Pass on what it writes and check its health until it ends; its wait status."""
        poll = select.poll()
        for descriptor in (wake, *output):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self.patience() * 1000):
                if descriptor == wake:
                    read(wake)
                elif not self.log.take(output[descriptor], read(descriptor)):
                    poll.unregister(descriptor)
            self.log.flush()
            status = self.reap()
            if status is not None:
                return status
            self.look_after()

    def patience(self) -> float:
        """How long nothing needs to be done, in seconds."""
        dues = [3600.0]
        if self.log.unfinished:
            dues.append(QUIET_SECONDS)
        if self.health:
            due = self.check_ends if self.check_pid else self.check_due
            dues.append(max(0.0, due - time.monotonic()))
        return min(dues)

    def reap(self) -> int | None:
        """Take the ends of children; the program's wait status once it has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self.pid:
                return status
            if pid == self.check_pid and self.health:
                self.checked(self.health, os.waitstatus_to_exitcode(status) == 0)

    def look_after(self) -> None:
        """Begin a health check that is due, end one that takes too long."""
        if not self.health:
            return
        now = time.monotonic()
        if self.check_pid and now >= self.check_ends:
            # Its end is reaped, and counts as a failure. Itself too: it may have no group yet.
            kill_group(self.check_pid)
            os.kill(self.check_pid, signal.SIGKILL)
            self.check_ends = now + 3600.0
        elif not self.check_pid and now >= self.check_due:
            self.check_ends = now + self.health.timeout
            self.check_pid = os.fork()
            if self.check_pid == 0:
                quiet = os.open(os.devnull, os.O_WRONLY)
                become(self.task, self.task["health"]["argv"], quiet, quiet, quiet)

    def checked(self, health: HealthCount, is_well: bool) -> None:
        """Count the outcome of a health check."""
        self.check_pid = 0
        age = time.monotonic() - self.started
        if health.count(is_well, age):
            write("health", health.word)
            self.notify("health_status")
        self.check_due = time.monotonic() + health.pause(age)

    # ---------------------------------------------------------------------------- the end

    def bury(self, status: int, output: dict[int, bytes]) -> None:
        """End what it left behind, keep the rest of its output, tell how it ended."""
        kill_group(self.pid)
        if self.check_pid:
            kill_group(self.check_pid)
        kill_cgroups(self.task["cgroups"])
        self.drain(output)
        code = os.waitstatus_to_exitcode(status)
        self.ended(128 - code if code < 0 else code, "")

    def drain(self, output: dict[int, bytes]) -> None:
        """What is still in the pipes; somebody who got away may hold them open."""
        deadline = time.monotonic() + DRAIN_SECONDS
        waiting = dict(output)
        while waiting and time.monotonic() < deadline:
            ready, _, _ = select.select(list(waiting), [], [], DRAIN_SECONDS)
            for descriptor in ready:
                if not self.log.take(waiting[descriptor], read(descriptor)):
                    del waiting[descriptor]
        self.log.flush(even_unfinished=True)

    def ended(self, code: int, error: str) -> None:
        """Write down how it ended."""
        words = {
            "pid": self.pid,  # with its ticks: which run this is the end of
            "ticks": self.ticks,
            "code": code,
            "error": error,
            "oom": oom_kills(self.task["cgroups"]) > self.task["oom_kills"],
            "finished_ms": now_ms(),
        }
        write("exit.json", json.dumps(words))
        self.notify("die")

    def notify(self, action: str) -> None:
        """Wake the agent, when there is one."""
        try:
            fifo = os.open(self.task["events"], os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # it will look when it comes back
        try:
            os.write(fifo, f"{self.task['task']} {action}\n".encode())
        except OSError:
            pass  # full: it has been woken
        finally:
            os.close(fifo)


class HealthCount:
    """Docker's rules for when a program counts as healthy."""

    def __init__(self, check: dict[str, Any]) -> None:
        self.interval: float = check["interval"]
        self.timeout = check["timeout"]
        self.start_period = check["start_period"]
        self.start_interval: float = check["start_interval"]
        self.retries = check["retries"]
        self.failures = 0
        self.word = "starting"

    def pause(self, age: float) -> float:
        """Seconds until the next check of a program of this age."""
        if self.word == "starting" and age < self.start_period:
            return self.start_interval
        return self.interval

    def count(self, is_well: bool, age: float) -> bool:
        """Count a check that ended at this age, in seconds; whether the word has changed."""
        before = self.word
        if is_well:
            self.failures = 0
            self.word = "healthy"
        elif self.word != "starting" or age >= self.start_period:
            self.failures += 1
            if self.failures >= self.retries:
                self.word = "unhealthy"
        return self.word != before


class Log:
    """Two files of limited size, line by line with time and stream."""

    def __init__(self, path: str, limit: int = LOG_BYTES) -> None:
        self.path = path
        self.limit = limit
        self.pending: dict[bytes, bytes] = {}
        self.fresh = False
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as we live
        self.size = os.fstat(self.file.fileno()).st_size

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun that has not ended."""
        return any(self.pending.values())

    def take(self, stream: bytes, data: bytes) -> bool:
        """Keep what came from a stream; False at its end."""
        rest = self.pending.get(stream, b"") + data
        lines = rest.split(b"\n")
        self.pending[stream] = lines.pop()
        for line in lines:
            self.keep(stream, line)
        while len(self.pending[stream]) >= LONGEST_LINE:
            self.write(stream, b"P", self.pending[stream][:LONGEST_LINE])
            self.pending[stream] = self.pending[stream][LONGEST_LINE:]
        self.fresh = bool(data)
        return bool(data)

    def keep(self, stream: bytes, line: bytes) -> None:
        """A line that has ended, in pieces where it is long."""
        while len(line) > LONGEST_LINE:
            self.write(stream, b"P", line[:LONGEST_LINE])
            line = line[LONGEST_LINE:]
        self.write(stream, b"F", line)

    def flush(self, even_unfinished: bool = False) -> None:
        """Pass on unfinished lines, if nothing has come just now."""
        fresh, self.fresh = self.fresh, False
        if fresh and not even_unfinished:
            return
        for stream, line in self.pending.items():
            if line:
                self.write(stream, b"P", line)
                self.pending[stream] = b""

    def close(self) -> None:
        """Nothing more will be written."""
        self.file.close()

    def write(self, stream: bytes, kind: bytes, line: bytes) -> None:
        """One entry; the older file goes when both are full."""
        entry = b"%d %s %s %s\n" % (now_ms(), stream, kind, line)
        try:
            if self.size + len(entry) > self.limit:
                self.file.close()
                os.replace(self.path, self.path + ".1")
                self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
                self.size = 0
            self.file.write(entry)
        except OSError:
            return  # a full disk must stop neither the program nor its keeper
        self.size += len(entry)


def become(task: dict[str, Any], argv: list[str], out: int, err: int, failed: int) -> NoReturn:
    """In a new child: turn into the program. Never returns; what fails is written to `failed`."""
    try:
        os.setsid()
        os.set_inheritable(failed, False)
        for folder in task["cgroups"]:
            with open(os.path.join(folder, "cgroup.procs"), "w") as file:
                file.write("0")
        for name, soft, hard in task["ulimits"]:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
        if task["oom_score_adj"]:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(task["oom_score_adj"]))
        if task["uid"] is not None:
            os.setgroups(task["groups"])
            os.setgid(task["gid"])
            os.setuid(task["uid"])
        os.chdir(task["cwd"])
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGCHLD,
        ):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.execvpe(argv[0], argv, task["env"])  # noqa: S606 - a program is what we start
    except BaseException as error:  # noqa: BLE001 - told, and never returned from
        code = NOT_FOUND if getattr(error, "errno", 0) == errno.ENOENT else NOT_EXECUTABLE
        os.write(failed, f"{code} cannot start {argv[0]}: {error}".encode())
    os._exit(NOT_FOUND)


def read(descriptor: int) -> bytes:
    """What is there; nothing at the end, and nothing when there is nothing."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def write(path: str, text: str) -> None:
    """Replace a file in one step."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def kill_group(pid: int) -> None:
    """End a process and its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_cgroups(folders: list[str]) -> None:
    """End whatever is left in the program's own cgroups."""
    for _ in range(10):
        left: set[int] = set()
        for folder in folders:
            try:
                with open(os.path.join(folder, "cgroup.procs")) as file:
                    left.update(int(line) for line in file)
            except OSError:
                continue
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def oom_kills(folders: list[str]) -> int:
    """How many processes the kernel killed there for want of memory."""
    count = 0
    for folder in folders:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(os.path.join(folder, name)) as file:
                    words: dict[str, str] = dict(line.split() for line in file)
            except (OSError, ValueError):
                continue
            count += int(words.get("oom_kill", 0))
    return count


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since boot."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def boot_id() -> str:
    """Changes with every boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def now_ms() -> int:
    """Wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main(sys.argv[1])
