"""What the contract tests share: one etcd for a whole run, and a stage for each Compose file."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.stage import Stage
from tests.contract.stores import quick_etcd
from tests.testbed.engine import RunningEngine
from tests.testbed.etcd import Etcd


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """One member; tests keep apart by prefixes. Compacting is for all."""
    with quick_etcd() as etcd:
        yield etcd


@pytest.fixture
async def stage(docker_engine: RunningEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    """Removed with all that it made when the test ends."""
    made = Stage(docker_engine, tmp_path)
    yield made
    await made.close()
