"""The runtime that runs tasks as plain processes of this machine: no Docker needed.

Each process has a keeper (`shim.py`) that outlives the agent, so a restart of the agent
changes nothing: everything about a task is in its directory, and a process is known by pid
*and* start time. A newcomer's mistake: taking the process for a child of the agent. Nobody
here can wait for it; its end is seen through a pidfd of its keeper, its exit code in a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.runtime import cgroups, process_cgroups, process_exec, process_logs
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
from agent.runtime.proc import (
    process_stat,
    wait_for_exit,
)
from agent.runtime.process_events import ProcessEvents
from agent.runtime.process_exec import ProcessTerminal
from agent.runtime.process_identity import identity
from agent.runtime.process_options import objections, plan
from agent.runtime.process_state import ProcessFiles, dump, kill_group, run_of
from agent.runtime.process_venv import VirtualEnvironments
from homeport.model import Condition, TaskId
from homeport.seams import Clock
from homeport.spec import Pairs, Resources

Answer = TypeVar("Answer")

START_SECONDS = 10.0
KILL_SECONDS = 10.0
HOOK_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What the process runtime is told by the agent's configuration."""

    cluster: str  # id of the cluster: what carries it is ours
    node: str = ""
    state_dir: Path


class ProcessRuntime:
    """See `agent.runtime.base.Runtime`."""

    def __init__(self, settings: ProcessSettings, clock: Clock) -> None:
        """Makes no directory yet."""
        self._settings = settings
        self._clock = clock
        self._folder = settings.state_dir / "processes"
        self._files = ProcessFiles(self._folder, settings.cluster)
        self._events = ProcessEvents(self._folder / "events")
        self._venvs = VirtualEnvironments(settings.state_dir / "venvs")
        self._threads = ThreadPoolExecutor(4, "processes")

    async def facts(self) -> EngineFacts:
        """What this machine offers to plain processes."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return EngineFacts(
            data_root=str(self._settings.state_dir),
            cgroup_version=_cgroup_version(),
            capacity=Resources(cpu_millis=(os.cpu_count() or 1) * 1000, memory_bytes=pages),
        )

    async def check(self) -> Condition:
        """Whether a process could be started: whether the state directory takes a file."""

        def write() -> str:
            trial = self._folder / ".trial"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                trial.touch()
                trial.unlink()
            except OSError as error:
                return f"cannot write to {self._folder}: {error.strerror}"
            return ""

        sentence = await self._in_thread(write)
        return Condition(name="engine", ok=not sentence, message=sentence)

    # ------------------------------------------------------------------ looking

    async def list(self) -> tuple[Seen, ...]:
        """Every process of our cluster, dead or alive."""

        found = [self._seen(place) for place in await self._in_thread(self._files.places)]
        return tuple(sorted((s for s in found if s is not None), key=lambda seen: seen.task))

    async def inspect(self, task: TaskId) -> Seen | None:
        """This task's process; None when there is none."""
        return self._seen(self._files.place(task))

    def _seen(self, place: Path) -> Seen | None:
        return self._files.seen(place, self._events.watch)

    async def sample(self, task: TaskId) -> Sample | None:
        """Its counters now; of the process alone, when it has no cgroup of its own."""
        place = self._files.place(task)
        plan, run = self._files.described(place), run_of(place)
        if plan is None or run is None or not run.is_alive:
            return None
        if plan["cgroups"]:
            return cgroups.sample(run.pid)
        stat = process_stat(run.pid)
        if stat is None:
            return None
        return Sample(
            cpu_seconds=stat.user_seconds + stat.system_seconds,
            cpu_user_seconds=stat.user_seconds,
            cpu_system_seconds=stat.system_seconds,
            memory_usage_bytes=stat.rss_bytes,
            memory_working_set_bytes=stat.rss_bytes,
            memory_rss_bytes=stat.rss_bytes,
            pids=1,
        )

    # ------------------------------------------------------------------ making

    async def prepare(self, work: Work, progress: Progress) -> None:
        """Refuse what a process cannot have; make its virtual environment. Raises Rejected."""
        _refuse(work)
        requirements = work.generation.spec.container.venv_requirements
        if requirements:
            await self._venvs.prepare(requirements, progress)

    async def create(self, work: Work) -> Seen:
        """Write down what to run, or adopt what is there. Raises Rejected."""
        _refuse(work)
        place = self._files.place(work.task)
        seen = self._seen(place)
        if seen is not None:
            return seen
        if (place / "task.json").exists():
            raise Rejected(
                f"the name {place.name} is taken on this node by a process that is not this"
                " cluster's: remove that one"
            )
        await self._in_thread(lambda: self._write(work, place))
        created = self._seen(place)
        assert created is not None  # written just now
        return created

    def _write(self, work: Work, place: Path) -> None:
        spec = work.generation.spec.container
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, mode=0o700)
        unique = f"{work.task} {self._clock.wall_ms()}"
        venv = str(self._venvs.path(spec.venv_requirements)) if spec.venv_requirements else ""
        task = plan(
            work,
            cluster=self._settings.cluster,
            node=self._settings.node,
            container_id=hashlib.sha256(unique.encode()).hexdigest()[:24],
            identity=identity(spec.user),
            base_env={key: os.environ[key] for key in ("PATH", "LANG", "TZ") if key in os.environ},
            venv=venv,
            default_dir=str(place),
        )
        task["events"] = str(self._folder / "events")
        task["cgroups"] = []
        task["oom_kills"] = 0
        dump(place / "task.json", task)

    async def start(self, task: TaskId) -> Seen:
        """Start the program. Raises Rejected, Gone, Unavailable."""
        place = self._files.place(task)
        seen = self._seen(place)
        described = self._files.described(place)
        if seen is None or described is None:
            raise Gone(f"there is no process of task {task}")
        if seen.phase is Phase.RUNNING:
            return seen
        answer = await self._in_thread(lambda: self._begin(place, described))
        if "error" in answer:
            raise Rejected(answer["error"])
        seen = self._seen(place)
        if seen is None:
            raise Gone(f"there is no process of task {task} any more")
        self._events.tell(RuntimeEvent(task=task, action="start"))
        if described["post_start"]:
            await self._post_start(task, described)
        return seen

    def _begin(self, place: Path, task: dict[str, Any]) -> dict[str, Any]:
        """Start the keeper, which starts the program. Blocks."""
        self._events.make()
        task["cgroups"] = process_cgroups.make(self._cgroup(place), task["limits"])
        if any(task["limits"].values()) and not task["cgroups"]:
            log.warning("limits are not kept: no cgroup could be made", task=task["task"])
        task["oom_kills"] = _oom_kills(task["cgroups"])
        dump(place / "task.json", task)
        shim = Path(__file__).with_name("shim.py")
        try:
            # Isolated, without site packages: small, and nothing of ours can break it.
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-I", "-S", str(shim), str(place)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
            answer: dict[str, Any] = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError, OSError) as error:
            raise Unavailable(f"the keeper of {place.name} did not start: {error}") from error
        return answer

    async def _post_start(self, task: TaskId, described: dict[str, Any]) -> None:
        for hook in described["post_start"]:
            code, said = await self._run_hook(described, hook, HOOK_SECONDS)
            if code != 0:
                await self.kill(task)
                command = " ".join(hook["command"])
                raise Rejected(f"post_start: {command} exited with {code}: {said}")

    async def _run_hook(
        self, described: dict[str, Any], hook: dict[str, Any], seconds: float
    ) -> tuple[int, str]:
        said = b""
        terminal = await process_exec.start(
            described,
            hook["command"],
            tty=False,
            working_dir=hook["working_dir"],
            env=dict(hook["env"]),
        )
        try:
            async with asyncio.timeout(seconds):
                await terminal.close_input()
                async for piece in terminal:
                    said = (said + piece.data)[-1000:]
                code = await terminal.exit_code()
        except TimeoutError:
            code = -1
            said += f" (did not end within {seconds:g} s)".encode()
        finally:
            await terminal.close()
        return code, said.decode(errors="replace").strip()

    # ------------------------------------------------------------------ ending

    async def stop(self, task: TaskId, grace_seconds: float) -> Seen | None:
        """Signal, wait `grace_seconds`, kill; returns when it is dead. None: it is gone."""
        place = self._files.place(task)
        seen = self._seen(place)
        described, run = self._files.described(place), run_of(place)
        if seen is None or seen.phase is not Phase.RUNNING or described is None or run is None:
            return seen
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        for hook in described["pre_stop"]:
            try:
                code, said = await self._run_hook(described, hook, max(deadline - loop.time(), 0.1))
            except Rejected as error:
                code, said = -1, str(error)
            if code != 0:
                log.warning("pre_stop failed", task=task, code=code, said=said)
        kill_group(run.pid, _signal_number(described["stop_signal"]))
        if not await wait_for_exit(run.keeper, max(deadline - loop.time(), 0.1)):
            kill_group(run.pid, signal.SIGKILL)
            if not await wait_for_exit(run.keeper, KILL_SECONDS):
                raise Unavailable(f"{place.name} does not die, not even when killed")
        return self._seen(place)

    async def kill(self, task: TaskId) -> None:
        """End it at once. Not an error when it is dead or gone."""
        place = self._files.place(task)
        seen, run = self._seen(place), run_of(place)
        if seen is not None and seen.phase is Phase.RUNNING and run is not None:
            kill_group(run.pid, signal.SIGKILL)

    async def remove(self, task: TaskId) -> None:
        """Delete what is left of it: its directory with its output, and its cgroup."""
        place = self._files.place(task)
        described = self._files.described(place)
        if described is None:
            return
        await self.stop(task, 0.0)
        await self._in_thread(lambda: process_cgroups.remove(described["cgroups"]))
        await self._in_thread(lambda: shutil.rmtree(place, ignore_errors=True))
        self._events.tell(RuntimeEvent(task=task, action="destroy"))

    async def clean(self, stack: str) -> None:
        """A stack of processes leaves nothing behind; environments are kept for the next."""

    # ------------------------------------------------------------------ looking in

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Changes of our processes, for ever; begins with "look at everything"."""
        async for event in self._events.read():
            # One state directory has one FIFO, whatever clusters it has served.
            if event.task is None or event.action == "destroy" or self._is_ours(event.task):
                yield event

    def _is_ours(self, task: TaskId) -> bool:
        return self._files.described(self._files.place(task)) is not None

    async def logs(
        self, task: TaskId, *, follow: bool, tail: int, since_ms: int, until_ms: int
    ) -> AsyncIterator[OutputChunk]:
        """What the process wrote; following ends with it. Raises Gone."""
        place = self._files.place(task)
        if self._files.described(place) is None:
            raise Gone(f"there is no process of task {task}")

        def is_over() -> bool:
            seen = self._seen(place)
            return seen is None or seen.phase is not Phase.RUNNING

        async for chunk in process_logs.read(
            place,
            follow=follow,
            tail=tail,
            since_ms=since_ms,
            until_ms=until_ms,
            is_over=is_over,
        ):
            yield chunk

    async def exec(
        self,
        task: TaskId,
        command: Sequence[str],
        *,
        tty: bool,
        interactive: bool,
        user: str,
        working_dir: str,
        env: Pairs,
    ) -> ProcessTerminal:
        """Run a command beside the process, as its user. Raises Gone, Rejected."""
        place = self._files.place(task)
        described, seen = self._files.described(place), self._seen(place)
        if described is None or seen is None:
            raise Gone(f"there is no process of task {task}")
        if seen.phase is not Phase.RUNNING:
            raise Rejected(f"the process of task {task} does not run")
        if user:
            who = identity(user)
            described |= {"uid": who.uid, "gid": who.gid, "groups": list(who.groups)}
        terminal = await process_exec.start(
            described, command, tty=tty, working_dir=working_dir, env=dict(env)
        )
        if not interactive and not tty:
            await terminal.close_input()
        return terminal

    def marks(self, seen: Seen) -> tuple[str, ...]:
        """Its cgroup, and for where it could have none the process group that its keeper names."""
        place = self._files.place(seen.task)
        return (f"p {self._cgroup(place)}", f"r {(place / 'run.json').absolute()}")

    def _cgroup(self, place: Path) -> str:
        tag = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:8]
        return f"{tag}-{place.name}"

    async def has_image(self, image_id: str) -> bool:  # noqa: ARG002 - the Protocol's
        """There are no images here."""
        return False

    async def load_image(self, archive: str) -> None:  # noqa: ARG002 - the Protocol's
        """Refused: there are no images here."""
        raise Rejected("this node runs plain processes, which have no images")

    async def close(self) -> None:
        """Let go of threads and descriptors; processes run on."""
        self._events.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise Unavailable(f"cannot write to {self._folder}: {error}") from error


def _refuse(work: Work) -> None:
    refusals = list(objections(work))
    if refusals:
        raise Rejected("; ".join(refusals))
    identity(work.generation.spec.container.user)


def _signal_number(name: str) -> signal.Signals:
    if not name:
        return signal.SIGTERM
    try:
        if name.isdecimal():
            return signal.Signals(int(name))
        return signal.Signals["SIG" + name.upper().removeprefix("SIG").replace("+", "")]
    except (KeyError, ValueError):
        return signal.SIGTERM


def _cgroup_version() -> int:
    return 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1


def _oom_kills(folders: Sequence[str]) -> int:
    if not folders:
        return 0
    return sum(cgroups.oom_kills(Path(folder)) for folder in folders)
