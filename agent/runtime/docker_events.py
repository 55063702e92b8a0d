"""What happens to our containers, as the engine tells it, in one thread.

Only containers of our cluster are asked for, and only the actions that change what a task
is: health checks run commands all the time, whose events would drown the rest. A
newcomer's mistake: the stream of an engine that died ends without an error, and what
happened until the next connection is lost; so every (re)connection says "look at all".
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from typing import Any

import structlog

from agent.runtime.base import LABEL_CLUSTER, RuntimeEvent, Unavailable
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.docker_streams import Connection
from agent.runtime.labels import task_of
from homeport.model import TaskId

ACTIONS = ("start", "die", "destroy", "oom", "health_status", "pause", "unpause", "rename")
QUIET_SECONDS = 300.0
"""A stream without any event is made anew after this long: it may be dead unnoticed."""
RECONNECT_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


class Events:
    """The stream of events of one engine, for one reader."""

    def __init__(self, engine: Engine, cluster: str, node: str = "") -> None:
        """Must be made in the running event loop of its reader."""
        self._engine = engine
        self._cluster = cluster
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        # An event only says "look again", so a second one for the same task adds nothing:
        # what waits is never more than there are containers.
        self._waiting: dict[TaskId | None, RuntimeEvent] = {}
        self._connection = Connection()
        self._ended = threading.Event()

    async def read(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Events for ever; "look at everything" (task None) first and after each gap."""
        threading.Thread(target=self._run, name="docker-events", daemon=True).start()
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                waiting, self._waiting = self._waiting, {}
                for event in waiting.values():
                    yield event
        finally:
            self._ended.set()
            self._connection.cut()

    def _run(self) -> None:
        tries = 0
        while not self._ended.is_set():
            self._connection = Connection()
            try:
                self._engine.in_thread(self._listen, "listen for events", QUIET_SECONDS)
                tries = 0
            except Unavailable:
                pass
            except Exception:
                # Listening goes on, whatever the engine sent; but a mistake of ours shows.
                log.exception("cannot read the engine's events; connects again")
            finally:
                self._connection.release()
            if self._ended.wait(RECONNECT_SECONDS[min(tries, len(RECONNECT_SECONDS) - 1)]):
                return
            tries += 1
            # It may be another engine now, of another version.
            self._engine.reconnect()

    def _listen(self, client: Client) -> None:
        filters = {
            "type": ["container"],
            "label": [f"{LABEL_CLUSTER}={self._cluster}"],
            "event": list(ACTIONS),
        }
        response = client.ask(
            "GET", "/events", params={"filters": json.dumps(filters)}, stream=True
        )
        self._connection.hold(response, quiet_seconds=QUIET_SECONDS)
        self._tell(RuntimeEvent(task=None, action="connected"))
        for line in response.iter_lines(chunk_size=None):
            if line:
                self._pass_on(json.loads(line))

    def _pass_on(self, message: dict[str, Any]) -> None:
        task = task_of((message.get("Actor") or {}).get("Attributes"), self._cluster, self._node)
        if task is not None:
            action = str(message.get("Action", "")).partition(":")[0]
            self._tell(RuntimeEvent(task=task, action=action))

    def _tell(self, event: RuntimeEvent) -> None:
        def now() -> None:
            self._waiting[event.task] = event
            self._arrived.set()

        try:
            self._loop.call_soon_threadsafe(now)
        except RuntimeError:
            # The loop is closed, and its reader with it.
            self._ended.set()
