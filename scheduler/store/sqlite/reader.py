"""The connection that reads: records, lists, history.

All methods block and are called in the reader's thread. Every row read is checked against
its checksum, so that a bit flipped on disk becomes Damaged and never a wrong decision.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scheduler.store.base import (
    EMPTY_REVISION,
    LEADER_KEY,
    Batch,
    Compacted,
    Fence,
    Listing,
    Record,
    StoreChange,
)
from scheduler.store.compare import refusal
from scheduler.store.sqlite.faults import damaged, translating
from scheduler.store.sqlite.grouping import POSITION_BITS, checksum_of, revision_of, sequence_of

HISTORY_ROWS = 2_000
"""Rows read at once for a watcher that is far behind."""
COMMIT_ROWS_MAX = 1 << POSITION_BITS
"""No commit has more rows."""
SEQUENCE_END = (1 << 63) - 1
"""Behind all that can be in the log."""

Row = tuple[bytes, int, bytes | None, int | None, int]
"""key, sequence, value, created, checksum."""


def last_revision(file: sqlite3.Connection) -> int:
    """The revision of the last commit."""
    last = file.execute("SELECT max(sequence) FROM log").fetchone()[0] or 0
    # The last commit may have been a delete, of which compaction leaves nothing in the log.
    return max(EMPTY_REVISION, revision_of(last), compacted_revision(file))


def compacted_revision(file: sqlite3.Connection) -> int:
    """How far the history is gone."""
    return int(file.execute("SELECT revision FROM compacted").fetchone()[0])


class Reader:
    """Reads what is durable."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Read through `connection`, which can do nothing else from here on."""
        self._path = path
        self._file = connection
        self._file.execute("PRAGMA query_only = ON")

    def get(self, key: str) -> Record | None:
        """One record."""
        with translating(self._path):
            row = self._file.execute(
                "SELECT records.key, records.sequence, value, log.created, checksum"
                " FROM records LEFT JOIN log USING (sequence) WHERE records.key = ?",
                (key.encode(),),
            ).fetchone()
        return self._record(row) if row else None

    def list(self, prefix: str) -> Listing:
        """All records under a prefix, by key."""
        with self._one_state():
            rows = self._file.execute(
                "SELECT records.key, records.sequence, value, log.created, checksum"
                " FROM records LEFT JOIN log USING (sequence)"
                " WHERE records.key >= ? AND records.key < ? ORDER BY records.key",
                _range(prefix),
            )
            records = tuple(self._record(row) for row in rows)
            return Listing(records, last_revision(self._file))

    def check_fence(self, fence: Fence | None) -> int:
        """The present revision. Raises Fenced."""
        with self._one_state():
            leader = self.get(LEADER_KEY) if fence else None
            created = leader.created if leader else 0
            if error := refusal((), fence, lambda _: (created, created)):
                raise error
            return last_revision(self._file)

    def history(self, prefix: str, after: int) -> Batch:
        """The next whole commits behind revision `after`. Raises Compacted."""
        with self._one_state():
            compacted = compacted_revision(self._file)
            if after < compacted:
                raise Compacted(compacted)
            rows = self._log_rows(after + 1, None, HISTORY_ROWS)
            if len(rows) == HISTORY_ROWS:  # the last commit may not be whole
                last = revision_of(rows[-1][1])
                whole = [row for row in rows if revision_of(row[1]) < last]
                rows = whole or self._log_rows(last, last, COMMIT_ROWS_MAX)
        changes: list[StoreChange] = []
        revision = after
        for row in rows:
            record = self._record(row)
            revision = record.version
            if record.key.startswith(prefix):
                changes.append(StoreChange(record.key, row[2], revision, record.created))
        return Batch(revision, tuple(changes))

    def _log_rows(self, first: int, last: int | None, count: int) -> Sequence[Row]:
        """Rows of the commits from `first` to `last`, None: to the end; at most so many."""
        end = SEQUENCE_END if last is None else sequence_of(last + 1)
        return self._file.execute(
            "SELECT key, sequence, value, created, checksum FROM log"
            " WHERE sequence >= ? AND sequence < ? ORDER BY sequence LIMIT ?",
            (sequence_of(first), end, count),
        ).fetchall()

    def _record(self, row: Row) -> Record:
        key, sequence, value, created, checksum = row
        if created is None or checksum_of(sequence, key, value, created) != checksum:
            name = key.decode(errors="replace")
            raise damaged(self._path, f"the checksum of {name!r} at {sequence} does not match")
        return Record(key.decode(), value or b"", revision_of(sequence), created)

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """Several reads of the same state."""
        with translating(self._path):
            self._file.execute("BEGIN")
            try:
                yield
            finally:
                self._file.rollback()


def _range(prefix: str) -> tuple[bytes, bytes]:
    """From the prefix to the first key behind all that start with it, in byte order."""
    start = prefix.encode()
    # The last byte of UTF-8 is never 0xff, so it can be raised by one.
    end = start[:-1] + bytes((start[-1] + 1,)) if start else b"\xff"
    return start, end
