"""The asyncio side of the SQLite store: leases, watches, deadlines, the two threads.

Leases are in memory and renewed without a write; with the file locked, a lease cannot
outlive this process. The keys of a lease that ended are deleted by a commit like any
other, and tried again until the disk takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from homeport.seams import Clock
from scheduler.store.base import (
    OPERATIONS_MAX,
    Batch,
    Fence,
    Listing,
    Record,
    Unavailable,
    Write,
)
from scheduler.store.compare import check
from scheduler.store.feed import Feed
from scheduler.store.leases import Leases
from scheduler.store.sqlite.database import Database
from scheduler.store.sqlite.grouping import Committed, Proposal
from scheduler.store.sqlite.queue import CommitQueue

T = TypeVar("T")

CALL_SECONDS = 5.0
"""How long a caller waits for the disk before it is told that there is no answer."""
LIST_SECONDS = 60.0
"""The same for a list, which may read millions of records, and for opening and closing."""
RECENT_REVISIONS = 2_000
RECENT_BYTES = 4_194_304
"""What is kept in memory for watchers; those further behind read the file."""
TIMER_SECONDS_MIN = 0.001
RETRY_SECONDS = 1.0
"""How soon the keys of an ended lease are tried again when they could not be deleted."""


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
        self._queue = CommitQueue(
            path,
            thread=writer,
            commit_all=database.writer.commit_all,
            on_committed=self._on_committed,
        )
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
        proposal = Proposal(writes, fence, lease_gone=next(gone, 0))
        return await self._queue.propose(proposal, CALL_SECONDS)

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
                await self._queue.propose(_deletion(keys), CALL_SECONDS)
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
        self._queue.close(self._closed)
        try:
            # Behind whatever each thread is doing now.
            await self._call(self._reader, lambda: None, LIST_SECONDS)
            await self._call(self._writer, self._database.close, LIST_SECONDS)
        finally:
            self._reader.shutdown(wait=False)
            self._writer.shutdown(wait=False)

    def _on_committed(self, proposal: Proposal, committed: Committed) -> None:
        if committed.changes:
            self._feed.tell(committed.revision, committed.changes)
        leases = {write.key: write.lease for write in proposal.writes}
        for change in committed.changes:
            lease = leases[change.key] if change.value is not None else 0
            if not self._leases.written(change.key, change.version, lease):
                self._end_keys({change.key: change.version})  # it ended meanwhile
        if proposal.skip_changed:
            for write in proposal.writes:
                if self._overdue.get(write.key) == write.expect:
                    del self._overdue[write.key]

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
        if not keys or self._closed is not None:
            return
        self._overdue |= keys
        self._queue.post(_deletion(keys))

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
