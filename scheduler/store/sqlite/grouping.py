"""What a group of commits writes, decided before anything is written.

Each commit of the group is judged as if those before it had taken place, and falls alone
if it conflicts. So one SQLite transaction, and one wait for the disk, carries them all.

Every put and delete becomes one row of the log; its *sequence* is (revision, position)
in one integer. A key's record points to its last row, and a row to the one it replaced
(`previous`), which is what compaction deletes. So a value is written to disk once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from scheduler.store.base import Fence, LeaseGone, StoreChange, StoreError, Write
from scheduler.store.compare import refusal

POSITION_BITS = 20


def sequence_of(revision: int, position: int = 0) -> int:
    """The place in the log of a commit's row."""
    return revision << POSITION_BITS | position


def revision_of(sequence: int) -> int:
    """The commit that a row of the log belongs to."""
    return sequence >> POSITION_BITS


def checksum_of(sequence: int, key: bytes, value: bytes | None, created: int) -> int:
    """What is stored beside a row so that a flipped bit is noticed."""
    start = crc32(b"%d %d %d" % (sequence, created, value is None))
    return crc32(value or b"", crc32(key, start))


class Pointer(NamedTuple):
    """A row of `records`: where the log has the key's value."""

    sequence: int
    created: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """One commit that waits to be made."""

    writes: tuple[Write, ...]
    fence: Fence | None = None
    lease_gone: int = 0  # a lease that it names and that had ended when it was handed in
    skip_changed: bool = False  # the end of a lease: deletes what is still as expected


@dataclass(frozen=True, slots=True)
class Committed:
    """One commit that was made; without changes it wrote nothing."""

    revision: int
    changes: tuple[StoreChange, ...] = ()


class LogRow(NamedTuple):
    """A row of `log`."""

    sequence: int
    key: bytes
    value: bytes | None
    created: int
    previous: int
    checksum: int


class Group:
    """Collects the rows of successive commits. `lookup` reads a key's pointer from the file."""

    def __init__(self, revision: int, lookup: Callable[[bytes], Pointer | None]) -> None:
        """Begin behind `revision`."""
        self.revision = revision
        self.rows: list[LogRow] = []
        self.pointers: dict[bytes, Pointer | None] = {}  # as they are after the group
        self.leased: dict[bytes, bool] = {}  # of the keys that the group writes
        self._lookup = lookup

    def add(self, proposal: Proposal) -> Committed | StoreError:
        """Judge one commit and take up its rows, or say why not."""
        writes = proposal.writes
        if proposal.skip_changed:
            writes = tuple(write for write in writes if self._seen(write.key)[0] == write.expect)
        elif error := refusal(writes, proposal.fence, self._seen):
            return error
        elif proposal.lease_gone:
            return LeaseGone(proposal.lease_gone)
        revision = self.revision + 1
        changes: list[StoreChange] = []
        for write in writes:
            key = write.key.encode()
            pointer = self._pointer(key)
            if write.value is None and pointer is None:
                continue
            created = 0
            if write.value is not None:
                created = pointer.created if pointer else revision
            sequence = sequence_of(revision, len(changes))
            previous = pointer.sequence if pointer else 0
            checksum = checksum_of(sequence, key, write.value, created)
            self.rows.append(LogRow(sequence, key, write.value, created, previous, checksum))
            self.pointers[key] = None if write.value is None else Pointer(sequence, created)
            self.leased[key] = bool(write.lease)
            changes.append(StoreChange(write.key, write.value, revision, created))
        if changes:
            self.revision = revision
        return Committed(self.revision, tuple(changes))

    def upserts(self) -> list[tuple[bytes, int, int, bool]]:
        """The rows of `records` to write: key, sequence, created, leased."""
        return [
            (key, *pointer, leased)
            for key, leased in self.leased.items()
            if (pointer := self.pointers[key])
        ]

    def deletes(self) -> list[tuple[bytes]]:
        """The keys to delete from `records`."""
        return [(key,) for key in self.leased if not self.pointers[key]]

    def _pointer(self, key: bytes) -> Pointer | None:
        if key not in self.pointers:
            self.pointers[key] = self._lookup(key)
        return self.pointers[key]

    def _seen(self, key: str) -> tuple[int, int]:
        pointer = self._pointer(key.encode())
        return (revision_of(pointer.sequence), pointer.created) if pointer else (0, 0)
