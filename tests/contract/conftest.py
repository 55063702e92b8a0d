"""What the contract tests share: stores of each backend, and a stage for each Compose file."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from scheduler.store.base import Store
from tests.contract.stage import Stage
from tests.contract.stores import BACKENDS, Opener, quick_etcd
from tests.testbed.engine import RunningEngine
from tests.testbed.etcd import Etcd


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """One member; tests keep apart by prefixes. Compacting is for all."""
    with quick_etcd() as etcd:
        yield etcd


@pytest.fixture(params=BACKENDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Makes stores of one backend; each is another, and empty."""
    return BACKENDS[request.param](request, tmp_path)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Store]:
    """One of each backend, closed when the test ends."""
    made = await opener.open()
    yield made
    await made.close()


@pytest.fixture
async def stage(docker_engine: RunningEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    """Removed with all that it made when the test ends."""
    made = Stage(docker_engine, tmp_path)
    yield made
    await made.close()
