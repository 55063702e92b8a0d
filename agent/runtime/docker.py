"""The runtime that runs tasks as Docker containers.

A task has at most one container, whose name follows from the task's id; whatever has the
task's labels is adopted, also under another name; whatever lacks them is not touched. A
newcomer's mistake: asking the engine once more "to be sure": a deployment's speed is
the number of calls, and every answer here is already a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.runtime import docker_options, listeners
from agent.runtime.base import (
    EngineFacts,
    Gone,
    OutputChunk,
    Phase,
    Progress,
    Rejected,
    RuntimeEvent,
    RuntimeFailure,
    Sample,
    Seen,
    Unavailable,
    Work,
)
from agent.runtime.docker_check import EngineCheck
from agent.runtime.docker_endings import Endings, Hooks
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.docker_errors import taken_port
from agent.runtime.docker_events import Events
from agent.runtime.docker_images import Images, PullLimits
from agent.runtime.docker_look import Containers, Known
from agent.runtime.docker_options import Creation
from agent.runtime.docker_stack import StackResources
from agent.runtime.docker_streams import DockerTerminal, Streams
from agent.runtime.files import TaskFiles
from agent.runtime.labels import container_name, dump_hooks
from homeport.model import Condition, TaskId
from homeport.seams import Clock
from homeport.spec import Pairs

Answer = TypeVar("Answer")

START_SECONDS = 60.0
NOT_MODIFIED = 304

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """What the docker runtime is told by the agent's configuration."""

    cluster: str  # id of the cluster: what carries it is ours
    node: str = ""  # our node's name: tells agents that share an engine apart
    state_dir: Path
    secrets_dir: Path  # on a tmpfs; see `agent.runtime.files.find_secrets_dir`
    base_url: str = ""  # as DOCKER_HOST has it; empty: as the environment says
    pull_limits: PullLimits = field(default_factory=PullLimits)


class DockerRuntime:
    """See `agent.runtime.base.Runtime`."""

    def __init__(self, settings: DockerSettings, clock: Clock) -> None:
        """Connects at the first call."""
        self._settings = settings
        self._engine = Engine(settings.base_url)
        self._images = Images(self._engine, clock, settings.pull_limits)
        self._containers = Containers(self._engine, self._images, settings.cluster, settings.node)
        self._stack = StackResources(self._engine, settings.cluster)
        self._streams = Streams(self._engine)
        self._hooks = Hooks(self._streams)
        self._endings = Endings(self._engine, self._containers, self._hooks)
        self._check = EngineCheck(self._engine, settings.cluster)
        self._files = TaskFiles(settings.state_dir, settings.secrets_dir)
        self._disk = ThreadPoolExecutor(2, "task-files")

    async def facts(self) -> EngineFacts:
        """What the engine is and offers. Raises Unavailable."""
        return await self._check.facts()

    async def check(self) -> Condition:
        """Whether the engine can do work now. Never raises."""
        return await self._check.condition()

    async def list(self) -> tuple[Seen, ...]:
        """Every container that carries our cluster's label. Raises Unavailable."""
        self._stack.forget()
        return await self._containers.list()

    async def inspect(self, task: TaskId) -> Seen | None:
        """This task's container; None when there is none. Raises Unavailable."""
        return await self._containers.inspect(task)

    async def sample(self, task: TaskId) -> Sample | None:
        """Its counters now; None when it does not run, or in a world whose /proc we lack."""
        return await self._containers.sample(task)

    def marks(self, seen: Seen) -> tuple[str, ...]:
        """Engines put a container's id into the path of its control group."""
        return (f"c {seen.container_id}",)

    # ------------------------------------------------------------------ making

    async def prepare(self, work: Work, progress: Progress) -> None:
        """Make image, networks, volumes and files ready. Raises Rejected, Unavailable.

        What is there already costs a question each. The image of a container that exists is
        not fetched again.
        """
        api = await self._refuse(work)
        for notice in docker_options.notices(work, api):
            progress(notice)
        spec = work.generation.spec.container
        if spec.files:
            await self._on_disk(lambda: self._files.write(work))
        await self._stack.prepare(work)
        await self._images.prepare(spec, progress, is_settled=lambda: self._exists(work.task))

    async def create(self, work: Work) -> Seen:
        """Create the container, or adopt the one of that task. Raises Rejected, Unavailable."""
        creation = docker_options.creation(
            work,
            cluster=self._settings.cluster,
            node=self._settings.node,
            api=await self._refuse(work),
            file_paths=self._files.paths(work),
        )
        try:
            made = await self._create(creation)
        except Rejected as error:
            self._images.forget(work.generation.spec.container.image)
            # Also when the refusal is about something else, as an image that was removed since.
            if "is already in use by container" in str(error) or await self._exists(work.task):
                return await self._adopt(work.task, creation)
            if "network" in str(error):
                self._stack.forget()  # the next preparation looks again
            raise
        for warning in made.get("Warnings") or ():
            log.warning("the engine has a reservation", task=work.task, warning=warning)
        spec = work.generation.spec.container
        known = Known(
            container_id=made["Id"],
            generation=work.assignment.generation,
            post_start=dump_hooks(spec.post_start) if spec.post_start else "",
            pre_stop=dump_hooks(spec.pre_stop) if spec.pre_stop else "",
        )
        self._containers.remember(work.task, known)
        await self._connect(creation, made["Id"])
        return _seen(work.task, known, Phase.CREATED)

    async def _refuse(self, work: Work) -> tuple[int, int]:
        """Refuse what this engine cannot do; tells its API version. Raises Rejected."""
        api = await self._engine.api()
        refusals = docker_options.objections(work, api)
        if refusals:
            raise Rejected("; ".join(refusals))
        return api

    async def _create(self, creation: Creation) -> dict[str, Any]:
        params = {"name": creation.name}
        if creation.platform:
            params["platform"] = creation.platform

        def request(client: Client) -> dict[str, Any]:
            made: dict[str, Any] = client.ask_json(
                "POST", "/containers/create", params=params, json=creation.body
            )
            return made

        return await self._work(f"create the container {creation.name}", request, creation.name)

    async def _exists(self, task: TaskId) -> bool:
        return await self._containers.inspected(task) is not None

    async def _adopt(self, task: TaskId, creation: Creation) -> Seen:
        seen = await self._containers.inspect(task)
        if seen is None:
            if await self._containers.is_name_free(creation.name):
                raise Unavailable(f"the container {creation.name} is just being removed")
            raise Rejected(
                f"the name {creation.name} is taken on this node by a container that is not this"
                " cluster's: rename or remove that one"
            )
        if seen.phase is Phase.CREATED:
            # An agent may have died between making and connecting it.
            await self._connect(creation, seen.container_id)
        return seen

    async def _connect(self, creation: Creation, container_id: str) -> None:
        for network, endpoint in creation.connects:
            body = {"Container": container_id, "EndpointConfig": endpoint}

            def request(client: Client, network: str = network, body: Any = body) -> None:
                client.ask("POST", f"/networks/{network}/connect", json=body)

            what = f"connect the container to network {network}"
            try:
                await self._work(what, request, creation.name)
            except Rejected as error:
                if "already exists in network" not in str(error):
                    self._stack.forget()
                    raise

    # ------------------------------------------------------------------ starting

    async def start(self, task: TaskId) -> Seen:
        """Start the created or exited container. Raises Rejected, Gone, Unavailable.

        The answer does not name the process: that would be one more call for each start of a
        deployment, and the next look tells. Gone is also what a container is whose files were
        lost with the machine's memory: preparing and creating it anew puts them back.
        """
        known = await self._containers.known(task)
        name = container_name(task)

        def request(client: Client) -> int:
            return client.ask("POST", f"/containers/{known.container_id}/start").status_code

        try:
            status = await self._work(f"start the container {name}", request, name)
        except Gone:
            self._containers.forget(task)
            raise
        except Rejected as error:
            raise await self._explained(task, error) from error
        if status == NOT_MODIFIED:
            return await self._revived(task)
        if known.post_start:
            try:
                await self._hooks.post_start(known)
            except RuntimeFailure:
                await self._endings.kill(task)
                raise
        return _seen(task, known, Phase.RUNNING)

    async def _revived(self, task: TaskId) -> Seen:
        """The engine says that it runs already. Where /proc says no, it is restarted."""
        seen = await self._containers.inspect(task)
        if seen is None:
            raise Gone(f"there is no container of task {task}")
        if seen.phase is not Phase.EXITED:
            return seen
        container_id = seen.container_id

        def request(client: Client) -> None:
            client.ask("POST", f"/containers/{container_id}/restart", params={"t": 0})

        what = "restart a container whose process is gone, which the engine has not noticed"
        await self._work(what, request, container_name(task))
        seen = await self._containers.inspect(task)
        if seen is None or seen.phase is not Phase.RUNNING:
            raise Unavailable(f"cannot {what}: restart Docker on this node")
        return seen

    async def _explained(self, task: TaskId, error: Rejected) -> RuntimeFailure:
        """The same refusal, with what we can find out about it."""
        taken = taken_port(str(error))
        if taken is not None:
            return await self._port_taken(*taken)
        inspected = await self._containers.inspected(task)
        sources = [each.get("Source", "") for each in (inspected or {}).get("Mounts") or ()]
        if await self._on_disk(lambda: self._files.missing(sources)):
            return Gone(
                f"the secrets of {container_name(task)} were lost with this machine's memory:"
                " they have to be put back before it starts"
            )
        return error

    async def _port_taken(self, port: int, protocol: str) -> Rejected:
        def request(client: Client) -> list[Any]:
            found: list[Any] = client.ask_json("GET", "/containers/json")
            return found

        protocols = (protocol,) if protocol else ("tcp", "udp")
        for container in await self._engine.call("look who has a port", request):
            for bound in container.get("Ports") or ():
                if bound.get("PublicPort") == port and bound.get("Type") in protocols:
                    name = container["Names"][0].lstrip("/")
                    return _taken(port, bound["Type"], f"the container {name}")
        for each in protocols:
            owner = await self._on_disk(partial(listeners.owner, port, each))
            if owner:
                return _taken(port, each, owner)
        return _taken(port, protocol or "tcp", "a program that cannot be told")

    # ------------------------------------------------------------------ ending

    async def stop(self, task: TaskId, grace_seconds: float) -> Seen | None:
        """Signal, wait `grace_seconds`, kill; returns when it is dead. None: it is gone."""
        return await self._endings.stop(task, grace_seconds)

    async def kill(self, task: TaskId) -> None:
        """End it at once. Not an error when it is dead or gone. Raises Unavailable."""
        await self._endings.kill(task)

    async def remove(self, task: TaskId) -> None:
        """Delete container, anonymous volumes and files; never a named volume."""
        name = container_name(task)
        inspected = await self._containers.inspected(task)
        while inspected is not None:
            container_id = inspected["Id"]

            def request(client: Client, container_id: str = container_id) -> None:
                params = {"v": 1, "force": 1}
                client.ask("DELETE", f"/containers/{container_id}", params=params)

            try:
                await self._work(f"remove the container {name}", request, name)
                self._containers.forget(task)
            except Gone:
                pass
            except (Rejected, Unavailable) as error:
                if "is already in progress" not in str(error):
                    raise
                await asyncio.sleep(0.1)
            inspected = await self._containers.inspected(task)
        self._containers.forget(task)
        await self._on_disk(lambda: self._files.remove(task))

    async def clean(self, stack: str) -> None:
        """Delete our networks and files of a stack that has no container here any more."""
        await self._stack.clean(stack)
        await self._on_disk(lambda: self._files.clean(stack))

    # ------------------------------------------------------------------ looking in

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Changes of our containers, for ever; says "look at everything" after every gap."""
        async for event in Events(self._engine, self._settings.cluster, self._settings.node).read():
            if event.task is None:
                self._stack.forget()
            yield event

    async def logs(
        self, task: TaskId, *, follow: bool, tail: int, since_ms: int, until_ms: int
    ) -> AsyncIterator[OutputChunk]:
        """What the container wrote; following ends with its process. Raises Gone, Unavailable."""
        known = await self._containers.known(task)
        async for chunk in self._streams.logs(
            known.container_id, follow=follow, tail=tail, since_ms=since_ms, until_ms=until_ms
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
    ) -> DockerTerminal:
        """Run a command inside. Raises Gone, Rejected (with the engine's words), Unavailable."""
        known = await self._containers.known(task)
        return await self._streams.exec(
            known.container_id,
            command,
            tty=tty,
            interactive=interactive,
            user=user,
            working_dir=working_dir,
            env=env,
        )

    async def has_image(self, image_id: str) -> bool:
        """Whether the engine has the image of this id."""
        return await self._images.inspect(image_id) is not None

    async def load_image(self, archive: str) -> None:
        """Take in an image archive from this file path. Raises Rejected, Unavailable."""
        await self._images.load(archive)

    async def close(self) -> None:
        """Let go of connections; containers run on."""
        self._images.close()
        self._engine.close()
        self._disk.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ doing

    async def _work(self, what: str, request: Callable[[Client], Answer], name: str) -> Answer:
        """A call that only a working engine can answer; how it went tells of the engine."""
        try:
            answer = await self._engine.call(what, request, seconds=START_SECONDS, container=name)
        except Unavailable as error:
            self._check.doubt(error)
            raise
        self._check.trust()
        return answer

    async def _on_disk(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except OSError as error:
            raise Unavailable(f"cannot write the task's files: {error}") from error


def _seen(task: TaskId, known: Known, phase: Phase) -> Seen:
    return Seen(
        container_id=known.container_id, task=task, generation=known.generation, phase=phase
    )


def _taken(port: int, protocol: str, owner: str) -> Rejected:
    return Rejected(f"port {port}/{protocol} is taken on this node by {owner}")
