"""A machine's process, which can be killed, stopped, paused and started again.

A newcomer's mistake: touching the process from its own context. What a machine does to its
process (a kill, a service manager's start) is done in nobody's.
"""

import asyncio

RESTART_SECONDS = 1.0
"""A service manager starts what ended by itself again after so long."""
STOP_SECONDS = 5.0
"""And kills what does not end by then when told to."""


class Machine:
    """A machine with one process of ours, which can be killed, stopped and started."""

    may_end_by = ()
    """Errors that end the process as they should; whatever else does is a bug."""

    def __init__(self, world, name, clock=None):
        """`clock`: of the machine, where it has another process already."""
        self.world = world
        self.name = name
        self.process = None
        self.incarnation = 0
        self.clock = clock or world.clock(name)
        world.loop.rates[name] = self.clock.rate
        self.paused_until = 0.0
        self.started_at = 0.0  # true time of the process's start
        self._main_task = None

    def start(self):
        """Start the process unless it runs."""
        if self.process is None:
            self.incarnation += 1
            self.started_at = self.world.loop.now
            self.process = (self.name, self.incarnation)
            self.world.trace.note(f"------ {self.name}#{self.incarnation} starts")
            loop = self.world.loop
            self._main_task = loop.spawn(self.process, self._guarded(self.process))

    def start_later(self, seconds):
        self.world.loop.later(seconds, self.start)

    def kill(self):
        """As `kill -9`."""
        if self.process is not None:
            self.world.loop.kill(self.process)
            self._gone()

    def stop(self):
        """As SIGTERM, with a SIGKILL behind it and a start after that."""
        process = self.process
        if process is not None:
            self.world.loop.spawn(process, self._leave())
            self.world.loop.later(STOP_SECONDS, self._kill_if, process)

    def pause(self, seconds):
        if self.process is not None:
            self.paused_until = self.world.loop.now + seconds
            self.world.loop.pause(self.process, self.paused_until)

    @property
    def is_at_work(self):
        """Whether the process is there and not stopped."""
        return self.process is not None and self.paused_until <= self.world.loop.now

    def has_worked_since(self, when):
        """Whether it has been there, and not stopped, all the time since."""
        return self.is_at_work and max(self.started_at, self.paused_until) <= when

    def kill_in(self, steps, then):
        """Kill before the process's n-th step from now, and call `then`."""

        def spring():
            self.kill()
            then()

        if self.process is not None:
            self.world.loop.ambush(self.process, steps, spring)

    def pause_in(self, steps, seconds):
        """Stop the process before its n-th step from now, for so long."""
        if self.process is not None:
            self.world.loop.ambush(self.process, steps, lambda: self.pause(seconds))

    def _kill_if(self, process):
        if self.process == process:
            self.kill()
            self.start()

    async def _guarded(self, process):
        try:
            await self._main()
        except asyncio.CancelledError:
            pass  # told to stop
        except BaseExceptionGroup as group:
            _, others = group.split(self.may_end_by)
            if others is not None:
                self._crashed(others)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            if not isinstance(error, self.may_end_by):
                self._crashed(error)
        if self.process == process:
            self.world.trace.note(f"------ {self.name}#{process[1]} has ended")
            self._gone()
            self.start_later(RESTART_SECONDS)

    def _crashed(self, error):
        self.world.checks.violate(f"{self.name} ended by itself", error)

    def _gone(self):
        self.process = None
        self.world.network.reset(self.name)
