"""The asyncio side of the SQLite store: the queue of commits, leases, watches, deadlines.

Group commit: while the writer's thread waits for the disk, commits queue up, and the
next transaction carries all of them. A commit is answered, and told to the watchers,
when the disk has it. Leases are in memory and renewed without a write; with the file
locked, a lease cannot outlive this process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from homeport.seams import Clock
from scheduler.store.base import (
    OPERATIONS_MAX,
    Ambiguous,
    Batch,
    Fence,
    Listing,
    Record,
    StoreError,
    Unavailable,
    Write,
)
from scheduler.store.compare import check
from scheduler.store.feed import Feed
from scheduler.store.leases import Leases
from scheduler.store.sqlite.database import Database
from scheduler.store.sqlite.grouping import Committed, Proposal

T = TypeVar("T")

CALL_SECONDS = 5.0
"""How long a caller waits for the disk before it is told that there is no answer."""
LIST_SECONDS = 60.0
"""The same for a list, which may read millions of records, and for opening and closing."""
GROUP_WRITES_MAX = 10_000
"""Writes carried by one transaction; more wait for the next."""
QUEUE_COMMITS_MAX = 20_000
RECENT_REVISIONS = 2_000
RECENT_BYTES = 4_194_304
"""What is kept in memory for watchers; those further behind read the file."""
TIMER_SECONDS_MIN = 0.001
RETRY_SECONDS = 1.0
"""How soon the keys of an ended lease are tried again when they could not be deleted."""


@dataclass(eq=False, slots=True)
class _Waiting:
    proposal: Proposal
    answer: asyncio.Future[int]


class SqliteStore:
    """One file, one scheduler; see `Store`."""

    def __init__(
        self,
        path: Path,
        database: Database,
        clock: Clock,
        writer: ThreadPoolExecutor,
        reader: ThreadPoolExecutor,
    ) -> None:
        """Use `SqliteStore.open`."""
        self._path = path
        self._database = database
        self._clock = clock
        self._writer = writer
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._flying: asyncio.Future[Sequence[Committed | StoreError]] | None = None
        self._leases = Leases()
        self._overdue: dict[str, int] = {}  # keys of ended leases, still to be deleted
        self._timer: asyncio.TimerHandle | None = None
        self._closed: str | None = None
        self._feed = Feed(
            database.writer.revision,
            revisions_max=RECENT_REVISIONS,
            memory_bytes_max=RECENT_BYTES,
            older=self._older,
        )

    @classmethod
    async def open(
        cls, path: Path, *, clock: Clock, history_revisions: int = 10_000
    ) -> SqliteStore:
        """Open the store at `path`, or make it; it remembers its last commits for watches.

        Raises Unavailable when another process holds it or the disk does not let us, and
        Damaged when its content cannot be trusted.
        """
        writer = ThreadPoolExecutor(1, "store-writer")
        reader = ThreadPoolExecutor(1, "store-reader")
        try:
            loop = asyncio.get_running_loop()
            database = await loop.run_in_executor(
                writer, lambda: Database(path, history_revisions=history_revisions)
            )
        except BaseException:
            writer.shutdown(wait=False)
            reader.shutdown(wait=False)
            raise
        return cls(path, database, clock, writer, reader)

    @property
    def name(self) -> str:
        """For people."""
        return f"sqlite {self._path}"

    @property
    def operations_max(self) -> int:
        """How many writes one commit may carry."""
        return OPERATIONS_MAX

    async def get(self, key: str) -> Record | None:
        """The record as the disk has it, or None."""
        return await self._read(lambda: self._database.reader.get(key))

    async def list(self, prefix: str) -> Listing:
        """All records whose key starts with `prefix`."""
        return await self._read(lambda: self._database.reader.list(prefix), LIST_SECONDS)

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """Make all writes, or none, durably; see `Store.commit`."""
        writes = tuple(writes)
        check(writes, self.operations_max)
        if not writes:
            # Not behind the writer: a disk that is slow or full must not end a leadership.
            return await self._read(lambda: self._database.reader.check_fence(fence))
        self._check_open()
        now = self._clock.boottime()
        gone = (
            write.lease
            for write in writes
            if write.value is not None
            and write.lease
            and not self._leases.is_alive(write.lease, now)
        )
        return await self._propose(Proposal(writes, fence, lease_gone=next(gone, 0)))

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` behind revision `after`."""
        return self._feed.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`."""
        self._check_open()
        compact = self._database.writer.compact
        self._feed.forget(await self._call(self._writer, lambda: compact(revision), LIST_SECONDS))

    async def grant(self, ttl_seconds: float) -> int:
        """A new lease, in memory."""
        self._check_open()
        lease = self._leases.grant(ttl_seconds, self._clock.boottime())
        self._set_timer()
        return lease

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease, in memory; 0 when it is gone."""
        self._check_open()
        return self._leases.keep_alive(lease, self._clock.boottime())

    async def revoke(self, lease: int) -> None:
        """End a lease now, deleting its keys."""
        self._check_open()
        if keys := self._leases.end(lease):
            self._overdue |= keys
            try:
                await self._propose(_deletion(keys))
            finally:
                self._set_timer()

    async def close(self) -> None:
        """Let go of the file; watches, and commits that still wait, end with Unavailable."""
        if self._closed is not None:
            return
        self._closed = f"the store {self._path} is closed"
        self._feed.close(self._closed)
        if self._timer is not None:
            self._timer.cancel()
        while self._queue:
            self._refuse(self._queue.popleft(), Unavailable(f"{self._closed}: nothing was written"))
        try:
            # Behind whatever each thread is doing now.
            await self._call(self._reader, lambda: None, LIST_SECONDS)
            await self._call(self._writer, self._database.close, LIST_SECONDS)
        finally:
            self._reader.shutdown(wait=False)
            self._writer.shutdown(wait=False)

    # ------------------------------------------------------------------ group commit

    async def _propose(self, proposal: Proposal) -> int:
        if len(self._queue) >= QUEUE_COMMITS_MAX:
            raise Unavailable("too many commits wait for the disk: nothing was written")
        waiting = _Waiting(proposal, self._loop.create_future())
        self._queue.append(waiting)
        self._fly()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await waiting.answer
        except TimeoutError:
            slow = f"the disk of the store {self._path} did not answer in {CALL_SECONDS:.0f} s"
            if self._withdraw(waiting):
                raise Unavailable(f"{slow}: nothing was written") from None
            raise Ambiguous(f"{slow}: the commit may still take place") from None
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a commit back from the queue; False when the writer has it already."""
        try:
            self._queue.remove(waiting)
        except ValueError:
            return False
        return True

    def _fly(self) -> None:
        """Hand what waits to the writer's thread, unless it is busy."""
        if self._flying is not None or not self._queue:
            return
        group: list[_Waiting] = []
        writes = 0
        while self._queue and writes < GROUP_WRITES_MAX:
            group.append(self._queue.popleft())
            writes += len(group[-1].proposal.writes)
        proposals = [waiting.proposal for waiting in group]
        self._flying = self._loop.run_in_executor(
            self._writer, self._database.writer.commit_all, proposals
        )
        self._flying.add_done_callback(lambda flown: self._land(group, flown))

    def _land(
        self,
        group: Sequence[_Waiting],
        flown: asyncio.Future[Sequence[Committed | StoreError]],
    ) -> None:
        self._flying = None
        if (error := flown.exception()) is not None:  # only by a mistake of ours
            for waiting in group:
                self._refuse(waiting, Ambiguous(f"the store {self._path} failed: {error!r}"))
        else:
            for waiting, answer in zip(group, flown.result(), strict=True):
                if isinstance(answer, StoreError):
                    self._refuse(waiting, answer)
                else:
                    self._accept(waiting, answer)
        if self._closed is None:
            self._fly()

    def _accept(self, waiting: _Waiting, committed: Committed) -> None:
        if committed.changes:
            self._feed.tell(committed.revision, committed.changes)
            leases = {write.key: write.lease for write in waiting.proposal.writes}
            for change in committed.changes:
                deleted = change.value is None
                lease = 0 if deleted else leases[change.key]
                if not self._leases.written(change.key, change.version, lease):
                    self._end_keys({change.key: change.version})  # it ended meanwhile
        if waiting.proposal.skip_changed:
            for write in waiting.proposal.writes:
                if self._overdue.get(write.key) == write.expect:
                    del self._overdue[write.key]
        if not waiting.answer.done():
            waiting.answer.set_result(committed.revision)

    def _refuse(self, waiting: _Waiting, error: StoreError) -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

    # ------------------------------------------------------------------ leases

    def _set_timer(self) -> None:
        """Wake when the next lease ends, or to try again what could not be deleted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed is not None:
            return
        delays = [RETRY_SECONDS] if self._overdue else []
        if (deadline := self._leases.next_deadline()) is not None:
            delays.append(max(deadline - self._clock.boottime(), TIMER_SECONDS_MIN))
        if delays:
            self._timer = self._loop.call_later(min(delays), self._on_timer)

    def _on_timer(self) -> None:
        keys: dict[str, int] = {}
        for lease in self._leases.ended(self._clock.boottime()):
            keys |= self._leases.end(lease)
        self._end_keys(keys | self._overdue)
        self._set_timer()

    def _end_keys(self, keys: dict[str, int]) -> None:
        """Delete the keys of leases that ended; the timer tries again what fails."""
        if not keys:
            return
        self._overdue |= keys
        waiting = _Waiting(_deletion(keys), self._loop.create_future())
        waiting.answer.add_done_callback(lambda answer: answer.exception())
        self._queue.append(waiting)
        self._fly()

    # ------------------------------------------------------------------ threads

    async def _read(self, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        self._check_open()
        return await self._call(self._reader, call, seconds)

    async def _older(self, prefix: str, after: int) -> Batch:
        while True:
            try:
                return await self._read(lambda: self._database.reader.history(prefix, after))
            except Unavailable:  # a watch outlives a slow disk
                await asyncio.sleep(RETRY_SECONDS)
                self._check_open()

    async def _call(self, thread: ThreadPoolExecutor, call: Callable[[], T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await self._loop.run_in_executor(thread, call)
        except TimeoutError:
            raise Unavailable(
                f"the disk of the store {self._path} did not answer in {seconds:.0f} s"
            ) from None

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Unavailable(self._closed)


def _deletion(keys: dict[str, int]) -> Proposal:
    writes = tuple(Write(key, None, expect=version) for key, version in sorted(keys.items()))
    return Proposal(writes, skip_changed=True)
