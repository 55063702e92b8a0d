"""An event loop on which a whole cluster runs in virtual time, in an order drawn from a seed.

Time jumps to the next timer when nothing is ready; processes that are ready at one instant
run interleaved in a seeded order. A context variable says which simulated process a callback
belongs to, so a process can be killed or paused at *any* await without the product's code
knowing: at a moment (`kill`, `pause`) or before the n-th step from now (`ambush`).

Each process lives by its machine's clock, which may run up to a few per cent fast or slow
(`rates`): what it reads and what it waits for is that clock's. `now` is true time, for the
simulator itself; a newcomer's mistake is `time()` in a check.

Three things would make a seed run differently the next time, and are kept out: sets of tasks
ordered by address (tasks have numbers as hashes), garbage collection (it runs when a run is
over), and `finally` blocks of killed processes (their tasks are kept until then).
"""

import asyncio
import collections
import contextlib
import contextvars
import gc
import heapq
import random
import sys

_IS_FROZEN = False

PROCESS = contextvars.ContextVar("process", default=None)
"""(name, incarnation) of the simulated process that the running callback belongs to."""


class Livelock(AssertionError):
    """The step budget is used up: something goes round without waiting."""


class Deadlock(AssertionError):
    """Nothing is ready and no timer is set."""


class _Task(asyncio.Task):
    """A task whose place in a set follows from the order in which tasks were made."""

    def __init__(self, coroutine, *, number, **kwargs):
        self.number = number
        super().__init__(coroutine, **kwargs)

    def __hash__(self):
        return self.number


class SimulatedLoop(asyncio.base_events.BaseEventLoop):
    """See the module."""

    def __init__(self, seed, steps_max=3_000_000):
        super().__init__()
        self.rng = random.Random(seed)
        self.steps = 0
        self.steps_max = steps_max
        self.dead = set()
        self.failures = []  # contexts of exceptions that nobody handled
        self.now = 0.0
        """True time, in seconds."""
        self.rates = {}  # name of a process -> how fast its clock runs; 1 for the others
        self._paused_until = {}
        self._held = {}  # paused process -> handles that wait for it
        self._ambushes = {}  # process -> [steps left, what to do then]
        self._timers = []  # (true time, number, handle)
        self._timers_made = 0
        self._tasks = []
        self._tasks_made = 0
        self._generators = {}
        self._nobody = contextvars.copy_context()
        self._nobody.run(PROCESS.set, None)
        self.set_exception_handler(self._on_exception)
        self.set_task_factory(self._make_task)

    def _on_exception(self, _loop, context):
        self.failures.append(context)

    def _make_task(self, _loop, coroutine, context=None):
        self._tasks_made += 1
        task = _Task(coroutine, loop=self, context=context, number=self._tasks_made)
        self._tasks.append(task)
        if self._tasks_made % 4096 == 0:
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def time(self):
        return self.now * self._rate() if self.rates else self.now

    def _rate(self):
        process = PROCESS.get()
        return self.rates.get(process[0], 1.0) if process else 1.0

    def call_later(self, delay, callback, *args, context=None):
        rate = self._rate() if self.rates else 1.0
        return self._call_at(self.now + delay / rate, callback, args, context)

    def call_at(self, when, callback, *args, context=None):
        rate = self._rate() if self.rates else 1.0
        return self._call_at(when / rate, callback, args, context)

    def later(self, seconds, callback, *args, context=None):
        """As `call_later`, in true time, and by default in nobody's process."""
        return self._call_at(self.now + seconds, callback, args, context or self._nobody)

    def _call_at(self, when, callback, args, context):
        # A little later than asked for: rounding must not wake anybody before its time.
        handle = asyncio.TimerHandle(when + 1e-9, callback, args, self, context)
        handle._scheduled = True
        self._timers_made += 1
        heapq.heappush(self._timers, (handle._when, self._timers_made, handle))
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def call_soon_threadsafe(self, callback, *args, context=None):
        raise RuntimeError("no threads in the simulation")

    def run_in_executor(self, executor, func, *args):
        raise RuntimeError("no executors in the simulation")

    def _asyncgen_firstiter_hook(self, agen):
        super()._asyncgen_firstiter_hook(agen)
        self._generators[id(agen)] = contextvars.copy_context()

    def _asyncgen_finalizer_hook(self, agen):
        """A generator was dropped before its end: its `finally` runs, unless it was killed."""
        self._asyncgens.discard(agen)
        context = self._generators.pop(id(agen), self._nobody)
        if not self.is_closed() and context.get(PROCESS) not in self.dead:
            self.create_task(agen.aclose(), context=context)

    def spawn(self, process, coroutine):
        """Run a coroutine inside the simulated process (name, incarnation)."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def kill(self, process):
        """As `kill -9`: none of its callbacks ever runs again, not even a `finally`."""
        self.dead.add(process)
        self._held.pop(process, None)

    def pause(self, process, until):
        """As SIGSTOP until that time, then SIGCONT."""
        self._paused_until[process] = until

    def ambush(self, process, steps, action):
        """Call `action` in the place of the process's n-th step from now, which then follows."""
        self._ambushes[process] = [steps, action]

    def resume(self, process):
        """SIGCONT."""
        if self._paused_until.get(process, 0.0) > self.now:
            self._paused_until[process] = self.now
            self._release(process)

    def resume_all(self):
        """SIGCONT for everybody, and no more ambushes."""
        self._ambushes.clear()
        for process in self._paused_until:
            self._paused_until[process] = self.now
            self._release(process)

    def _release(self, process):
        until = self._paused_until.get(process, 0.0)
        if until > self.now:
            self._call_at(until, self._release, (process,), self._nobody)
        else:
            self._ready.extend(self._held.pop(process, ()))

    def _run_once(self):
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise Deadlock("nothing is ready and no timer is set")
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if not handle._cancelled:
                ready.append(handle)
        if len(ready) == 1:
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_handle(handle)
            return
        # Processes take turns in any order; within one, asyncio promises first come, first served.
        turns = [handle._context.get(PROCESS) for handle in self._ready]
        queues = {}
        for process, handle in zip(turns, self._ready, strict=True):
            queues.setdefault(process, collections.deque()).append(handle)
        self._ready = collections.deque()
        if len(queues) > 1:
            self.rng.shuffle(turns)
        for process in turns:
            handle = queues[process].popleft()
            if not handle._cancelled:
                self._run_handle(handle)

    def _run_handle(self, handle):
        process = handle._context.get(PROCESS)
        if process in self.dead:
            return
        if self._ambushes and process in self._ambushes:
            self._is_ambushed(process)
            if process in self.dead:
                return
        if self._paused_until and self._paused_until.get(process, 0.0) > self.now:
            if process not in self._held:
                self._held[process] = []
                self._release(process)  # sets the timer
            # The same handle, so that it can still be cancelled.
            self._held.setdefault(process, []).append(handle)
            return
        self.steps += 1
        if self.steps > self.steps_max:
            raise Livelock(f"more than {self.steps_max} steps at {self.now:.1f} virtual seconds")
        handle._run()

    def _is_ambushed(self, process):
        ambush = self._ambushes[process]
        ambush[0] -= 1
        if ambush[0] <= 0:
            del self._ambushes[process]
            self._nobody.run(ambush[1])

    def drop(self):
        """Forget everything, without running anything of it that matters."""
        self._ready.clear()
        self._timers.clear()
        self.dead.clear()
        for task in self._tasks:
            task._log_destroy_pending = False
            coroutine = task.get_coro()
            for _ in range(8):  # a `finally` may wait, and is then asked again
                try:
                    coroutine.close()
                except (RuntimeError, ValueError):
                    continue
                except BaseException:  # noqa: BLE001 - whatever a dying process says
                    pass
                break
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()
        self.close()


def run(seed, main, *, steps_max=3_000_000):
    """Run `main(loop)` to its end on a fresh loop and return its result."""
    global _IS_FROZEN  # noqa: PLW0603 - once for the process
    gc.collect()
    if not _IS_FROZEN:
        gc.freeze()  # what is imported stays: later collections need not look at it
        _IS_FROZEN = True
    gc.disable()
    loop = SimulatedLoop(seed, steps_max)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            loop.drop()
            with contextlib.suppress(Exception):
                del loop
            gc.collect()
        finally:
            sys.unraisablehook = hook
            gc.enable()


class SimulatedClock:
    """One machine's clocks: the loop's time at a rate and offset of its own."""

    def __init__(self, loop, *, rate=1.0, offset=1000.0, wall_offset_ms=1_700_000_000_000):
        self.wall_offset_ms = wall_offset_ms
        self._loop = loop
        self.rate = rate
        self._offset = offset

    def boottime(self):
        return self._offset + self._loop.now * self.rate

    def wall_ms(self):
        return self.wall_offset_ms + int(self._loop.now * self.rate * 1000)

    def reboot(self):
        """Boot time begins anew."""
        self._offset = 5.0 - self._loop.now * self.rate
