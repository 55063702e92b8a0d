"""The durable store, as the scheduler sees it: etcd's semantics behind one small Protocol.

Keys are text such as `tasks/<service id>/<slot>/<n>`; values are `codec` records. One
counter, the *revision*, rises by one with every commit and orders everything. A record's
*version* is the revision of its last write. There is exactly one way to write, `commit`,
and it compares: what a writer did not see, it cannot overwrite.

All backends (memory, sqlite, etcd) pass `tests/contract/test_store*.py`.

    StoreError
    ├── Conflict      a record is not at the version that the writer saw: look again
    ├── Fenced        the writer leads no more: stop, drop all authority
    ├── LeaseGone     the lease of a write has ended: nothing was written, grant a new one
    ├── Compacted     the revision asked for is gone from the history: list anew
    ├── TooLarge      a commit has more bytes than the store takes: nothing was written
    ├── Unavailable   the store does not answer, or refuses writes: nothing was written
    ├── Ambiguous     it is not known whether the commit took place: read `write_id` back
    └── Damaged       the data on disk cannot be trusted; the message says what to do
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

ANY = -1
"""An expected version that matches whatever there is, also nothing."""
ABSENT = 0
"""An expected version that matches only a key that does not exist."""
EMPTY_REVISION = 1
"""The revision of a store that was never written, as etcd has it; the first commit is 2."""
LEADER_KEY = "leader"
"""The key whose create-revision is the epoch."""
SCHEDULERS = "schedulers/"
"""Prefix of the keys, HOST:PORT, under which schedulers say that they are there; leased."""
WRITE_ID_KEY = "meta/write-id/"
"""Prefix of the keys under which a writer leaves the id of its last commit."""
OPERATIONS_MAX = 120
"""Writes in one commit, the same for all backends: etcd's stock limit is 128."""


class StoreError(Exception):
    """The store did not do what was asked."""


class Conflict(StoreError):
    """A record is not at the version that the writer saw."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys`: those whose version differs, where the backend can tell; else all compared."""
        super().__init__(f"changed meanwhile: {', '.join(keys)}")
        self.keys = tuple(keys)


class Fenced(StoreError):
    """The leader key is not the one that this writer holds."""


class LeaseGone(StoreError):
    """The lease that a write names has ended or never was. Nothing was written."""

    def __init__(self, lease: int) -> None:
        """`lease`: the one that is gone."""
        super().__init__(f"lease {lease} has ended")
        self.lease = lease


class Compacted(StoreError):
    """That revision is no longer in the history."""

    def __init__(self, oldest: int) -> None:
        """`oldest`: the first revision from which a watch can still start."""
        super().__init__(f"history before revision {oldest} is gone")
        self.oldest = oldest


class TooLarge(StoreError):
    """A commit has more bytes than the store takes at once. Nothing was written."""

    def __init__(self, size_bytes: int, bytes_max: int) -> None:
        """Both count keys, values and compares."""
        super().__init__(
            f"{size_bytes:,} bytes are too much for one commit, {bytes_max:,} fit: make the"
            " largest of its objects (a config or secret, mostly) smaller"
        )


class Unavailable(StoreError):
    """The store does not answer or refuses writes. Nothing was written."""


class Ambiguous(StoreError):
    """The commit may or may not have taken place."""


class Damaged(StoreError):
    """The data on disk cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as the store has it."""

    key: str
    value: bytes
    version: int  # revision of the last write
    created: int  # revision of the write that made it


@dataclass(frozen=True, slots=True)
class Write:
    """One proposed write: `value` None deletes. `expect` is the version that the writer saw."""

    key: str
    value: bytes | None
    expect: int = ANY
    lease: int = 0  # the key goes when this lease ends; 0: it stays


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of leadership that a commit carries."""

    epoch: int  # create-revision of LEADER_KEY


@dataclass(frozen=True, slots=True)
class Listing:
    """All records under a prefix, at one revision."""

    records: tuple[Record, ...]  # by key
    revision: int


@dataclass(frozen=True, slots=True)
class StoreChange:
    """One key that a commit wrote; `value` None: it was deleted."""

    key: str
    value: bytes | None
    version: int
    created: int  # 0 for a delete


@dataclass(frozen=True, slots=True)
class Batch:
    """What one or more successive commits wrote; `revision` is the last of them.

    A batch without changes says that everything up to `revision` has been told.
    """

    revision: int
    changes: tuple[StoreChange, ...]


class Store(Protocol):
    """Durable, ordered, compare-and-commit. Every call ends within its deadline (5 s)."""

    @property
    def name(self) -> str:
        """For people: `sqlite /var/lib/homeport/store.db`."""
        ...

    @property
    def operations_max(self) -> int:
        """How many writes one commit may carry."""
        ...

    async def get(self, key: str) -> Record | None:
        """The record as it is now (linearizable), or None."""
        ...

    async def list(self, prefix: str) -> Listing:
        """All records whose key starts with `prefix`, at one revision (linearizable)."""
        ...

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """Make all writes, or none, durably, and return their revision.

        Raises Fenced, Conflict, LeaseGone (looked for in this order), TooLarge, Unavailable,
        Ambiguous; ValueError for more than `operations_max` writes, an empty key or a key
        written twice. A commit without writes checks the fence and returns the present
        revision, as does one that only deletes what is not there.
        """
        ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` behind revision `after`, in order, gap-free.

        Close it (`contextlib.aclosing`) when leaving it early. Never ends by itself:
        resumes over reconnects. Raises Compacted when `after` is
        older than the history, Unavailable when the store closes. Batches hold whole
        commits.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`; present records stay."""
        ...

    async def grant(self, ttl_seconds: float) -> int:
        """A new lease; keys written with it are deleted when it ends. Returns its id.

        It may last longer than asked for, never shorter; `keep_alive` tells how long.
        """
        ...

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease; returns the seconds that it now has, 0 when it is gone."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease now, deleting its keys. Not an error when it is gone."""
        ...

    async def close(self) -> None:
        """Let go of files and connections; watches end with Unavailable."""
        ...
