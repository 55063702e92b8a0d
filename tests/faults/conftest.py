"""The cluster that all faults share, and the verdict at its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.alone import CONCLUDED, conclude
from tests.faults.etcd import QUOTA_BYTES
from tests.faults.world import World
from tests.testbed import requirements

RESULTS = Path(__file__).resolve().parents[2] / "build" / "faults"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a fault that shares the one cluster there is no history of it to judge."""
    if any("test_faults.py::test_recovers[" in item.nodeid for item in items):
        return
    gone = [item for item in items if "test_faults.py::test_history[" in item.nodeid]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def results() -> Path:
    """Where history, verdict and timeline are left: build/faults."""
    if problem := requirements.missing(requirements.ENGINE, root=True):
        pytest.fail(problem, pytrace=False)
    return RESULTS


@pytest.fixture(scope="module")
def world(results: Path) -> Iterator[World]:
    """One cluster for one fault after the other."""
    with World(results / "shared", quota_bytes=QUOTA_BYTES) as world:
        yield world


@pytest.fixture(scope="module")
def verdict(world: World) -> dict[str, Any]:
    """What the checkers say of all that was recorded so far; also drawn."""
    return conclude(world)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Keep the counts while they are at hand; the line comes after pytest's own."""
    if not CONCLUDED:
        return
    stats = terminalreporter.stats
    passed, failed = len(stats.get("passed", [])), len(stats.get("failed", []))
    errors = len(stats.get("error", []))
    seen = sum(check["seen"] for each in CONCLUDED for check in each["checks"].values())
    config.stash[LINE] = (
        f"faults: {sum(each['faults'] for each in CONCLUDED)} injected, {passed} passed,"
        f" {failed + errors} failed, {sum(each['violations'] for each in CONCLUDED)} violations"
        f" in {seen} records; {RESULTS / 'shared' / 'timeline.html'}"
    )


LINE = pytest.StashKey[str]()


def pytest_unconfigure(config: pytest.Config) -> None:
    if line := config.stash.get(LINE, None):
        config.get_terminal_writer().line(line)
