"""Keep a guard beside the agent while a task here needs a lease, and leave it word.

What the guard is for, and what it does, is in `agent.guard`; this is the agent's end. A
newcomer's mistake: ending the guard with the agent. It is there for the time when the
agent is not; the next agent finds it by its page and takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from agent import guard
from agent.lease import Lease
from agent.runtime.proc import wait_for_exit
from homeport.model import Condition, TaskId
from homeport.seams import Clock

PROGRAM = guard.__file__
LOOK_SECONDS = 0.5
"""Between two looks at whether the guard is at work."""
HUNG_SECONDS = 2.0
"""A guard that has shown no sign of life for so long is replaced."""
START_SECONDS = 5.0
"""How long a guard may take to show its first sign of life."""
POLL_SECONDS = 0.02
AGAIN_SECONDS = 0.5
GUARDLESS_SECONDS = 5.0
"""Without a guard for so long, what needs one is stopped."""

log = structlog.get_logger(__name__)


class Board(Protocol):
    """What agent and guard share; `agent.guard.Page` outside of simulations."""

    lease_until_ns: int
    lapsed_ns: int

    @property
    def marks(self) -> tuple[str, ...]:
        """The processes that were named last."""
        ...

    def arm(self, marks: tuple[str, ...], /) -> None:
        """Name the processes that need a lease. Raises ValueError when they are too many."""
        ...

    @property
    def guard(self) -> tuple[int, int]:
        """Pid and start time of the guard that was at work last."""
        ...

    @property
    def stamp_ns(self) -> int:
        """Boot time at which it was."""
        ...

    @property
    def failures(self) -> int:
        """How many processes could not be killed."""
        ...


class Running(Protocol):
    """A guard that was started, or found."""

    pid: int

    async def ended(self, seconds: float, /) -> bool:
        """Wait until it is no more; False when it still is after so many seconds."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


class Guards(Protocol):
    """Where guards come from."""

    def find(self) -> Running | None:
        """The one that an earlier agent left; None when there is none."""
        ...

    def start(self) -> Running:
        """A new one. Raises OSError."""
        ...


class Unguarded:
    """No guard, for worlds in which somebody else sees to it that a lease's end is kept."""

    objection = ""
    is_missed = False
    conditions: tuple[Condition, ...] = ()

    def protect(self, task: TaskId, marks: tuple[str, ...]) -> None:
        """Nothing to do."""

    def release(self, task: TaskId) -> None:
        """Nothing to do."""

    def settle(self, unknown: Mapping[TaskId, tuple[str, ...]]) -> None:
        """Nothing to do."""


class Guarding:
    """The agent's end of the guard."""

    def __init__(
        self,
        board: Board,
        guards: Guards,
        clock: Clock,
        *,
        unfenced: Callable[[], str] = lambda: "",
    ) -> None:
        """`unfenced` says why this machine's processes cannot be guarded; empty: they can."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a guard has come or gone."""
        self._board = board
        self._guards = guards
        self._clock = clock
        self._unfenced = unfenced
        self._marks: dict[TaskId, tuple[str, ...]] = {}
        self._inherited = frozenset(board.marks)
        self._is_up = False
        self._missing_since: float | None = None
        self._trouble = ""
        self._wake = asyncio.Event()

    @property
    def objection(self) -> str:
        """Why no task that needs a lease may be started now; empty: it may."""
        if unfenced := self._unfenced():
            return unfenced
        if self._is_up:
            return ""
        return self._trouble or "the guard, which would end the task in time, is being started"

    @property
    def is_missed(self) -> bool:
        """Whether there has been no guard for so long that what needs one is to be stopped."""
        since = self._missing_since
        return since is not None and self._clock.boottime() - since >= GUARDLESS_SECONDS

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Whether exclusive tasks can be kept from running twice, where that is a question."""
        sentence = self._unfenced() or self._trouble
        if self._board.failures:
            sentence = f"{self._board.failures} processes could not be killed at the lease's end"
        if not sentence and not self._marks:
            return ()
        return (Condition(name="fencing", ok=not sentence, message=sentence),)

    def keep_lease(self, lease: Lease) -> None:
        """Take over the lease that an earlier agent of this node left; pass on renewals."""
        lease.until_seconds = max(lease.until_seconds, self._board.lease_until_ns / 1e9)
        lease.lapsed_seconds = max(lease.lapsed_seconds, self._board.lapsed_ns / 1e9)

        def renewed() -> None:
            self._board.lapsed_ns = int(lease.lapsed_seconds * 1e9)
            self._board.lease_until_ns = int(lease.until_seconds * 1e9)

        lease.on_renewal = renewed

    def protect(self, task: TaskId, marks: tuple[str, ...]) -> None:
        """These are the task's processes: from now on they run under the lease only."""
        marks = marks or (f"n {task}",)
        if self._marks.get(task) != marks:
            self._marks[task] = marks
            self._arm()

    def release(self, task: TaskId) -> None:
        """The task has no container any more, or needs no lease."""
        if self._marks.pop(task, None) is not None:
            self._arm()

    def settle(self, unknown: Mapping[TaskId, tuple[str, ...]]) -> None:
        """All that is here has been taken on, but for these containers without a record.

        Those among them that an earlier agent ran under the lease stay under it: a lost
        journal makes no task pinned. What else it left no longer counts.
        """
        for task, marks in unknown.items():
            if self._inherited.issuperset(marks):
                self._marks.setdefault(task, marks)
        self._arm()

    def _arm(self) -> None:
        try:
            self._board.arm(tuple(mark for marks in self._marks.values() for mark in marks))
        except ValueError as error:
            self._tell(str(error))
        self._wake.set()

    # ---------------------------------------------------------------- the guard

    async def run(self) -> None:
        """Have a guard whenever one is needed, until cancelled. It stays when we go."""
        while True:
            if not self._marks:
                self._missing_since = None
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._missing_since is None:
                self._missing_since = self._clock.boottime()
            if (running := await self._have()) is None:
                self.on_change()  # `is_missed` is a matter of time
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._missing_since = None
            self._set_up(is_up=True)
            await self._watch(running)
            self._set_up(is_up=False)

    async def _have(self) -> Running | None:
        """A guard that is at work; None when none can be had just now."""
        found = self._guards.find()
        if found is not None and self._is_at_work(found, HUNG_SECONDS):
            return found
        try:
            running = self._guards.start()
        except OSError as error:
            self._tell(f"the guard cannot be started: {error}")
            return None
        deadline = self._clock.boottime() + START_SECONDS
        while True:
            if self._is_at_work(running, HUNG_SECONDS):
                if found is not None:
                    found.kill()  # only now, so that there is no moment without one
                log.info("a guard is at work", pid=running.pid, tasks=sorted(self._marks))
                self._tell("")
                return running
            # Looked at last: we may have been stopped ourselves, and the guard be at work.
            if not self._marks or self._clock.boottime() >= deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        running.kill()
        if self._marks:  # otherwise it has gone as it should
            self._tell("the guard was started and shows no sign of life")
        return None

    async def _watch(self, running: Running) -> None:
        """Return when it has ended or hangs."""
        while self._is_at_work(running, HUNG_SECONDS):
            if await running.ended(LOOK_SECONDS):
                if self._marks:
                    log.warning("the guard has ended; starts another", pid=running.pid)
                return
        log.warning("the guard hangs; starts another", pid=running.pid)

    def _is_at_work(self, running: Running, seconds: float) -> bool:
        since = self._clock.boottime() - seconds
        return self._board.guard[0] == running.pid and self._board.stamp_ns / 1e9 >= since

    def _set_up(self, *, is_up: bool) -> None:
        self._is_up = is_up
        self.on_change()

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                log.error("exclusive tasks cannot be guarded", why=trouble)
            self.on_change()


class GuardProcesses:
    """Guards as real processes, which outlive the agent."""

    def __init__(self, page: guard.Page) -> None:
        """They look at this page."""
        self._page = page

    def find(self) -> Running | None:
        """The one that signed the page, if it lives."""
        pid, ticks = self._page.guard
        if not pid or guard.start_ticks(pid) != ticks or not guard.is_alive(pid):
            return None
        return _Process(pid, None)

    def start(self) -> Running:
        """A new one, in a session of its own. Raises OSError."""
        # Isolated, without site packages: small, and nothing of ours can break it.
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", PROGRAM, self._page.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return _Process(child.pid, child)


class _Process:
    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._ticks = guard.start_ticks(pid)
        self._child = child  # None: an earlier agent's

    async def ended(self, seconds: float, /) -> bool:
        if not await wait_for_exit(self.pid, seconds):
            return False
        self._reap()
        return True

    def kill(self) -> None:
        if self._ticks and guard.start_ticks(self.pid) == self._ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()


async def retire(folder: Path, page: guard.Page, clock: Clock) -> None:
    """End what other nodes ran here under their lease, when that is over, and their guards.

    A machine that joined anew, because its state directory was lost, is another node; the
    scheduler will move what the earlier one had.
    """
    for path in other_pages(folder, page):
        other = guard.Page(str(path))
        try:
            await asyncio.sleep(max(0.0, other.lease_until_ns / 1e9 - clock.boottime()))
            # Its guard does the same, if it lives.
            guard.end(other.marks)
            other.arm(())
            path.unlink()
        finally:
            other.close()


def other_pages(folder: Path, page: guard.Page) -> list[Path]:
    """The pages of nodes that this machine was before."""
    return sorted(path for path in folder.glob("guard-*") if str(path) != page.path)


def open_page(folder: Path, node: str) -> guard.Page:
    """The page of the node with this id, in its directory in memory. Raises OSError.

    A machine that joined anew is another node: it has no lease, and begins a page of its own.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return guard.Page(str(folder / f"guard-{node}"))
