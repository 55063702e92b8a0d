"""A store whose requests are timed and counted; everything else is the store's own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

from scheduler.metrics import Metrics
from scheduler.store.base import Batch, Fence, Listing, Record, Store, StoreError, Write


class MeasuredStore:
    """Delegates to a store and measures what may take time."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        """The backend is the first word of the store's name."""
        self._store = store
        self._metrics = metrics
        self._backend = store.name.partition(" ")[0]

    @property
    def name(self) -> str:
        """See Store."""
        return self._store.name

    @property
    def operations_max(self) -> int:
        """See Store."""
        return self._store.operations_max

    @contextmanager
    def _timed(self, op: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except StoreError as error:
            kind = type(error).__name__
            self._metrics.store_failures.labels(op, self._backend, kind).inc()
            raise
        finally:
            spent = time.perf_counter() - began
            self._metrics.store_requests.labels(op, self._backend).observe(spent)

    async def get(self, key: str) -> Record | None:
        """See Store."""
        with self._timed("get"):
            return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        """See Store."""
        with self._timed("list"):
            return await self._store.list(prefix)

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """See Store. A commit without writes is a check of the fence."""
        with self._timed("commit" if writes else "check"):
            return await self._store.commit(writes, fence)

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """See Store."""
        return self._store.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        """See Store."""
        with self._timed("compact"):
            await self._store.compact(revision)

    async def grant(self, ttl_seconds: float) -> int:
        """See Store."""
        with self._timed("grant"):
            return await self._store.grant(ttl_seconds)

    async def keep_alive(self, lease: int) -> float:
        """See Store."""
        with self._timed("keep_alive"):
            return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """See Store."""
        with self._timed("revoke"):
            await self._store.revoke(lease)

    async def close(self) -> None:
        """See Store."""
        await self._store.close()
