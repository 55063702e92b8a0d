"""What the contract tests share: one etcd for a whole run."""

from collections.abc import Iterator

import pytest

from tests.contract.stores import quick_etcd
from tests.testbed.etcd import Etcd


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """One member; tests keep apart by prefixes. Compacting is for all."""
    with quick_etcd() as etcd:
        yield etcd
