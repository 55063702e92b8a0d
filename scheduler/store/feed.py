"""The last commits, in memory, and any number of watchers that read them at their own pace.

A watcher has a position and nothing else: no queue of its own that could grow, nothing
registered that a cancelled one would leave behind. Whoever is so slow that its position
has left the memory reads the backend's own history (`older`), or hears Compacted where
there is none. All watchers wait on one event, replaced with every commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from scheduler.store.base import EMPTY_REVISION, Batch, Compacted, StoreChange, Unavailable

BATCH_CHANGES_MAX = 1_000
"""Commits are merged into one batch for a watcher that is behind, until it has so many."""
CHANGE_OVERHEAD_BYTES = 300
"""What a change weighs in memory besides its key and value, roughly."""


class Feed:
    """Commits in order, as told by the backend that made them."""

    def __init__(
        self,
        revision: int,
        *,
        revisions_max: int,
        memory_bytes_max: int | None = None,
        older: Callable[[str, int], Awaitable[Batch]] | None = None,
    ) -> None:
        """Start behind `revision`, with at most so many commits and bytes held.

        `older(prefix, after)` returns the next batch behind revision `after` from the
        backend's history, or raises Compacted.
        """
        self._commits: deque[tuple[StoreChange, ...]] = deque()
        self._weight = 0
        self._forgotten = revision  # commits up to here are not in memory
        self._compacted = 0  # and up to here nowhere
        self._revisions_max = revisions_max
        self._memory_bytes_max = memory_bytes_max
        self._older = older
        self._moved = asyncio.Event()
        self._closed: str | None = None

    @property
    def revision(self) -> int:
        """The last commit that was told."""
        return self._forgotten + len(self._commits)

    def tell(self, revision: int, changes: tuple[StoreChange, ...]) -> None:
        """Add the next commit."""
        assert revision == self.revision + 1, "commits are told in order, each once"
        self._commits.append(changes)
        self._weight += _weight(changes)
        while len(self._commits) > self._revisions_max or (
            self._memory_bytes_max is not None and self._weight > self._memory_bytes_max
        ):
            self._drop()
        self._wake()

    def forget(self, revision: int) -> None:
        """Commits up to `revision` were compacted: nobody can start before it any more."""
        self._compacted = max(self._compacted, revision)
        while self._commits and self._forgotten < revision:
            self._drop()
        self._wake()

    def close(self, reason: str) -> None:
        """End every watch with Unavailable."""
        self._closed = reason
        self._wake()

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` behind revision `after`; see `Store.watch`."""
        position = max(after, EMPTY_REVISION)
        while True:
            if self._closed is not None:
                raise Unavailable(self._closed)
            if position < self._compacted:
                raise Compacted(self._compacted)
            moved = self._moved
            if position >= self.revision:
                await moved.wait()
                continue
            if position >= self._forgotten:
                batch = self._recent(prefix, position)
            elif self._older is not None:
                batch = await self._older(prefix, position)
            else:
                raise Compacted(self._forgotten)
            position = batch.revision
            if batch.changes:
                yield batch

    def _recent(self, prefix: str, after: int) -> Batch:
        changes: list[StoreChange] = []
        revision = after
        while revision < self.revision and len(changes) < BATCH_CHANGES_MAX:
            commit = self._commits[revision - self._forgotten]
            changes.extend(change for change in commit if change.key.startswith(prefix))
            revision += 1
        return Batch(revision, tuple(changes))

    def _drop(self) -> None:
        self._weight -= _weight(self._commits.popleft())
        self._forgotten += 1

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


def _weight(changes: tuple[StoreChange, ...]) -> int:
    return sum(
        len(change.key) + len(change.value or b"") + CHANGE_OVERHEAD_BYTES for change in changes
    )
