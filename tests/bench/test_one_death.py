"""The death of one container costs a scheduler the same, however large the cluster is.

Claimed: among 100,000 tasks at most twice what it costs among 1,000. CPU time of the whole
Core on the SQLite store (tests/bench/one_death.py says what is counted), each cluster in a
process of its own, taking turns. CPU time, so that neighbours disturb it less; they still
do, through caches, and only the ratio counts.

Left out: gRPC (the lanes are in the process), the agents' work, heartbeats.
"""

import json
import os
import statistics
import subprocess
import sys

import pytest

from tests.bench import results

pytestmark = pytest.mark.bench

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CLUSTERS = ((1_000, 100), (100_000, 100), (100_000, 1_000))
DEADLINE_SECONDS = 900


def one_death(tasks: int, nodes: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.one_death", f"--tasks={tasks}", f"--nodes={nodes}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_death_costs_the_same_in_a_large_cluster() -> None:
    found: dict[tuple[int, int], list[dict]] = {}
    for turn in range(ROUNDS):
        for cluster in CLUSTERS:
            found.setdefault(cluster, []).append(one_death(*cluster))
            print(f"round {turn + 1}: {cluster[0]} tasks on {cluster[1]} nodes measured")
    rows, figures = [], []
    base: dict[str, float] = {}
    for (tasks, nodes), runs in found.items():
        row: list[object] = [f"{tasks:,} tasks on {nodes:,} nodes"]
        figure: dict[str, object] = {"tasks": tasks, "nodes": nodes}
        for kind in ("ended", "restarted"):
            cost = statistics.median(run[kind]["median_ms"] for run in runs)
            ratio = cost / base.setdefault(kind, cost)
            row += [f"{cost:.2f}", f"x{ratio:.2f}"]
            figure[kind] = {"cpu_ms": cost, "ratio": ratio}
        rows.append(row)
        figures.append(figure)
    results.table(
        "CPU of one death, ms: replaced (outcome, successor, orders, reports) · restarted in place",
        ("cluster", "replaced", "", "restarted", ""),
        rows,
    )
    results.keep("one_death", figures)
