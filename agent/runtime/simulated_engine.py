"""The machine under simulated runtimes: scripted containers on the event loop's time.

What a container does is written in its labels:

    sim.prepare_ms, sim.create_ms, sim.start_ms      how long each step takes (0)
    sim.fail_prepare, sim.fail_create, sim.fail_start   the sentence it is refused with
    sim.run_for_ms, sim.exit_code, sim.oom           it ends by itself, and how (it runs on)
    sim.stop_ms                                      how long it takes to obey a signal (0)
    sim.stop_exit_code                               its exit code then (143)
    sim.health, sim.health_after_ms                  healthy | unhealthy, and when (none, 0)
    sim.log, sim.log_error                           what it writes when it starts
    sim.cpu_millis, sim.memory_bytes                 what its samples show

A newcomer's mistake: a timer for every container. There are millions of them, so only what
a script says will happen by itself has one; the rest is computed when somebody looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from agent.runtime.base import Gone, OutputChunk, Phase, Rejected, RuntimeEvent, RuntimeFailure
from homeport.model import BoundPort, TaskId
from homeport.seams import Clock
from homeport.spec import ContainerSpec, Pairs, Resources

PREFIX = "sim."
KILLED = 137
FIRST_FREE_PORT = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a simulated container does; see the head of this module."""

    prepare_ms: int = 0
    create_ms: int = 0
    start_ms: int = 0
    fail_prepare: str = ""
    fail_create: str = ""
    fail_start: str = ""
    run_for_ms: int = 0
    exit_code: int = 0
    oom: bool = False
    stop_ms: int = 0
    stop_exit_code: int = 143
    health: str = ""
    health_after_ms: int = 0
    log: str = ""
    log_error: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0


_TYPES = {each.name: each.type for each in fields(Script)}


@lru_cache(maxsize=4096)
def script_of(labels: Pairs) -> Script:
    """The script in a spec's labels. Raises Rejected for a key or value that means nothing."""
    found: dict[str, Any] = {}  # of the types in _TYPES
    for key, value in labels:
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        try:
            match _TYPES[name]:
                case "int":
                    found[name] = int(value)
                case "bool":
                    found[name] = {"true": True, "false": False}[value.lower()]
                case _:
                    found[name] = value
        except (KeyError, ValueError):
            raise Rejected(f"label {key}: {value} means nothing to a simulation") from None
    return Script(**found)


@dataclass(slots=True, kw_only=True)
class SimulatedContainer:
    """One simulated container; mutable, and owned by its engine."""

    cluster: str
    task: TaskId
    stack: str
    generation: int
    container_id: str
    spec: ContainerSpec
    script: Script
    phase: Phase = Phase.CREATED
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    started_ms: int = 0
    started_at: float = 0.0  # the loop's time
    finished_ms: int = 0
    ports: tuple[BoundPort, ...] = ()
    output: list[OutputChunk] = field(default_factory=list)
    timers: tuple[asyncio.TimerHandle, ...] = ()


class SimulatedEngine:
    """The machine under simulated runtimes: its containers, and what befalls it."""

    def __init__(
        self,
        clock: Clock,
        *,
        capacity: Resources = Resources(cpu_millis=8_000, memory_bytes=16 << 30),  # noqa: B008
    ) -> None:
        """An engine without containers."""
        self.clock = clock
        self.capacity = capacity
        self.images: set[str] = set()  # ids that `image_id` may name
        self.outage = ""  # not empty: every call raises Unavailable with this sentence
        self.is_hanging = False  # every call takes its whole deadline, then raises Unavailable
        self.hanging: set[TaskId] = set()  # the same for calls about these containers only
        self.late_seconds = 0.0  # not 0: so late a start takes place, whether or not it is awaited
        self._boots = 0
        self._containers: dict[TaskId, SimulatedContainer] = {}
        self._listeners: list[Listener] = []
        self._bound: dict[tuple[int, str], TaskId] = {}
        self._last = 0
        # What a script says happens also when the agent that started the container is gone:
        # in a simulation a process is a context, and what was set in it dies with it.
        self._context = contextvars.copy_context()

    def recover(self) -> None:
        """End of all trouble; whoever listens is told to look at everything."""
        self.outage = ""
        self.is_hanging = False
        self.hanging.clear()
        self.late_seconds = 0.0
        for listener in self._listeners:
            listener.tell(RuntimeEvent(task=None, action="connected"))

    def reboot(self) -> None:
        """Power off and on: nothing runs any more, and nobody was told."""
        self._boots += 1
        for container in self._containers.values():
            if container.phase in (Phase.RUNNING, Phase.PAUSED):
                self._end(container, 255, is_told=False)

    def end(self, task: TaskId, exit_code: int = KILLED, *, oom: bool = False) -> None:
        """The container's process ends, whatever its script says."""
        container = self._containers[task]
        if container.phase is Phase.RUNNING:
            self._end(container, exit_code, oom=oom)

    def write(self, task: TaskId, line: str) -> None:
        """The container writes a line."""
        container = self._containers[task]
        self._say(container, f"{line}\n".encode())

    def report_health(self, task: TaskId, health: str) -> None:
        """The health check's answer changes, whatever the script says."""
        container = self._containers[task]
        container.script = Script(health=health)
        self.tell(container, "health_status")

    # The rest is for the runtimes.

    def tell(self, container: SimulatedContainer, action: str) -> None:
        """Tell the listeners of the container's cluster."""
        for listener in self._listeners:
            if listener.cluster == container.cluster:
                listener.tell(RuntimeEvent(task=container.task, action=action))

    def find(self, task: TaskId) -> SimulatedContainer | None:
        """Whose it may be."""
        return self._containers.get(task)

    def all(self) -> list[SimulatedContainer]:
        """In no order that means anything."""
        return list(self._containers.values())

    def add(self, container: SimulatedContainer) -> None:
        """A container was created."""
        self._containers[container.task] = container

    def remove(self, container: SimulatedContainer) -> None:
        """A container is deleted; what ran in it ends."""
        if container.phase in (Phase.RUNNING, Phase.PAUSED):
            self._end(container, KILLED)
        del self._containers[container.task]
        self.tell(container, "destroy")

    def number(self) -> int:
        """Another number for an id or a pid."""
        self._last += 1
        return self._last

    def begin(self, container: SimulatedContainer) -> None:
        """The container's process starts. Raises Rejected when a port is taken."""
        container.ports = self._bind(container)
        script = container.script
        loop = asyncio.get_running_loop()
        container.phase = Phase.RUNNING
        container.pid = self.number()
        container.exit_code = None
        container.oom_killed = False
        container.started_ms = self.clock.wall_ms()
        container.started_at = loop.time()
        container.finished_ms = 0
        timers = []
        if script.run_for_ms:
            code = KILLED if script.oom else script.exit_code
            timers.append(
                loop.call_later(
                    script.run_for_ms / 1000,
                    lambda: self._end(container, code, oom=script.oom),
                    context=self._context,
                )
            )
        if script.health:
            timers.append(
                loop.call_later(
                    script.health_after_ms / 1000,
                    self.tell,
                    container,
                    "health_status",
                    context=self._context,
                )
            )
        container.timers = tuple(timers)
        self.tell(container, "start")
        for line in script.log.splitlines():
            self._say(container, f"{line}\n".encode())
        for line in script.log_error.splitlines():
            self._say(container, f"{line}\n".encode(), is_stderr=True)

    def start(self, container: SimulatedContainer) -> asyncio.Future[None]:
        """Start it after its script's `start_ms`; the answer, which nobody needs to wait for.

        It fails with Rejected, and with Gone when the container is removed before.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        if container.script.start_ms:
            seconds = container.script.start_ms / 1000
            loop.call_later(
                seconds, self._start, container, self._boots, answer, context=self._context
            )
        else:
            self._start(container, self._boots, answer)
        return answer

    def _start(
        self, container: SimulatedContainer, boots: int, answer: asyncio.Future[None]
    ) -> None:
        failure: RuntimeFailure | None = None
        if self.find(container.task) is not container or boots != self._boots:
            failure = Gone(f"there is no container of task {container.task} any more")
        elif container.script.fail_start:
            failure = Rejected(container.script.fail_start)
        elif container.phase not in (Phase.RUNNING, Phase.PAUSED):
            try:
                self.begin(container)
            except Rejected as error:
                failure = error
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
            answer.exception()  # seen: who asked may be gone
        else:
            answer.set_result(None)

    def start_late(self, container: SimulatedContainer) -> None:
        """Start it after `late_seconds`, if it and this boot of the machine last so long."""
        asyncio.get_running_loop().call_later(
            self.late_seconds, self._begin_late, container, self._boots, context=self._context
        )

    def begin_late(self, container: SimulatedContainer) -> None:
        """What was asked for takes place, and nobody hears whether it can."""
        with contextlib.suppress(Rejected):
            self.begin(container)

    def _begin_late(self, container: SimulatedContainer, boots: int) -> None:
        is_there = self.find(container.task) is container and boots == self._boots
        if is_there and container.phase not in (Phase.RUNNING, Phase.PAUSED):
            self.begin_late(container)

    def stop(self, container: SimulatedContainer, exit_code: int) -> None:
        """The container's process ends because of a signal."""
        self._end(container, exit_code)

    def listen(self, listener: Listener) -> None:
        """From now on `listener` is told."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Nobody reads `listener` any more."""
        self._listeners.remove(listener)

    def _end(
        self,
        container: SimulatedContainer,
        exit_code: int,
        *,
        oom: bool = False,
        is_told: bool = True,
    ) -> None:
        if container.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        for timer in container.timers:
            timer.cancel()
        container.timers = ()
        container.phase = Phase.EXITED
        container.pid = 0
        container.exit_code = exit_code
        container.oom_killed = oom
        container.finished_ms = self.clock.wall_ms()
        for port in container.ports:
            self._bound.pop((port.published, port.protocol), None)
        container.ports = ()
        if is_told:
            self.tell(container, "die")

    def _bind(self, container: SimulatedContainer) -> tuple[BoundPort, ...]:
        found = []
        for port in container.spec.ports:
            published = port.published
            while not published:
                candidate = FIRST_FREE_PORT + self.number() % 28_000
                published = 0 if (candidate, port.protocol) in self._bound else candidate
            owner = self._bound.get((published, port.protocol))
            if owner is not None:
                raise Rejected(
                    f"port {published}/{port.protocol} is taken on this node by the container"
                    f" of task {owner}"
                )
            found.append(
                BoundPort(
                    target=port.target,
                    published=published,
                    protocol=port.protocol,
                    host_ip=port.host_ip,
                )
            )
        for bound in found:
            self._bound[bound.published, bound.protocol] = container.task
        return tuple(found)

    def _say(self, container: SimulatedContainer, data: bytes, *, is_stderr: bool = False) -> None:
        container.output.append(
            OutputChunk(data=data, is_stderr=is_stderr, at_ms=self.clock.wall_ms())
        )
        self.tell(container, "log")


class Listener:
    """What one reader of events has not read yet; one event for each container is enough."""

    def __init__(self, cluster: str) -> None:
        """For the containers of one cluster."""
        self.cluster = cluster
        self._arrived = asyncio.Event()
        self._waiting: dict[TaskId | None, RuntimeEvent] = {}

    def tell(self, event: RuntimeEvent) -> None:
        """Something happened."""
        self._waiting[event.task] = event
        self._arrived.set()

    async def take(self) -> list[RuntimeEvent]:
        """What happened since the last time; waits until something did."""
        await self._arrived.wait()
        self._arrived.clear()
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())
