"""The rows made small: each is placed as it says, by a whole scheduler on a real etcd."""

import asyncio
from dataclasses import replace

import pytest

from tests.bench import results
from tests.bench.placement import rig, scheduler_perf
from tests.bench.placement.rig import Took
from tests.bench.placement.scheduler_perf import Found
from tests.bench.placement.scheduler_perf_rows import ROWS
from tests.testbed.etcd import Etcd

SMALL = 0.003
LARGE = rig.pod("large", cpu=5_000)


@pytest.fixture(scope="module")
def server():
    with Etcd() as etcd:
        yield etcd


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace("/", "-"))
def test_a_small_edition_of_the_row_is_placed_as_it_says(server, row):
    found = asyncio.run(scheduler_perf.run(server, row.shrunk(SMALL)))
    assert found.row.pods == max(1, round(row.pods * SMALL))
    assert found.rate > 0


@pytest.mark.parametrize("way", [scheduler_perf.TENS, scheduler_perf.ALONE])
def test_pods_may_be_in_many_services(server, way):
    row = next(row for row in ROWS if row.name == scheduler_perf.SINGLY).shrunk(SMALL)
    found = asyncio.run(scheduler_perf.run(server, row, way))
    assert found.row.pods == 150
    specs = list(scheduler_perf.split(row.build(row).measured, 25, way))
    assert sum(spec.replicas for spec in specs) == 25
    assert max(spec.replicas for spec in specs) == way
    assert len({spec.name for spec in specs}) == len(specs)


def test_a_row_that_is_not_placed_says_why_and_counts_as_missed(server, monkeypatch):
    monkeypatch.setattr(rig, "DEADLINE_SECONDS", 0.2)
    row = ROWS[0].shrunk(SMALL)
    too_large = replace(row, build=lambda row: replace(row_setup(row), measured=LARGE))
    row_setup = row.build
    found = scheduler_perf.tried(server, too_large)
    assert found.took is None
    assert found.why == "0 of 30 in 0.2 s"
    (target,) = scheduler_perf.targets([found])
    assert (target.found, target.is_met) == (0, False)


def test_every_row_is_there_once_with_its_threshold():
    assert len({row.name for row in ROWS}) == len(ROWS) == 26
    assert sum(row.threshold for row in ROWS) == 9754
    assert [row.name for row in scheduler_perf.chosen("topology,daemonset")] == [
        "SchedulingDaemonset 15000/0/30000",
        "TopologySpreading 5000/5000/5000",
        "PreferredTopologySpreading 5000/5000/5000",
        "DefaultTopologySpreading 5000/5000/50000",
    ]


def test_targets_are_of_whole_rows_and_of_the_slowest():
    row = next(row for row in ROWS if row.name == scheduler_perf.SINGLY)
    slow = Found(row, scheduler_perf.ONE, Took(10, 10))  # 5,000/s: 6.2 times
    singly = Found(row, scheduler_perf.ALONE, Took(4, 4))
    fast = Found(ROWS[0], scheduler_perf.ONE, Took(0.5, 0.5))
    durable, alone, rows = scheduler_perf.targets([slow, singly, fast])
    assert (durable.found, durable.is_met) == (5_000, False)
    assert (alone.found, alone.is_met) == (4, True)
    assert rows.found == pytest.approx(5_000 / 810)
    assert "1 of 2 rows" in rows.what
    small = Found(row.shrunk(0.1), scheduler_perf.ONE, Took(1, 1))
    assert [each.what for each in scheduler_perf.targets([small])] == [
        f"scheduler_perf, 0 of 1 rows at 20 times, the least ({row.name})"
    ]


def test_the_last_line_says_by_how_much_a_target_was_missed():
    assert results.verdict([]) == "targets: none was measured"
    met = results.Target("a", 30_000, 25_000, 60_000, unit="/s")
    late = results.Target("b", 6, 5, 2, unit=" s", is_most=True)
    assert results.verdict([met]) == (
        "targets: all required targets met: a 30,000/s: required 25,000 met (1.2 of it),"
        " goal 60,000 missed (0.5 of it)"
    )
    assert results.verdict([met, late]).startswith("targets: 1 required targets MISSED: a ")
    assert "b 6 s: required 5 MISSED (0.833 of it), goal 2 missed (0.333 of it)" in str(late)
