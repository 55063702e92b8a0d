"""How `make test` shares the suite out among several processes (pytest-xdist, `-n 3`).

About half of the suite's time is waiting for engines, so three processes on two cores need far
less than half of the time of one. What a newcomer gets wrong: letting any process take any
test. A file's tests stay together and in their order, because they share engines, labs and
clusters that take seconds to set up; a fixture of the session is made once in each process.
The longest files begin, so that none of them is all that is left at the end. What only
computes (the simulation's seeds) yields to the rest by `nice`, or leases would end meanwhile.

Without `-n` nothing of this takes part.
"""

from __future__ import annotations

from typing import Any

import pytest

LONGEST_FIRST = (
    "tests/faults/test_faults.py",
    "tests/simulation/test_seeds.py",
    "tests/simulation/test_mutations.py",
    "tests/integration/test_deploy_compose.py",
    "tests/e2e/test_compose_cluster.py",
    "tests/integration/test_testbed.py",
    "tests/integration/test_transfer.py",
    "tests/integration/test_ring_etcd.py",
    "tests/integration/test_store_etcd_members.py",
    "tests/contract/test_store_differential.py",
    "tests/e2e/test_stacks.py",
    "tests/integration/test_crashes.py",
    "tests/integration/test_guard.py",
    "tests/e2e/test_recovery.py",
    "tests/integration/test_up.py",
    "tests/integration/test_leader.py",
    "tests/unit/homeport/compose/test_hostile.py",
    "tests/e2e/test_build.py",
    "tests/unit/homeport/test_codec.py",
    "tests/contract/test_docker_limits.py",
    "tests/contract/test_docker_networking.py",
    "tests/contract/test_docker_options.py",
    "tests/contract/test_runtime.py",
    "tests/contract/test_store_leases.py",
    "tests/contract/test_store_watches.py",
    "tests/contract/test_store.py",
    "tests/integration/test_ring.py",
    "tests/integration/test_cli.py",
    "tests/contract/test_docker_faults.py",
    "tests/loops/scheduler/test_election.py",
    "tests/integration/test_prometheus.py",
    "tests/integration/test_testbed_engines.py",
    "tests/integration/test_testbed_hosts.py",
    "tests/integration/test_testbed_traces.py",
)
"""By what they took (`make test ARGS=--durations=50`); one that is missing costs time only."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called in the process that shares out."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # by how many tests a file has; the order below counts
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same in every process that runs tests: they are dealt out by their place."""
    if hasattr(config, "workerinput"):
        places = {file: place for place, file in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
