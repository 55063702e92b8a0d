"""A node's engine, which shows the checks every start and every end, and can misbehave.

The engine outlives agents. A newcomer's mistake: treating a container's end as one event.
That an agent *asks* for it is one (it needs a word for that), that its process is gone is
another (until then it counts as alive, on this node and no other).
"""

import contextlib

from agent.runtime.base import Phase
from agent.runtime.simulated_engine import (
    KILLED,
    SimulatedContainer,
    SimulatedEngine,
    script_of,
)
from homeport.model import TaskId
from homeport.spec import ContainerSpec, Resources

GIB = 1 << 30


class WatchedEngine(SimulatedEngine):
    """An engine that shows the checks each start, and each end that the agent causes."""

    def __init__(self, machine):
        super().__init__(machine.clock, capacity=Resources(cpu_millis=4_000, memory_bytes=8 * GIB))
        self.machine = machine
        self.cluster = ""
        self._is_ours = False  # what ends just now is ended by agent or guard
        self._is_late = False  # what begins just now is waited for by nobody
        self.well_since = 0.0  # true time
        self.started = {}  # task -> true time of its container's last start

    def recover(self):
        self.well_since = self.machine.world.loop.now
        super().recover()

    @property
    def is_well(self):
        """Whether it answers, and does at once what it is asked for."""
        return not (self.outage or self.is_hanging or self.late_seconds)

    def begin(self, container):
        self.machine.world.checks.starts(self.machine, container, is_late=self._is_late)
        super().begin(container)
        self.started[container.task] = self.machine.world.loop.now
        if container.script.health == "unhealthy":
            self.machine.world.checks.unwell(container)

    def begin_late(self, container):
        self.machine.world.trace.note(f"------ {container.task} starts late")
        self._is_late = True
        super().begin_late(container)
        self._is_late = False
        if container.phase is Phase.RUNNING:
            self.machine.world.checks.unwell(container)  # its agent may want none of it

    def stop(self, container, exit_code):
        self.machine.world.checks.stops(self.machine, container)
        with self._our_doing():
            super().stop(container, exit_code)

    def remove(self, container):
        self.machine.world.checks.stops(self.machine, container)
        with self._our_doing():
            super().remove(container)

    def remove_by_hand(self, container):
        self.machine.world.checks.removed_by_hand(container)
        super().remove(container)

    def kill_processes(self, container):
        """As the guard does, past the engine."""
        self.machine.world.checks.guarded(self.machine, container)
        with self._our_doing():
            self._context.run(self._end, container, KILLED)

    @contextlib.contextmanager
    def _our_doing(self):
        self._is_ours = True
        try:
            yield
        finally:
            self._is_ours = False

    def _end(self, container, exit_code, **kwargs):
        super()._end(container, exit_code, **kwargs)
        if container.phase is not Phase.RUNNING:
            self.machine.world.checks.ended(self.machine, container, is_ours=self._is_ours)

    def add_foreign(self, name, cluster):
        """A container that is none of ours, running."""
        spec = ContainerSpec(image="canary")
        container = SimulatedContainer(
            cluster=cluster,
            task=TaskId(name),
            stack="",
            generation=0,
            container_id=f"foreign-{name}",
            spec=spec,
            script=script_of(()),
        )
        self.add(container)
        self._context.run(super().begin, container)

    def has(self, task):
        """Whether a container of ours is there for the task."""
        found = self.find(task)
        return found is not None and found.cluster == self.cluster

    def ours(self):
        """The containers that carry our cluster's label, in the order of their tasks."""
        return sorted(
            (each for each in self.all() if self.cluster and each.cluster == self.cluster),
            key=lambda each: each.task,
        )

    def reboot(self):
        super().reboot()
        for container in self.all():
            if not self.cluster or container.cluster != self.cluster:
                SimulatedEngine.begin(self, container)
