"""The connection that writes: groups of commits, compaction, the end of old leases.

All methods block and are called in the writer's thread. What a group writes is decided
in `grouping`, before anything is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from scheduler.store.base import StoreError, Write
from scheduler.store.sqlite.faults import translated, translating
from scheduler.store.sqlite.grouping import Committed, Group, Pointer, Proposal, sequence_of
from scheduler.store.sqlite.reader import compacted_revision, last_revision

COMPACT_SLACK = 1_000
"""Old history goes in lumps of so many revisions: forgetting a little with every commit
would write one page more each time."""
COMPACT_STEP = 64
"""Revisions forgotten per transaction while at it, so that no commit waits long for it."""
FREE_PAGES_MAX = 256
"""Free pages that the file may keep for reuse."""
VACUUM_PAGES_MIN = 64
"""Pages given back to the file system per step of compaction, at least."""


class Writer:
    """Makes commits durable."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, *, history_revisions: int
    ) -> None:
        """Write through `connection`, keeping about so many commits of history."""
        self._path = path
        self._file = connection
        self._lookup = connection.cursor()  # one for all, as it is asked for every write
        self._history_revisions = history_revisions
        self._compacted = compacted_revision(connection)
        self._compacting = False
        self.revision = last_revision(connection)

    def commit_all(self, proposals: Sequence[Proposal]) -> Sequence[Committed | StoreError]:
        """Make a group of commits durable with one wait for the disk; an answer for each.

        What fails the transaction fails every commit that it would have carried.
        """
        committing = False
        try:
            self._file.execute("BEGIN IMMEDIATE")
            group = Group(self.revision, self._pointer)
            answers = [group.add(proposal) for proposal in proposals]
            compacted = self._compacted
            if group.rows:
                self._write(group)
                compacted = self._compact_a_little(group.revision)
            committing = True
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            failure = translated(error, self._path, committing=committing)
            return [failure] * len(proposals)
        finally:
            self._file.rollback()  # what COMMIT did not end
        self.revision, self._compacted = group.revision, compacted
        return answers

    def compact(self, revision: int) -> int:
        """Forget the history up to and including `revision`; returns how far that is."""
        with translating(self._path):
            self._file.execute("BEGIN IMMEDIATE")
            try:
                compacted = self._compact(min(revision, self.revision))
                self._file.execute("COMMIT")
            finally:
                self._file.rollback()
        self._compacted = compacted
        return compacted

    def end_old_leases(self) -> None:
        """Delete what was leased by a process that is gone: leases live in memory."""
        keys = self._file.execute("SELECT key FROM records WHERE leased ORDER BY key").fetchall()
        if keys:
            writes = tuple(Write(key.decode(), None) for (key,) in keys)
            (answer,) = self.commit_all([Proposal(writes)])
            if isinstance(answer, StoreError):
                raise answer

    def _write(self, group: Group) -> None:
        self._file.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", group.rows)
        self._file.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
            " sequence = excluded.sequence, created = excluded.created, leased = excluded.leased",
            group.upserts(),
        )
        self._file.executemany("DELETE FROM records WHERE key = ?", group.deletes())

    def _compact_a_little(self, revision: int) -> int:
        """Keep the history at its length, in steps small enough for a commit to carry."""
        surplus = revision - self._history_revisions - self._compacted
        self._compacting = surplus > (0 if self._compacting else COMPACT_SLACK)
        if not self._compacting:
            return self._compacted
        step = COMPACT_STEP + 2 * (revision - self.revision)
        return self._compact(self._compacted + min(step, surplus))

    def _compact(self, revision: int) -> int:
        """Delete what commits up to `revision` replaced; returns what is compacted now."""
        if revision <= self._compacted:
            return self._compacted
        span = (sequence_of(self._compacted + 1), sequence_of(revision + 1))
        self._file.execute(
            "DELETE FROM log WHERE sequence IN (SELECT previous FROM log"
            " WHERE sequence >= ? AND sequence < ? AND previous > 0)",
            span,
        )
        self._file.execute(
            "DELETE FROM log WHERE sequence >= ? AND sequence < ? AND value IS NULL", span
        )
        self._file.execute("UPDATE compacted SET revision = ?", (revision,))
        free = self._file.execute("PRAGMA freelist_count").fetchone()[0]
        if free > FREE_PAGES_MAX:
            for _ in range(max(VACUUM_PAGES_MIN, free // 8)):
                # One by one: Python's module stops after the first page of a larger number.
                self._file.execute("PRAGMA incremental_vacuum(1)")
        return revision

    def _pointer(self, key: bytes) -> Pointer | None:
        row = self._lookup.execute(
            "SELECT sequence, created FROM records WHERE key = ?", (key,)
        ).fetchone()
        return Pointer(*row) if row else None
