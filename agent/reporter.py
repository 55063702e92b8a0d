"""What the scheduler is still to be told: the latest status of each task, events, volumes.

A status replaces the one before it, so a slow scheduler gets the truth and not the past.
One report is in flight at a time; what comes meanwhile is gathered into the next. A
newcomer's mistake: forgetting a removed task before its report was acknowledged; its
record at the scheduler would then stay for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from homeport import digests
from homeport.lifecycle import TaskState
from homeport.model import Event, TaskId, TaskStatus, Volume

RETRY_SECONDS = 5.0
"""A report that is not acknowledged by then is sent again."""
SPACING_SECONDS = 0.2
"""Between two reports, so that what a deployment brings is told together."""
EVENTS_MAX = 500
STATUSES_MAX = 1_000
"""Of one report that is not complete; keeps a message far below gRPC's 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One report."""

    sequence: int
    is_complete: bool
    statuses: tuple[TaskStatus, ...]
    events: tuple[Event, ...]
    volumes: tuple[Volume, ...]
    running_hash: bytes


class Reporter:
    """Gathers what is to be told, and keeps it until it was heard."""

    def __init__(self) -> None:
        self.statuses: dict[TaskId, TaskStatus] = {}
        """The latest of every task that is here."""
        self.on_removed: Callable[[TaskId], None] = lambda _: None
        """Called when the scheduler has taken in that a task is gone."""
        self.foreign: frozenset[TaskId] = frozenset()
        """Tasks that a scheduler does not list: told, but part of no hash that it could compare."""
        self._untold: dict[TaskId, None] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._volumes: dict[tuple[str, str], Volume] = {}
        self._untold_volumes: dict[tuple[str, str], None] = {}
        self._is_whole = False
        self._complete_asked = True
        self._flying: Batch | None = None
        self._retry_at = 0.0  # the loop's time
        self._next_at = 0.0
        self._sequence = 0
        self._wake = asyncio.Event()
        self._sum = digests.Sum()  # of the statuses that are not foreign

    @property
    def running_hash(self) -> bytes:
        """The hash of all statuses; empty while some of them are on their way.

        A scheduler compares it with its own belief, and there is nothing to compare before
        it has heard.
        """
        if self._flying is not None or self._untold or not self._is_whole:
            return b""
        return self._sum.digest

    def leave_out(self, foreign: frozenset[TaskId]) -> None:
        """These tasks are here by no word of the scheduler's."""
        for task in foreign - self.foreign:
            self._uncount(task)
        returned, self.foreign = self.foreign - foreign, foreign
        for task in returned:
            self._count(task)

    def put(self, status: TaskStatus) -> None:
        """Tell this of its task. What is behind the last known status is dropped."""
        known = self.statuses.get(status.task)
        if known == status or (known is not None and status.order < known.order):
            return
        self._uncount(status.task)
        self.statuses[status.task] = status
        self._count(status.task)
        self._untold[status.task] = None
        self._wake.set()

    def tell(self, event: Event) -> None:
        """Tell this event; of very many the oldest are lost."""
        self._events.append(event)
        self._wake.set()

    def made(self, volume: Volume) -> None:
        """Tell that the volume is on this node."""
        key = (volume.stack, volume.name)
        if key not in self._volumes:
            self._volumes[key] = volume
            self._untold_volumes[key] = None
            self._wake.set()

    def be_whole(self) -> None:
        """All that runs here has been seen: from now on a report can be complete."""
        self._is_whole = True
        self._wake.set()

    def ask_complete(self) -> None:
        """The scheduler wants to hear of everything."""
        self._complete_asked = True
        self._wake.set()

    def lose(self) -> None:
        """The session ended: what is in flight may not have been heard."""
        flying, self._flying = self._flying, None
        if flying is None:
            return
        for status in flying.statuses:
            if status.task in self.statuses:
                self._untold[status.task] = None
        self._events.extendleft(reversed(flying.events[: EVENTS_MAX - len(self._events)]))
        for volume in flying.volumes:
            self._untold_volumes[volume.stack, volume.name] = None
        self._complete_asked = self._complete_asked or flying.is_complete
        self._wake.set()

    def acknowledge(self, sequence: int) -> None:
        """The scheduler has taken in the report of this number."""
        flying = self._flying
        if flying is None or flying.sequence != sequence:
            return
        self._flying = None
        for status in flying.statuses:
            if status.state is TaskState.REMOVED and self.statuses.get(status.task) == status:
                self._uncount(status.task)
                del self.statuses[status.task]
                self.on_removed(status.task)
        self._wake.set()

    async def next(self) -> Batch:
        """The next report to send: when there is news and none is in flight.

        At once after a quiet while; otherwise `SPACING_SECONDS` after the one before.
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._wake.clear()
            if self._flying is None and self._has_news():
                if (early := self._next_at - clock()) > 0:
                    await asyncio.sleep(early)
                    continue
                self._next_at = clock() + SPACING_SECONDS
                self._retry_at = clock() + RETRY_SECONDS
                return self._take()
            try:
                async with asyncio.timeout_at(self._retry_at if self._flying else None):
                    await self._wake.wait()
            except TimeoutError:
                self.lose()

    def _has_news(self) -> bool:
        return bool(
            self._untold
            or self._events
            or self._untold_volumes
            or (self._complete_asked and self._is_whole)
        )

    def _take(self) -> Batch:
        is_complete = self._complete_asked and self._is_whole
        if is_complete:
            tasks = tuple(self.statuses)
            self._complete_asked = False
            self._untold_volumes = dict.fromkeys(self._volumes)
        else:
            tasks = tuple(self._untold)[:STATUSES_MAX]
        for task in tasks:
            self._untold.pop(task, None)
        self._sequence += 1
        self._flying = Batch(
            sequence=self._sequence,
            is_complete=is_complete,
            statuses=tuple(self.statuses[task] for task in tasks),
            events=tuple(self._events),
            volumes=tuple(self._volumes[key] for key in self._untold_volumes),
            running_hash=self._sum.digest,
        )
        self._events.clear()
        self._untold_volumes.clear()
        return self._flying

    def _count(self, task: TaskId) -> None:
        if task in self.statuses and task not in self.foreign:
            self._sum.add(digests.running_line(self.statuses[task]))

    def _uncount(self, task: TaskId) -> None:
        if task in self.statuses and task not in self.foreign:
            self._sum.remove(digests.running_line(self.statuses[task]))
