"""A runtime that only pretends: for tests, what-if questions and scale.

No threads, no files, and on a virtual loop no real time either. A newcomer's mistake:
keeping state here. It lives in the `SimulatedEngine`, which stands for the machine and
outlives the agent, so that an agent's crash can be played; what befalls the machine
(`outage`, `hang`, `reboot`) is done to the engine too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NoReturn

from agent.runtime.base import (
    EngineFacts,
    Gone,
    OutputChunk,
    Phase,
    Progress,
    Rejected,
    RuntimeEvent,
    Sample,
    Seen,
    Unavailable,
    Work,
)
from agent.runtime.labels import reserved
from agent.runtime.simulated_engine import (
    KILLED,
    Listener,
    SimulatedContainer,
    SimulatedEngine,
    script_of,
)
from homeport.model import Condition, Health, TaskId
from homeport.spec import Pairs

CALL_SECONDS = 10.0


class SimulatedRuntime:
    """See `agent.runtime.base.Runtime`."""

    def __init__(self, engine: SimulatedEngine, cluster: str) -> None:
        """`cluster` is the id whose containers are ours."""
        self._engine = engine
        self._cluster = cluster

    async def facts(self) -> EngineFacts:
        """What the engine is and offers. Raises Unavailable."""
        await self._enter()
        return EngineFacts(engine="simulated", cgroup_version=2, capacity=self._engine.capacity)

    async def check(self) -> Condition:
        """Whether the engine can do work now. Never raises."""
        try:
            await self._enter()
        except Unavailable as error:
            return Condition(name="engine", ok=False, message=str(error))
        return Condition(name="engine", ok=True)

    async def list(self) -> tuple[Seen, ...]:
        """Every container of our cluster, in any phase. Raises Unavailable."""
        await self._enter()
        ours = [each for each in self._engine.all() if each.cluster == self._cluster]
        return tuple(self._seen(each) for each in sorted(ours, key=lambda each: each.task))

    async def inspect(self, task: TaskId) -> Seen | None:
        """This task's container; None when there is none. Raises Unavailable."""
        await self._enter(task)
        container = self._find(task)
        return self._seen(container) if container is not None else None

    async def prepare(self, work: Work, progress: Progress) -> None:
        """Pretend to fetch the image. Raises Rejected, Unavailable."""
        await self._enter(work.task)
        spec = work.generation.spec.container
        for key in reserved(spec.labels):
            raise Rejected(f"label {key}: labels that begin with dev.homeport. are Homeport's own")
        script = script_of(spec.labels)
        if script.prepare_ms:
            progress(f"pulling {spec.image}")
            await asyncio.sleep(script.prepare_ms / 1000)
        if script.fail_prepare:
            raise Rejected(script.fail_prepare)
        if spec.image_id and spec.image_id not in self._engine.images:
            raise Rejected(f"the image {spec.image_id} that was built for this is not here")

    async def create(self, work: Work) -> Seen:
        """Create the container, or adopt the one of that task. Raises Rejected, Unavailable."""
        await self._enter(work.task)
        spec = work.generation.spec.container
        script = script_of(spec.labels)
        if script.create_ms:
            await asyncio.sleep(script.create_ms / 1000)
        if script.fail_create:
            raise Rejected(script.fail_create)
        container = self._engine.find(work.task)
        if container is None:
            container = SimulatedContainer(
                cluster=self._cluster,
                task=work.task,
                stack=work.assignment.stack,
                generation=work.assignment.generation,
                container_id=f"simulated-{self._engine.number():08d}",
                spec=spec,
                script=script,
            )
            self._engine.add(container)
        elif container.cluster != self._cluster:
            raise Rejected(
                f"the name of {work.task} is taken on this node by a container that is not this"
                " cluster's: rename or remove that one"
            )
        return self._seen(container)

    async def start(self, task: TaskId) -> Seen:
        """Start the created or exited container. Raises Rejected, Gone, Unavailable."""
        await self._enter(task)
        container = self._get(task)
        if container.phase not in (Phase.RUNNING, Phase.PAUSED):
            if self._engine.late_seconds:
                self._engine.start_late(container)
                await self._hang()
            # The engine's doing, not ours: an agent that is stopped meanwhile stops none of it.
            await self._engine.start(container)
        elif container.script.fail_start:
            raise Rejected(container.script.fail_start)
        return self._seen(container)

    async def stop(self, task: TaskId, grace_seconds: float) -> Seen | None:
        """Signal, wait, kill; returns when it is dead. None: it is gone."""
        await self._enter(task)
        container = self._find(task)
        if container is None or container.phase not in (Phase.RUNNING, Phase.PAUSED):
            return self._seen(container) if container is not None else None
        start = container.started_at
        obeys_after = container.script.stop_ms / 1000
        if obeys_after:
            await asyncio.sleep(min(obeys_after, grace_seconds))
        if container.started_at == start:
            is_obedient = obeys_after <= grace_seconds
            self._engine.stop(container, container.script.stop_exit_code if is_obedient else KILLED)
        found = self._find(task)
        return self._seen(found) if found is not None else None

    async def kill(self, task: TaskId) -> None:
        """End it at once. Not an error when it is dead or gone."""
        await self._enter(task)
        container = self._find(task)
        if container is not None:
            self._engine.stop(container, KILLED)

    async def remove(self, task: TaskId) -> None:
        """Delete the container."""
        await self._enter(task)
        container = self._find(task)
        if container is not None:
            self._engine.remove(container)

    async def clean(self, stack: str) -> None:  # noqa: ARG002 - the Protocol's
        """A stack leaves nothing behind here."""
        await self._enter()

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Changes of our containers, for ever; begins with "look at everything"."""
        listener = Listener(self._cluster)
        listener.tell(RuntimeEvent(task=None, action="connected"))
        self._engine.listen(listener)
        try:
            while True:
                for event in await listener.take():
                    if event.action != "log" and not self._engine.outage:
                        yield event
        finally:
            self._engine.unlisten(listener)

    async def logs(
        self, task: TaskId, *, follow: bool, tail: int, since_ms: int, until_ms: int
    ) -> AsyncIterator[OutputChunk]:
        """What the container wrote; following ends with its process. Raises Gone, Unavailable."""
        await self._enter(task)
        container = self._get(task)
        listener = Listener(self._cluster)
        self._engine.listen(listener)
        try:
            position = max(0, len(container.output) - tail) if tail >= 0 else 0
            while True:
                for chunk in container.output[position:]:
                    if chunk.at_ms >= since_ms and (not until_ms or chunk.at_ms <= until_ms):
                        yield chunk
                position = len(container.output)
                is_over = container.phase is not Phase.RUNNING or self._find(task) is not container
                if not follow or is_over:
                    return
                await listener.take()
        finally:
            self._engine.unlisten(listener)

    async def exec(
        self,
        task: TaskId,
        command: Sequence[str],
        *,
        tty: bool,  # noqa: ARG002 - three that make no difference to a simulation
        interactive: bool,  # noqa: ARG002
        user: str,  # noqa: ARG002
        working_dir: str,
        env: Pairs,
    ) -> SimulatedTerminal:
        """Run one of the few commands that a simulated container knows.

        `echo`, `cat`, `true`, `false`, `pwd`, `env` and `sh -c "exit N"`.
        """
        await self._enter(task)
        container = self._get(task)
        if container.phase is not Phase.RUNNING:
            raise Rejected(f"the container of {task} does not run")
        return SimulatedTerminal(command, working_dir=working_dir, env=env)

    async def sample(self, task: TaskId) -> Sample | None:
        """Its counters now, as its script has them; None when it does not run."""
        await self._enter(task)
        container = self._find(task)
        if container is None or container.phase is not Phase.RUNNING:
            return None
        age = asyncio.get_running_loop().time() - container.started_at
        script = container.script
        return Sample(
            cpu_seconds=age * script.cpu_millis / 1000,
            memory_usage_bytes=script.memory_bytes,
            memory_working_set_bytes=script.memory_bytes,
            pids=1,
        )

    def marks(self, seen: Seen) -> tuple[str, ...]:
        """Its id, as of a container."""
        return (f"c {seen.container_id}",)

    async def has_image(self, image_id: str) -> bool:
        """Whether the engine has the image of this id."""
        await self._enter()
        return image_id in self._engine.images

    async def load_image(self, archive: str) -> None:
        """Pretend that the archive holds the image of which it has the name."""
        await self._enter()
        self._engine.images.add(archive.rpartition("/")[2].removesuffix(".tar"))

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _enter(self, task: TaskId | None = None) -> None:
        if self._engine.is_hanging or (task is not None and task in self._engine.hanging):
            await self._hang()
        if self._engine.outage:
            raise Unavailable(self._engine.outage)

    async def _hang(self) -> NoReturn:
        await asyncio.sleep(CALL_SECONDS)
        raise Unavailable(f"the engine did not answer within {CALL_SECONDS:g} s")

    def _find(self, task: TaskId) -> SimulatedContainer | None:
        container = self._engine.find(task)
        return container if container is not None and container.cluster == self._cluster else None

    def _get(self, task: TaskId) -> SimulatedContainer:
        container = self._find(task)
        if container is None:
            raise Gone(f"there is no container of task {task}")
        return container

    def _seen(self, container: SimulatedContainer) -> Seen:
        return Seen(
            container_id=container.container_id,
            task=container.task,
            generation=container.generation,
            phase=container.phase,
            health=self._health(container),
            pid=container.pid,
            exit_code=container.exit_code,
            oom_killed=container.oom_killed,
            started_ms=container.started_ms,
            finished_ms=container.finished_ms,
            ports=container.ports,
        )

    def _health(self, container: SimulatedContainer) -> Health:
        script = container.script
        if not script.health or container.phase is not Phase.RUNNING:
            return Health.NONE
        age_ms = (asyncio.get_running_loop().time() - container.started_at) * 1000
        if age_ms < script.health_after_ms:
            return Health.STARTING
        return Health.HEALTHY if script.health == "healthy" else Health.UNHEALTHY


class SimulatedTerminal:
    """A command in a simulated container; see `agent.runtime.base.Terminal`."""

    def __init__(self, command: Sequence[str], *, working_dir: str, env: Pairs) -> None:
        """Ends at once, except for `cat`, which ends with its input."""
        self._output: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        match list(command):
            case ["cat"]:
                return
            case ["echo", *words]:
                self._end(0, " ".join(words) + "\n")
            case ["pwd"]:
                self._end(0, f"{working_dir or '/'}\n")
            case ["env"]:
                self._end(0, "".join(f"{key}={value}\n" for key, value in env))
            case ["true"]:
                self._end(0)
            case ["false"]:
                self._end(1)
            case ["sh", "-c", text] if text.startswith("exit ") and text[5:].isdecimal():
                self._end(int(text[5:]))
            case _:
                self._end(127, f"a simulated container does not know {' '.join(command)}\n")

    def _end(self, code: int, said: str = "") -> None:
        if self._code.done():
            return
        if said:
            self._output.put_nowait(said.encode())
        self._output.put_nowait(None)
        self._code.set_result(code)

    async def __aiter__(self) -> AsyncIterator[OutputChunk]:
        """What it writes, until it ends."""
        while (data := await self._output.get()) is not None:
            yield OutputChunk(data=data)
        self._output.put_nowait(None)

    async def write(self, data: bytes, /) -> None:
        """Feed its standard input."""
        if not self._code.done():
            self._output.put_nowait(data)

    async def close_input(self) -> None:
        """End its standard input."""
        self._end(0)

    async def resize(self, rows: int, columns: int, /) -> None:
        """It has no terminal."""

    async def exit_code(self) -> int:
        """How it ended; waits for the end."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Let go of it."""
        self._end(KILLED)
