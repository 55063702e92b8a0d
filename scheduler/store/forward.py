"""A store that notices when its past was swapped: revisions only ever go forward.

An etcd that is restored from a snapshot behind our back answers as if nothing had happened,
with a lower revision. What this process holds is then of a store that no more exists, so the
process has to end and read anew. A newcomer's mistake: judging by reads. A member of etcd that
was paused may answer a read from the past (etcd issue 20418), and is right again a moment
later; a write that lands in the past is certain, a check has to come several times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from scheduler.store.base import Batch, Fence, Listing, Record, Store, StoreError, Write

CHECKS = 4
"""So many checks in a row, at least a second apart each, that speak of the past."""


class WentBack(StoreError):
    """The store holds less than it did: it was restored from a snapshot."""


class ForwardStore:
    """Delegates to a store, and remembers the highest revision that it answered with."""

    def __init__(self, store: Store) -> None:
        """Nothing was seen yet."""
        self._store = store
        self._seen = 0
        self._checks = 0
        self._why = ""
        self._swapped = asyncio.Event()

    async def swapped(self) -> WentBack:
        """Return, with the sentence to end with, when the store's past was swapped."""
        await self._swapped.wait()
        return WentBack(self._why)

    def condemn(self, why: str) -> None:
        """Somebody has seen otherwise that the store's past was swapped; `why` is a sentence."""
        self._why = why
        self._swapped.set()

    @property
    def name(self) -> str:
        """See Store."""
        return self._store.name

    @property
    def operations_max(self) -> int:
        """See Store."""
        return self._store.operations_max

    async def get(self, key: str) -> Record | None:
        """See Store."""
        return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        """See Store."""
        listing = await self._store.list(prefix)
        self._seen = max(self._seen, listing.revision)
        return listing

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """See Store."""
        before = self._seen
        revision = await self._store.commit(writes, fence)
        if revision >= before:
            self._checks = 0
        else:
            self._checks += 1
            if writes or self._checks >= CHECKS:
                self.condemn(
                    f"the store {self.name} went back from revision {before} to {revision}: it was"
                    " restored from a snapshot. This scheduler ends, to read it anew when it is"
                    " started again. Containers run on"
                )
                raise WentBack(self._why)
        self._seen = max(self._seen, revision)
        return revision

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """See Store."""
        return self._store.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        """See Store."""
        await self._store.compact(revision)

    async def grant(self, ttl_seconds: float) -> int:
        """See Store."""
        return await self._store.grant(ttl_seconds)

    async def keep_alive(self, lease: int) -> float:
        """See Store."""
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """See Store."""
        await self._store.revoke(lease)

    async def close(self) -> None:
        """See Store."""
        await self._store.close()
