"""Group commit: what waits while the disk is busy goes together in the next transaction.

One group is with the writer's thread at a time. A commit is answered when the disk has it.
Whoever waits too long is told what is known: a commit that is still queued is taken back
(Unavailable), one that the thread has may still take place (Ambiguous).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scheduler.store.base import Ambiguous, StoreError, Unavailable
from scheduler.store.sqlite.grouping import Committed, Proposal

GROUP_WRITES_MAX = 10_000
"""Writes carried by one transaction; more wait for the next."""
QUEUE_COMMITS_MAX = 20_000
"""Commits that may wait; more are refused at once."""

Answers = Sequence[Committed | StoreError]


@dataclass(eq=False, slots=True)
class _Waiting:
    proposal: Proposal
    answer: asyncio.Future[int]


class CommitQueue:
    """Commits on their way to the writer's thread, and their answers on the way back."""

    def __init__(
        self,
        path: Path,
        *,
        thread: ThreadPoolExecutor,
        commit_all: Callable[[Sequence[Proposal]], Answers],
        on_committed: Callable[[Proposal, Committed], None],
    ) -> None:
        """`commit_all` runs in `thread`; `on_committed` is told of each commit, in order."""
        self._path = path
        self._thread = thread
        self._commit_all = commit_all
        self._on_committed = on_committed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._flying = False

    async def propose(self, proposal: Proposal, seconds: float) -> int:
        """Have it made durable; returns its revision, or raises what `Store.commit` does."""
        if len(self._queue) >= QUEUE_COMMITS_MAX:
            raise Unavailable("too many commits wait for the disk: nothing was written")
        waiting = self._add(proposal)
        try:
            async with asyncio.timeout(seconds):
                return await waiting.answer
        except TimeoutError:
            slow = f"the disk of the store {self._path} did not answer in {seconds:g} s"
            if self._withdraw(waiting):
                raise Unavailable(f"{slow}: nothing was written") from None
            raise Ambiguous(f"{slow}: the commit may still take place") from None
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise

    def post(self, proposal: Proposal) -> None:
        """The same for a commit whose answer nobody waits for."""
        self._add(proposal).answer.add_done_callback(lambda answer: answer.exception())

    def close(self, reason: str) -> None:
        """Refuse what still waits; what the thread has is answered when it is done."""
        while self._queue:
            _refuse(self._queue.popleft(), Unavailable(f"{reason}: nothing was written"))

    def _add(self, proposal: Proposal) -> _Waiting:
        waiting = _Waiting(proposal, self._loop.create_future())
        self._queue.append(waiting)
        self._fly()
        return waiting

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a commit back from the queue; False when the thread has it already."""
        try:
            self._queue.remove(waiting)
        except ValueError:
            return False
        return True

    def _fly(self) -> None:
        """Hand what waits to the thread, unless it is busy."""
        if self._flying or not self._queue:
            return
        group: list[_Waiting] = []
        writes = 0
        while self._queue and writes < GROUP_WRITES_MAX:
            group.append(self._queue.popleft())
            writes += len(group[-1].proposal.writes)
        self._flying = True
        proposals = [waiting.proposal for waiting in group]
        flight = self._loop.run_in_executor(self._thread, self._commit_all, proposals)
        flight.add_done_callback(lambda flown: self._land(group, flown))

    def _land(self, group: Sequence[_Waiting], flown: asyncio.Future[Answers]) -> None:
        self._flying = False
        if (mistake := flown.exception()) is not None:  # of ours: SQLite's are answers
            for waiting in group:
                _refuse(waiting, Ambiguous(f"the store {self._path} failed: {mistake!r}"))
        else:
            for waiting, answer in zip(group, flown.result(), strict=True):
                if isinstance(answer, StoreError):
                    _refuse(waiting, answer)
                    continue
                self._on_committed(waiting.proposal, answer)
                if not waiting.answer.done():
                    waiting.answer.set_result(answer.revision)
        self._fly()


def _refuse(waiting: _Waiting, error: StoreError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
