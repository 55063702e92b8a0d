"""The backends that must answer alike, and how a test gets an empty store of each."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homeport.seams import SystemClock, system_randomness
from scheduler.store.base import Store
from scheduler.store.etcd import EtcdOptions, EtcdStore
from scheduler.store.memory import MemoryStore
from scheduler.store.sqlite import SqliteStore
from tests.testbed.etcd import Etcd


class Opener:
    """Opens stores of one backend."""

    least_lease_seconds = 0.3
    """The shortest lease that it makes."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.request = request
        self.folder = folder
        self.number = itertools.count()

    async def open(self) -> Store:
        """A new and empty one; etcd's revision may be any."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def unwritten(self) -> AsyncIterator[Store]:
        """One to which nothing was ever written."""
        store = await self.open()
        try:
            yield store
        finally:
            await store.close()


class MemoryOpener(Opener):
    async def open(self) -> Store:
        return MemoryStore(SystemClock())


class SqliteOpener(Opener):
    async def open(self) -> Store:
        path = self.folder / f"store{next(self.number)}.db"
        return await SqliteStore.open(path, clock=SystemClock())


class EtcdOpener(Opener):
    least_lease_seconds = 1.0

    async def open(self) -> Store:
        return etcd_store(self.request.getfixturevalue("etcd"))

    @contextlib.asynccontextmanager
    async def unwritten(self) -> AsyncIterator[Store]:
        with quick_etcd() as etcd:
            store = etcd_store(etcd)
            try:
                yield store
            finally:
                await store.close()


BACKENDS: dict[str, type[Opener]] = {
    "memory": MemoryOpener,
    "sqlite": SqliteOpener,
    "etcd": EtcdOpener,
}


def quick_etcd() -> Etcd:
    """One member that elects itself soon, and so grants leases of a second."""
    return Etcd(arguments=["--heartbeat-interval=20", "--election-timeout=200"])


_prefixes = itertools.count()


def etcd_store(etcd: Etcd, *, prefix: str = "") -> EtcdStore:
    """A store on it, under `prefix` or one that nobody else has."""
    options = EtcdOptions(endpoints=etcd.endpoints, prefix=prefix or f"/test/{next(_prefixes)}/")
    return EtcdStore(options, system_randomness())
