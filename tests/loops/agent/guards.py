"""A guard on virtual time: its own rules, on a page in memory, over a simulated engine."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

from agent import guard
from agent.runtime.base import Phase
from agent.runtime.simulated_engine import KILLED, SimulatedEngine
from homeport.seams import Clock


@dataclass
class MemoryBoard:
    """The page."""

    lease_until_ns: int = 0
    lapsed_ns: int = 0
    marks: tuple[str, ...] = ()
    guard: tuple[int, int] = (0, 0)
    stamp_ns: int = 0
    failures: int = 0

    def arm(self, marks: tuple[str, ...], /) -> None:
        self.marks = marks


class LoopGuard:
    """One guard; `hang` stops it in its tracks."""

    def __init__(self, guards: LoopGuards, pid: int) -> None:
        self.pid = pid
        self._guards = guards
        self.gone = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        guards, board = self._guards, self._guards.board
        await asyncio.sleep(guards.start_seconds)
        board.guard = (self.pid, 1)
        while board.marks:
            now_ns = int(guards.clock.boottime() * 1e9)
            board.stamp_ns = now_ns
            if guard.is_due(now_ns, board.lease_until_ns, board.marks):
                guards.end_all()
            pause = guard.pause_ns(now_ns, board.lease_until_ns, board.marks)
            await asyncio.sleep(max(pause, 1_000_000) / 1e9)
        self.gone.set()

    async def ended(self, seconds: float, /) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.gone.wait()
        except TimeoutError:
            return False
        return True

    def hang(self) -> None:
        self._running.cancel()

    def kill(self) -> None:
        self._running.cancel()
        self.gone.set()


@dataclass
class LoopGuards:
    """Where they come from, and how many there were."""

    board: MemoryBoard
    engine: SimulatedEngine
    clock: Clock
    start_seconds: float = 0.05
    refuses: str = ""
    started: list[LoopGuard] = field(default_factory=list)
    _pids: itertools.count[int] = field(default_factory=lambda: itertools.count(100))

    def find(self) -> LoopGuard | None:
        for each in self.started:
            if each.pid == self.board.guard[0] and not each.gone.is_set():
                return each
        return None

    def start(self) -> LoopGuard:
        if self.refuses:
            raise OSError(self.refuses)
        made = LoopGuard(self, next(self._pids))
        self.started.append(made)
        return made

    @property
    def alive(self) -> list[LoopGuard]:
        return [each for each in self.started if not each.gone.is_set()]

    def end_all(self) -> None:
        for each in self.engine.all():
            named = guard.is_named(f"0::/x/{each.container_id}\n", self.board.marks)
            if named and each.phase is Phase.RUNNING:
                self.engine.stop(each, KILLED)
