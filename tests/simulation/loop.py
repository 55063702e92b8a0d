"""An event loop on which a whole cluster runs in virtual time, in an order drawn from a seed.

Time jumps to the next timer when nothing is ready; what is ready at one instant runs in a
seeded order. A context variable says which simulated process a callback belongs to, so a
process can be killed or paused at *any* await without the product's code knowing. Design:
`reliability.md` §5.2.
"""

import asyncio
import collections
import contextvars
import heapq
import random

PROCESS = contextvars.ContextVar("process", default=None)
"""(name, incarnation) of the simulated process that the running callback belongs to."""


class Livelock(AssertionError):
    """The step budget is used up: something goes round without waiting."""


class Deadlock(AssertionError):
    """Nothing is ready and no timer is set."""


class SimulatedLoop(asyncio.base_events.BaseEventLoop):
    """See the module."""

    def __init__(self, seed, steps_max=3_000_000):
        super().__init__()
        self.rng = random.Random(seed)
        self.steps = 0
        self.steps_max = steps_max
        self.dead = set()
        self._paused_until = {}
        self._now = 0.0
        self.failures = []
        self.set_exception_handler(self._on_exception)

    def _on_exception(self, _loop, context):
        self.failures.append(context)

    def time(self):
        return self._now

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def call_soon_threadsafe(self, callback, *args, context=None):
        raise RuntimeError("no threads in the simulation")

    def run_in_executor(self, executor, func, *args):
        raise RuntimeError("no executors in the simulation")

    def spawn(self, process, coroutine):
        """Run a coroutine inside the simulated process (name, incarnation)."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def kill(self, process):
        """As `kill -9`: none of its callbacks ever runs again, not even a `finally`."""
        self.dead.add(process)

    def pause(self, process, until):
        """As SIGSTOP until that time, then SIGCONT."""
        self._paused_until[process] = until

    def _run_once(self):
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise Deadlock("nothing is ready and no timer is set")
            self._now = max(self._now, self._scheduled[0]._when)
        while self._scheduled and self._scheduled[0]._when <= self._now + 1e-9:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)
        batch = list(self._ready)
        self._ready = collections.deque()
        self.rng.shuffle(batch)
        for handle in batch:
            if not handle._cancelled:
                self._run_handle(handle)

    def _run_handle(self, handle):
        process = handle._context.get(PROCESS)
        if process in self.dead:
            return
        until = self._paused_until.get(process, 0.0)
        if until > self._now:
            self.call_at(until, handle._callback, *handle._args, context=handle._context)
            return
        self.steps += 1
        if self.steps > self.steps_max:
            raise Livelock(f"more than {self.steps_max} steps at {self._now:.1f} virtual seconds")
        handle._run()


def run(seed, main, *, steps_max=3_000_000):
    """Run `main(loop)` to its end on a fresh loop and return its result."""
    loop = SimulatedLoop(seed, steps_max)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        # Tasks of killed processes can never finish; the loop is dropped with them.
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop._ready.clear()
        loop._scheduled.clear()
        asyncio.base_events.BaseEventLoop.close(loop)


class SimulatedClock:
    """One process's clocks: the loop's time at a rate and offset of its own."""

    def __init__(self, loop, *, rate=1.0, offset=1000.0, wall_offset_ms=1_700_000_000_000):
        self._loop = loop
        self._rate = rate
        self._offset = offset
        self._wall_offset_ms = wall_offset_ms

    def boottime(self):
        return self._offset + self._loop.time() * self._rate

    def wall_ms(self):
        return self._wall_offset_ms + int(self._loop.time() * self._rate * 1000)
