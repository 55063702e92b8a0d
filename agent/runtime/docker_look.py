"""Finding our containers on an engine and saying what they do.

The one place that decides which container belongs to a task: it has our labels, and the
task's name. One that somebody renamed by hand stays the task's, and gets its name back: the
name is what keeps a second one from being made. A newcomer's mistakes: looking by name
alone; believing the engine's "running" without /proc, and disbelieving it too soon (for
some milliseconds after a process ended the engine does not know, and its exit code is worth
waiting for).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import structlog

from agent.runtime import cgroups, docker_seen
from agent.runtime.base import LABEL_CLUSTER, Gone, RuntimeFailure, Sample, Seen
from agent.runtime.docker_engine import Client, Engine, Hung
from agent.runtime.docker_images import Images
from agent.runtime.labels import (
    LABEL_POST_START,
    LABEL_PRE_STOP,
    container_name,
    generation_of,
    task_of,
)
from agent.runtime.proc import cgroup_names, is_container_alive
from homeport.model import TaskId

INSPECT_SECONDS = 10.0
CATCH_UP_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How long the engine may take to notice that a process has ended, before it is disbelieved."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What never changes of a container that we have met."""

    container_id: str
    generation: int
    post_start: str = ""  # hooks, as `labels.dump_hooks` wrote them
    pre_stop: str = ""
    stop_signal: str = ""


class Containers:
    """The containers of our cluster on one engine."""

    def __init__(self, engine: Engine, images: Images, cluster: str, node: str = "") -> None:
        """`images` knows the digests."""
        self._engine = engine
        self._images = images
        self._cluster = cluster
        self._node = node  # empty: no other agent uses this engine
        self._known: dict[TaskId, Known] = {}
        self._pids: dict[TaskId, int] = {}

    def remember(self, task: TaskId, known: Known) -> None:
        """A container was made."""
        self._known[task] = known

    def forget(self, task: TaskId) -> None:
        """The container is gone, or may be."""
        self._known.pop(task, None)
        self._pids.pop(task, None)

    async def known(self, task: TaskId) -> Known:
        """The task's container, without a question where it is known. Raises Gone."""
        if task not in self._known and await self.inspected(task) is None:
            raise Gone(f"there is no container of task {task}")
        return self._known[task]

    async def list(self) -> tuple[Seen, ...]:
        """All of them, sorted by task. Raises Unavailable."""
        filters = json.dumps({"label": [f"{LABEL_CLUSTER}={self._cluster}"]})

        def request(client: Client) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.ask_json(
                "GET", "/containers/json", params={"all": 1, "filters": filters}
            )
            return found

        listed = await self._engine.call("list the containers", request)
        async with asyncio.TaskGroup() as background:
            looks = [background.create_task(self._look_at_listed(each)) for each in listed]
        found = [seen for look in looks if (seen := look.result()) is not None]
        return tuple(sorted(found, key=lambda seen: seen.task))

    async def _look_at_listed(self, listed: dict[str, Any]) -> Seen | None:
        task = task_of(listed.get("Labels"), self._cluster, self._node)
        if task is None:
            return None
        try:
            return await self.inspect(task, container_id=listed["Id"])
        except Hung:
            # One container that hangs must hide neither the others nor itself.
            return docker_seen.seen_in_list(listed, cluster=self._cluster)

    async def inspect(self, task: TaskId, *, container_id: str = "") -> Seen | None:
        """This task's container; None when there is none. Raises Unavailable.

        `container_id` is where to look if nothing of ours has its name.
        """
        for pause in (*CATCH_UP_SECONDS, 0.0):
            inspected = await self.inspected(task, container_id=container_id)
            if inspected is None:
                return None
            claim = docker_seen.claimed_process(inspected)
            is_alive = claim is not None and (
                not self._engine.sees_processes
                or is_container_alive(claim.pid, inspected["Id"], claim.started_ms)
            )
            if claim is None or is_alive or not pause:
                break
            await asyncio.sleep(pause)
        else:
            raise AssertionError("the last round breaks")
        seen = docker_seen.seen(
            inspected,
            cluster=self._cluster,
            is_alive=is_alive,
            image_digest=await self._images.digest(inspected["Image"]),
        )
        if seen is not None and seen.pid:
            self._pids[task] = seen.pid
        else:
            self._pids.pop(task, None)
        return seen

    async def inspected(self, task: TaskId, *, container_id: str = "") -> dict[str, Any] | None:
        """The engine's account of this task's container; None when there is none of ours."""
        name = container_name(task)
        inspected = await self._inspected(task, name)
        if inspected is None:
            known = self._known.get(task)
            container_id = known.container_id if known is not None else container_id
            if container_id:
                inspected = await self._inspected(task, container_id)
            if inspected is not None:
                await self._name_again(task, inspected)
        if inspected is None:
            self.forget(task)
            return None
        labels = docker_seen.labels_of(inspected)
        self._known[task] = Known(
            container_id=inspected["Id"],
            generation=generation_of(labels),
            post_start=labels.get(LABEL_POST_START, ""),
            pre_stop=labels.get(LABEL_PRE_STOP, ""),
            stop_signal=inspected["Config"].get("StopSignal") or "",
        )
        return inspected

    async def _inspected(self, task: TaskId, name_or_id: str) -> dict[str, Any] | None:
        """What is there, if it is this task's."""

        def request(client: Client) -> dict[str, Any]:
            found: dict[str, Any] = client.ask_json("GET", f"/containers/{name_or_id}/json")
            return found

        name = container_name(task)
        try:
            inspected = await self._engine.call(
                f"look at the container {name}", request, seconds=INSPECT_SECONDS, container=name
            )
        except Gone:
            return None
        is_its = task_of(docker_seen.labels_of(inspected), self._cluster, self._node) == task
        return inspected if is_its else None

    async def _name_again(self, task: TaskId, inspected: dict[str, Any]) -> None:
        """Give back the name that somebody took from it; where that is taken, it goes without."""
        name = container_name(task)

        def request(client: Client) -> None:
            path = f"/containers/{inspected['Id']}/rename"
            client.ask("POST", path, params={"name": name})

        found = str(inspected.get("Name", "")).lstrip("/")
        try:
            await self._engine.call(
                f"rename the container {found}", request, seconds=INSPECT_SECONDS, container=name
            )
        except RuntimeFailure as error:
            log.warning(
                "a container was renamed by hand and stays the task's, under that name",
                task=task, name=found, why=str(error),
            )  # fmt: skip
        else:
            log.warning(
                "a container was renamed by hand and has its name again", task=task, name=found
            )

    async def is_name_free(self, name: str) -> bool:
        """Whether no container has this name, be it ours or not."""

        def request(client: Client) -> None:
            client.ask("GET", f"/containers/{name}/json")

        try:
            await self._engine.call("look at a container", request)
        except Gone:
            return True
        return False

    async def sample(self, task: TaskId) -> Sample | None:
        """Its counters now, from files: no engine is asked about a container that is known."""
        known, pid = self._known.get(task), self._pids.get(task, 0)
        if known is None or not pid or not cgroup_names(pid, known.container_id):
            seen = await self.inspect(task)
            if seen is None or not seen.pid:
                return None
            pid = seen.pid
        return cgroups.sample(pid) if self._engine.sees_processes else None
