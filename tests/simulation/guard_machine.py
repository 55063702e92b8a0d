"""A node's guards as processes of their own, and the page that they share with the agent.

What is due when is decided by `agent.guard`'s own functions; only finding and killing
processes is simulated. A newcomer's mistake: letting a guard ask the agent, which may be
dead or stopped. It knows what is on the page, and the page outlives both; a power cut
takes it, and all processes with it.
"""

import asyncio
import errno

from agent import guard
from agent.runtime.base import Phase
from tests.simulation.machine import Machine

BEGIN_SECONDS = 0.05
"""How long a guard takes from its start to its first look."""


class SimulatedBoard:
    """An `agent.guarding.Board`."""

    def __init__(self):
        self.lease_until_ns = 0
        self.lapsed_ns = 0
        self.marks = ()
        self.guard = (0, 0)
        self.stamp_ns = 0
        self.failures = 0
        self.kills = 0

    def arm(self, marks):
        self.marks = tuple(marks)


class Guards:
    """One node's guards; an `agent.guarding.Guards`."""

    def __init__(self, node):
        self.node = node
        self.all = []  # those that live
        self.is_refusing = False  # the machine has no room for another process
        self.has_refused = False

    def find(self):
        pid = self.node.board.guard[0]
        return next((each for each in self.all if each.pid == pid), None)

    def start(self):
        if self.is_refusing:
            self.has_refused = True
            raise OSError(errno.EAGAIN, "resource temporarily unavailable")
        running = GuardMachine(self)
        self.all.append(running)
        running.start()
        return running

    def kill(self):
        """All of them."""
        for each in tuple(self.all):
            each.kill()


class GuardMachine(Machine):
    """One guard; an `agent.guarding.Running`."""

    def __init__(self, guards):
        self.node = node = guards.node
        self.pid = node.engine.number()
        self._guards = guards
        self._ended = asyncio.Event()
        super().__init__(node.world, f"{node.name}-guard-{self.pid}", node.clock)

    async def ended(self, seconds):
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _main(self):
        """As `agent.guard.watch`."""
        await asyncio.sleep(BEGIN_SECONDS)
        node, board = self.node, self.node.board
        board.guard = (self.pid, self.pid)
        while marks := board.marks:
            board.stamp_ns = now_ns = self._now_ns()
            if guard.is_due(now_ns, board.lease_until_ns, marks):
                for container in node.engine.all():
                    is_marked = guard.is_named(f"0::/{container.container_id}\n", marks)
                    if container.phase is Phase.RUNNING and is_marked:
                        node.engine.kill_processes(container)
            await asyncio.sleep(guard.pause_ns(self._now_ns(), board.lease_until_ns, marks) / 1e9)

    def _now_ns(self):
        return int(self.clock.boottime() * 1e9)

    def start_later(self, seconds):
        """Nobody but an agent starts a guard."""

    def _gone(self):
        super()._gone()
        self._guards.all.remove(self)
        del self.world.loop.rates[self.name]
        self._ended.set()

    async def _leave(self):
        self._main_task.cancel()
