"""One bench for each runtime: how to say "a task that sleeps" or "…ends with 3" to it.

The contract is written once, in test_runtime.py; what differs between Docker, plain
processes and a simulation is only how a test tells them what to run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agent.runtime.base import Runtime, Seen, Work
from agent.runtime.docker import DockerRuntime, DockerSettings
from agent.runtime.process import ProcessRuntime, ProcessSettings
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from homeport.model import TaskId
from homeport.seams import SystemClock
from homeport.spec import Argv, Driver, HealthCheck, Resources, pairs
from tests.contract.works import work

_numbers = itertools.count(1)
OBEY = "trap 'exit 0' TERM; "
PATIENCE_SECONDS = 20.0
"""When a test gives up; nothing is measured by it."""


def silent(sentence: str) -> None:
    """A listener to progress that does not care."""


async def up(runtime: Runtime, task: Work) -> Seen:
    """Take a task from nothing to started."""
    await runtime.prepare(task, silent)
    await runtime.create(task)
    return await runtime.start(task.task)


async def until(
    runtime: Runtime, task: TaskId, is_it: Callable[[Seen | None], bool]
) -> Seen | None:
    """Look at each event until what is seen of the task is what was waited for."""
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(runtime.events()) as events:
        async for _ in events:
            seen = await runtime.inspect(task)
            if is_it(seen):
                return seen
    raise AssertionError("events end only when nobody listens")


class Bench(ABC):
    """A runtime under test."""

    driver: Driver

    def __init__(self) -> None:
        number = next(_numbers)
        self.revision = f"{os.getpid():x}{number:x}"
        self.cluster = f"cluster-{self.revision}"
        self._runtimes: list[Runtime] = []
        self._clusters: set[str] = set()

    def runtime(self, cluster: str = "") -> Runtime:
        """Another agent's runtime on the same machine."""
        made = self.make(cluster or self.cluster)
        self._runtimes.append(made)
        self._clusters.add(cluster or self.cluster)
        return made

    def task(self, *, script: dict[str, str] | None = None, shell: str = "", **more: Any) -> Work:
        """A task that runs `shell`, or follows `script` where everything is simulated."""
        if self.driver is Driver.SIMULATED:
            labels = {f"sim.{key}": value for key, value in (script or {}).items()}
            more = {"labels": pairs(labels), **more}
        else:
            more = {"command": Argv(args=("sh", "-c", shell)), **more}
        return work(driver=self.driver, revision=self.revision, **more)

    def sleeper(self, **more: Any) -> Work:
        """Runs until it is told to stop, and obeys."""
        return self.task(shell=OBEY + "sleep 1000 & wait", **more)

    def stubborn(self) -> Work:
        """Does not stop when told, once it has said `deaf`."""
        return self.task(
            script={"stop_ms": "60000", "log": "deaf"},
            shell="trap '' TERM; echo deaf; sleep 1000 & wait; wait",
        )

    def ends(self, code: int) -> Work:
        """Ends soon by itself."""
        return self.task(
            script={"run_for_ms": "50", "exit_code": str(code)}, shell=f"sleep 0.05; exit {code}"
        )

    def says(self, *lines: str) -> Work:
        """Writes these lines and runs on."""
        words = "; ".join(f"echo '{line}'" for line in lines)
        return self.task(
            script={"log": "\n".join(lines)}, shell=f"{words}; {OBEY} sleep 1000 & wait"
        )

    def says_twice(self) -> Work:
        """Writes "out" to its output and "err" to standard error, and runs on."""
        return self.task(
            script={"log": "out", "log_error": "err"},
            shell=f"echo out; echo err >&2; {OBEY} sleep 1000 & wait",
        )

    def checked(self, *, is_healthy: bool) -> Work:
        """Has a health check with this outcome."""
        check = HealthCheck(
            test=("CMD", "true" if is_healthy else "false"), interval_ms=200, retries=1
        )
        script = {"health": "healthy" if is_healthy else "unhealthy", "health_after_ms": "50"}
        more: dict[str, Any] = {} if self.driver is Driver.SIMULATED else {"health_check": check}
        return self.task(script=script, shell=OBEY + "sleep 1000 & wait", **more)

    def greedy(self) -> Work:
        """Takes more memory than its limit."""
        return self.task(
            script={"run_for_ms": "50", "oom": "true"},
            # tail keeps the whole of an endless line in memory.
            shell="sleep 0.1; tail /dev/zero",
            limits=Resources(memory_bytes=16 << 20),
        )

    @abstractmethod
    def make(self, cluster: str) -> Runtime:
        """A runtime object for this cluster."""

    @abstractmethod
    def unpreparable(self) -> Work:
        """What this runtime refuses to prepare."""

    @abstractmethod
    def unstartable(self) -> Work:
        """What can be created here and not started."""

    def kill_outside(self, seen: Seen) -> None:
        """Kill its process behind the runtime's back."""
        os.kill(seen.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Remove all that is left, and let go."""
        for runtime in self._runtimes:
            await runtime.close()
        for cluster in self._clusters:
            last = self.make(cluster)
            for seen in await last.list():
                await last.remove(seen.task)
            for stack in ("shop", "other"):
                await last.clean(stack)
            await last.close()


class SimulatedBench(Bench):
    """Nothing real."""

    driver = Driver.SIMULATED

    def __init__(self) -> None:
        super().__init__()
        self.engine = SimulatedEngine(SystemClock())

    def make(self, cluster: str) -> Runtime:
        """On the one engine of this bench."""
        return SimulatedRuntime(self.engine, cluster)

    def unpreparable(self) -> Work:
        """Its script says so."""
        return self.task(script={"fail_prepare": "no such image: nosuch"})

    def unstartable(self) -> Work:
        """Its script says so."""
        return self.task(script={"fail_start": "cannot start nosuch: not found"})

    def kill_outside(self, seen: Seen) -> None:
        """Its process has no number that a kernel knows."""
        self.engine.end(seen.task)


class ProcessBench(Bench):
    """Plain processes of this machine."""

    driver = Driver.PROCESS

    def __init__(self, state_dir: Path) -> None:
        super().__init__()
        self.state_dir = state_dir

    def make(self, cluster: str) -> Runtime:
        """All in one state directory."""
        return ProcessRuntime(
            ProcessSettings(cluster=cluster, state_dir=self.state_dir), SystemClock()
        )

    def unpreparable(self) -> Work:
        """A process has no network of its own."""
        return self.task(shell="true", dns=("10.0.0.1",))

    def unstartable(self) -> Work:
        """There is no such program."""
        return self.task(command=Argv(args=("/nosuch/program",)))


class DockerBench(Bench):
    """Containers of a real engine."""

    driver = Driver.DOCKER

    def __init__(self, host: str, state_dir: Path) -> None:
        super().__init__()
        self.host = host
        self.state_dir = state_dir

    def make(self, cluster: str) -> Runtime:
        """All on one engine."""
        return DockerRuntime(
            DockerSettings(
                cluster=cluster,
                state_dir=self.state_dir,
                secrets_dir=self.state_dir / "secrets",
                base_url=self.host,
            ),
            SystemClock(),
        )

    def unpreparable(self) -> Work:
        """No registry answers there."""
        return self.task(image="127.0.0.1:1/nosuch:1", shell="true")

    def unstartable(self) -> Work:
        """There is no such program in the image."""
        return self.task(command=Argv(args=("/nosuch/program",)))
