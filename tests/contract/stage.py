"""A Compose file, played on a real engine: what a key of it does to a container.

The whole way is taken, from the text through the loader to the engine, by the runtime that
an agent uses; only the cluster between the two is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.runtime.base import Seen, Work
from agent.runtime.docker import DockerRuntime, DockerSettings
from homeport import compose, devices
from homeport.lifecycle import Desired
from homeport.model import (
    Assignment,
    Grant,
    MachineDevice,
    ServiceGeneration,
    ServiceId,
    StackFile,
    TaskId,
    split_task_id,
    task_id,
)
from homeport.seams import SystemClock
from homeport.spec import Driver, StackSpec
from tests.testbed.engine import RunningEngine

_numbers = itertools.count(1)
NODE = "here"


class Actor:
    """A task of the stack that is on stage."""

    def __init__(self, stage: Stage, work: Work) -> None:
        self._stage = stage
        self.work = work

    @property
    def task(self) -> TaskId:
        return self.work.task

    def inspect(self) -> dict[str, Any]:
        """What the engine says of its container."""
        service, slot, n = self.task.rsplit("/", 2)
        found: dict[str, Any] = self._stage.engine.inspect_container(f"{service}.{slot}.{n}")
        return found

    @property
    def host_config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect()["HostConfig"]
        return found

    async def run(self, command: str) -> str:
        """What a shell command inside says, on either output, its exit code at the end if bad."""
        terminal = await self._stage.runtime.exec(
            self.task,
            ["sh", "-c", command],
            tty=False,
            interactive=False,
            user="",
            working_dir="",
            env=(),
        )
        said = b"".join([chunk.data async for chunk in terminal])
        code = await terminal.exit_code()
        await terminal.close()
        return said.decode().strip() + (f" [{code}]" if code else "")

    async def output(self) -> str:
        """What it wrote to its end."""
        logs = self._stage.runtime.logs(self.task, follow=True, tail=-1, since_ms=0, until_ms=0)
        return b"".join([chunk.data async for chunk in logs]).decode()

    async def seen(self) -> Seen | None:
        return await self._stage.runtime.inspect(self.task)


class Stage:
    """One stack on one engine."""

    def __init__(self, engine: RunningEngine, directory: Path) -> None:
        self.directory = directory
        self.engine = engine.client()
        self.name = f"play{os.getpid():x}{next(_numbers):x}"
        self.told: list[str] = []
        self.machine: tuple[MachineDevice, ...] = ()
        # Engines on one machine share its routes, and would answer for each other.
        self.subnet = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self.settings = DockerSettings(
            cluster=f"cluster-{self.name}",
            node=NODE,
            state_dir=directory / "state",
            secrets_dir=directory / "secrets",
            base_url=engine.host,
        )
        self.runtime = DockerRuntime(self.settings, SystemClock())

    def read(self, text: str) -> tuple[StackSpec, list[Work]]:
        """Load a Compose file and place one task of each of its services here."""
        path = self.directory / "compose.yaml"
        path.write_text(text)
        compiled = compose.load(
            [str(path)],
            directory=str(self.directory),
            project_name=self.name,
            environment={"SUBNET": self.subnet},
            machine=compose.Machine(is_known=True, node=NODE),
        )
        assert not compiled.missing
        files = tuple(
            StackFile(stack=self.name, digest=hashlib.sha256(file.data).hexdigest(), spec=file)
            for file in compiled.stack.files
        )
        return compiled.stack, [
            self._work(compiled.stack, position, files)
            for position in range(len(compiled.stack.services))
        ]

    def _work(self, stack: StackSpec, position: int, files: tuple[StackFile, ...]) -> Work:
        spec = stack.services[position]
        service = ServiceId(f"{stack.name}-{spec.name}-1")
        digests = {(file.spec.kind, file.spec.name): file.digest for file in files}
        mounts = tuple(
            replace(mount, digest=digests[mount.kind, mount.source])
            for mount in spec.container.files
        )
        return Work(
            assignment=Assignment(
                task=task_id(service, 1, 1),
                stack=stack.name,
                service_name=spec.name,
                generation=1,
                desired=Desired.RUNNING,
                # The first device that will do, which nobody else takes here.
                grants=tuple(
                    Grant(device=device.id, need=index)
                    for index, need in enumerate(devices.needs(spec))
                    for device in self.machine
                    if devices.matches(need, device)
                ),
            ),
            devices=self.machine,
            generation=ServiceGeneration(
                service=service,
                generation=1,
                spec=replace(spec, container=replace(spec.container, files=mounts)),
            ),
            networks=stack.networks,
            volumes=stack.volumes,
            files=files,
        )

    def write(self, keys: str, rest: str = "", *, image: str = "hp/sleeper:1") -> str:
        """A Compose file with one service, `app`, that has these keys."""
        keys = textwrap.dedent(keys).strip()
        body = textwrap.indent(f"<<: {keys}" if keys.startswith("{") else keys, "    ")
        top = textwrap.dedent(rest).strip()
        has_image = "image:" in keys
        given = "" if has_image else f"    image: {image}\n"
        return f"services:\n  app:\n{given}{body}\n{top}\n"

    async def up(self, keys: str, rest: str = "", *, image: str = "hp/sleeper:1") -> Actor:
        """Start the one service that has these keys."""
        return (await self.up_all(self.write(keys, rest, image=image)))["app"]

    async def up_all(self, text: str) -> dict[str, Actor]:
        """Start one task of each service of a Compose file; by the services' names."""
        _, works = self.read(text)
        actors = {}
        for work in works:
            assert work.generation.spec.driver is Driver.DOCKER
            await self.runtime.prepare(work, self.told.append)
            await self.runtime.create(work)
            await self.runtime.start(work.task)
            actors[work.assignment.service_name] = Actor(self, work)
        return actors

    async def up_work(self, work: Work, *, image_id: str, n: int = 1) -> Actor:
        """Start a task with an image that `apply --build` built."""
        service, slot, _ = split_task_id(work.task)
        container = replace(work.generation.spec.container, image_id=image_id)
        work = replace(
            work,
            assignment=replace(work.assignment, task=task_id(service, slot, n)),
            generation=replace(
                work.generation, spec=replace(work.generation.spec, container=container)
            ),
        )
        await self.runtime.prepare(work, self.told.append)
        await self.runtime.create(work)
        await self.runtime.start(work.task)
        return Actor(self, work)

    async def create(self, keys: str, rest: str = "") -> Actor:
        """As `up`, without the start."""
        _, works = self.read(self.write(keys, rest))
        await self.runtime.prepare(works[0], self.told.append)
        await self.runtime.create(works[0])
        return Actor(self, works[0])

    async def close(self) -> None:
        """Remove what was on stage, and its volumes, which a runtime never does."""
        for seen in await self.runtime.list():
            await self.runtime.remove(seen.task)
        await self.runtime.clean(self.name)
        label = {"label": [f"dev.homeport.cluster={self.settings.cluster}"]}
        for volume in self.engine.volumes(filters=label)["Volumes"] or ():
            self.engine.remove_volume(volume["Name"])
        await self.runtime.close()


def may_give_all_privileges() -> bool:
    """Whether this machine has all of root's powers to give; a container that tests may not."""
    own = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return own == (1 << last + 1) - 1
