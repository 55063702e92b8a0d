"""Ending containers, and the commands that run in them before the end and after the start.

A newcomer's mistake: `docker stop` holds a thread for the whole grace period. A stop here
is a signal, a wait in the kernel that costs nothing, and perhaps a kill, so that a thousand
containers may be stopping at once.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog

from agent.runtime.base import Gone, Phase, Rejected, Seen, Unavailable
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.docker_look import Containers, Known
from agent.runtime.docker_streams import Streams
from agent.runtime.labels import container_name, load_hooks
from agent.runtime.proc import wait_for_exit
from homeport.model import TaskId
from homeport.spec import Hook

KILL_SECONDS = 10.0
"""How long a killed process may take to be gone, and the engine to notice."""
HOOK_SECONDS = 60.0
LOOK_SECONDS = 0.1
POLL_SECONDS = 0.25

log = structlog.get_logger(__name__)


class Hooks:
    """Runs a container's post_start and pre_stop commands."""

    def __init__(self, streams: Streams) -> None:
        """Commands go through `streams`."""
        self._streams = streams

    async def post_start(self, known: Known) -> None:
        """Raises Rejected when one fails, Unavailable."""
        for hook in load_hooks(known.post_start):
            code, said = await self._run(known, hook, HOOK_SECONDS)
            if code != 0:
                command = " ".join(hook.command)
                raise Rejected(f"post_start: {command} exited with {code}: {said}")

    async def pre_stop(self, known: Known, seconds: float) -> None:
        """All of them together take at most `seconds`. A failure keeps nothing alive."""
        deadline = monotonic() + seconds
        for hook in load_hooks(known.pre_stop):
            try:
                code, said = await self._run(known, hook, max(deadline - monotonic(), 0.1))
            except Gone:
                return
            except (Rejected, Unavailable) as error:
                code, said = -1, str(error)
            if code != 0:
                log.warning("pre_stop failed", command=hook.command, code=code, said=said)

    async def _run(self, known: Known, hook: Hook, seconds: float) -> tuple[int, str]:
        return await self._streams.run(
            known.container_id,
            hook.command,
            user=hook.user,
            working_dir=hook.working_dir,
            env=hook.env,
            privileged=hook.privileged,
            seconds=seconds,
        )


class Endings:
    """Ends containers of ours."""

    def __init__(self, engine: Engine, containers: Containers, hooks: Hooks) -> None:
        """`containers` finds them."""
        self._engine = engine
        self._containers = containers
        self._hooks = hooks

    async def stop(self, task: TaskId, grace_seconds: float) -> Seen | None:
        """Signal, wait `grace_seconds`, kill; returns when it is dead. None: it is gone.

        Hooks before the stop take their time out of the same grace. Raises Unavailable.
        """
        seen = await self._containers.inspect(task)
        if seen is None or seen.phase not in (Phase.RUNNING, Phase.PAUSED):
            return seen
        known = await self._containers.known(task)
        deadline = monotonic() + grace_seconds
        if seen.phase is Phase.PAUSED:
            await self._signal(known, task, "unpause")
        await self._hooks.pre_stop(known, grace_seconds)
        await self._signal(known, task, "kill", known.stop_signal or "SIGTERM")
        if not await self._has_ended(task, seen.pid, max(deadline - monotonic(), LOOK_SECONDS)):
            await self._signal(known, task, "kill", "SIGKILL")
            await self._has_ended(task, seen.pid, KILL_SECONDS)
        return await self._after_end(task)

    async def kill(self, task: TaskId) -> None:
        """End it at once. Not an error when it is dead or gone. Raises Unavailable."""
        try:
            known = await self._containers.known(task)
        except Gone:
            return
        await self._signal(known, task, "kill", "SIGKILL")

    async def _signal(self, known: Known, task: TaskId, verb: str, name: str = "") -> None:
        """Send a signal; not an error when there is nobody to receive it."""

        def request(client: Client) -> None:
            params = {"signal": name} if name else {}
            client.ask("POST", f"/containers/{known.container_id}/{verb}", params=params)

        container = container_name(task)
        try:
            await self._engine.call(f"{verb} the container", request, container=container)
        except Gone:
            self._containers.forget(task)
        except (Rejected, Unavailable) as error:
            if "is not running" not in str(error) and "is not paused" not in str(error):
                raise

    async def _has_ended(self, task: TaskId, pid: int, seconds: float) -> bool:
        if pid and self._engine.sees_processes:
            return await wait_for_exit(pid, seconds)
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            seen = await self._containers.inspect(task)
            if seen is None or seen.phase is Phase.EXITED:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _after_end(self, task: TaskId) -> Seen | None:
        """What is left, once the engine knows that the process has ended."""
        deadline = monotonic() + KILL_SECONDS
        while True:
            seen = await self._containers.inspect(task)
            if seen is None or seen.phase not in (Phase.RUNNING, Phase.PAUSED):
                return seen
            if monotonic() > deadline:
                raise Unavailable(f"{container_name(task)} does not die, not even when killed")
            await asyncio.sleep(LOOK_SECONDS)
