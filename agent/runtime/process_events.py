"""How the agent learns that something happened to a plain process.

Keepers write a line into a FIFO when health changes or their program ends; and the end of
each keeper is watched through a pidfd, as a keeper that was killed can write nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from agent.runtime.base import RuntimeEvent
from homeport.model import TaskId


class ProcessEvents:
    """What happened to the processes of one agent, for one reader."""

    def __init__(self, fifo: Path) -> None:
        """`fifo` is made when it is first needed."""
        self._fifo = fifo
        self._waiting: dict[TaskId | None, RuntimeEvent] = {}
        self._arrived: asyncio.Event | None = None
        self._watched: dict[int, int] = {}  # pid of a keeper -> pidfd
        self._rest = b""

    def make(self) -> None:
        """Have the FIFO. Raises OSError."""
        self._fifo.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(self._fifo, 0o600)

    def watch(self, task: TaskId, keeper: int) -> None:
        """Tell the reader, if there is one, when this keeper has ended."""
        if self._arrived is None or keeper in self._watched:
            return
        try:
            descriptor = os.pidfd_open(keeper)
        except OSError:
            self.tell(RuntimeEvent(task=task, action="die"))
            return
        self._watched[keeper] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._keeper_ended, task, keeper)

    def tell(self, event: RuntimeEvent) -> None:
        """Pass on an event; another one for the same task adds nothing."""
        self._waiting[event.task] = event
        if self._arrived is not None:
            self._arrived.set()

    async def read(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Events for ever, beginning with "look at everything"."""
        self.make()
        loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        # For reading and writing, so that the FIFO never ends while there is no writer.
        descriptor = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        loop.add_reader(descriptor, self._read_fifo, descriptor)
        self.tell(RuntimeEvent(task=None, action="connected"))
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                waiting, self._waiting = self._waiting, {}
                for event in waiting.values():
                    yield event
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self.close()

    def close(self) -> None:
        """Watch nobody any more."""
        for descriptor in self._watched.values():
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()
        self._arrived = None

    def _read_fifo(self, descriptor: int) -> None:
        try:
            lines = (self._rest + os.read(descriptor, 65536)).split(b"\n")
        except BlockingIOError:
            return
        self._rest = lines.pop()
        for line in lines:
            task, _, action = line.decode(errors="replace").rpartition(" ")
            self.tell(RuntimeEvent(task=TaskId(task), action=action))

    def _keeper_ended(self, task: TaskId, keeper: int) -> None:
        descriptor = self._watched.pop(keeper)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self.tell(RuntimeEvent(task=task, action="die"))
