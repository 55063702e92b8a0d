"""How many decisions the engine makes in a second, in the cases that DESIGN.md §10 names.

    python -m tests.bench.placement.decisions [--sizes 100,1000,5000,20000] [--seeds 1,2,3]

Time is CPU time of `engine.place` alone, through the product's own call: asks are made before
it and records after it. One class comes in batches of a thousand, as from `apply`. Interleaved and
distinct classes come in calls of one ask each, in random order: a batch would be sorted by class.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence

from homeport.spec import SpreadRule
from scheduler.placement import engine
from scheduler.placement.asks import Placed
from scheduler.placement.requirements import Requirements
from tests.bench import results
from tests.bench.placement import clusters

SIZES = (100, 1_000, 5_000, 20_000)
JUDGED = 5_000
BATCH = 1_000
TARGETS = {
    # case: (required, goal) decisions/s at 5,000 nodes
    "one class": (200_000, 500_000),
    "50 classes interleaved": (40_000, 60_000),
    "all distinct": (20_000, 30_000),
    "hard zone spread": (100_000, 300_000),
    "host anti-affinity": (50_000, 200_000),
}
SINGLE_MICROSECONDS = 50


def one_class(nodes, dice):
    """Batches of replicas of one service."""
    needs = Requirements(cpu_millis=100, memory_bytes=100 * clusters.MIB)
    return _batches("web", needs, min(20_000, nodes * 20))


def interleaved(nodes, dice):
    """Fifty services, whichever comes next."""
    classes = [clusters.small(dice) for _ in range(50)]
    slots = [0] * 50
    calls = []
    for _ in range(min(5_000, nodes * 10)):
        which = dice.randrange(50)
        slots[which] += 1
        calls.append([clusters.ask(f"web-{which}", slots[which], classes[which])])
    return calls


def distinct(nodes, dice):
    """Each task with requirements of its own."""
    return [
        [clusters.ask(f"web-{which}", 1, clusters.small(dice))]
        for which in range(min(4_000, nodes * 10))
    ]


def zone_spread(nodes, dice):
    """Replicas that must be spread over three zones, with a skew of five at most."""
    needs = Requirements(
        cpu_millis=100,
        memory_bytes=100 * clusters.MIB,
        spread_rules=(SpreadRule(key="node.labels.zone", max_skew=5),),
    )
    return _batches("web", needs, min(20_000, nodes * 20))


def apart(nodes, dice):
    """Replicas of which a node may have one."""
    needs = Requirements(cpu_millis=100, memory_bytes=100 * clusters.MIB, tasks_per_node_max=1)
    return _batches("web", needs, nodes // 2)


CASES = {
    "one class": one_class,
    "50 classes interleaved": interleaved,
    "all distinct": distinct,
    "hard zone spread": zone_spread,
    "host anti-affinity": apart,
}


def _batches(service, needs, count):
    return [
        [
            clusters.ask(service, slot, needs)
            for slot in range(first + 1, min(first + BATCH, count) + 1)
        ]
        for first in range(0, count, BATCH)
    ]


def measure(case, nodes, seed):
    """Decisions a second."""
    fleet = clusters.fleet(nodes, seed)
    calls = CASES[case](nodes, random.Random(seed))
    began = time.process_time()
    answers = [engine.place(fleet, batch) for batch in calls]
    seconds = time.process_time() - began
    placed = sum(isinstance(each, Placed) for answer in answers for each in answer)
    assert placed == sum(len(batch) for batch in calls), "the cluster has room for all of them"
    return placed / seconds


def single(seed, nodes=10):
    """Microseconds of placing one task on a small cluster, at the median."""
    fleet = clusters.fleet(nodes, seed)
    needs = Requirements(cpu_millis=10, memory_bytes=clusters.MIB)
    took = []
    for slot in range(500):
        batch = [clusters.ask(f"web-{slot % 5}", slot, needs)]
        began = time.process_time()
        engine.place(fleet, batch)
        took.append(time.process_time() - began)
    return sorted(took)[len(took) // 2] * 1e6


def measured(
    sizes: Sequence[int] = SIZES, seeds: Sequence[int] = (1, 2, 3)
) -> list[results.Target]:
    """Measure, print, keep; returns how the targets were met."""
    figures = {
        case: {size: sorted(measure(case, size, seed) for seed in seeds) for size in sizes}
        for case in CASES
    }
    one = statistics.median(single(seed) for seed in seeds)
    rows = [
        (
            case,
            *(f"{statistics.median(found[size]):,.0f}" for size in sizes),
            *(f"{wanted:,}" for wanted in TARGETS[case]),
        )
        for case, found in figures.items()
    ]
    results.table(
        "decisions a CPU second (median of the seeds)",
        ("case", *(f"{size:,} nodes" for size in sizes), "required", "goal"),
        rows,
    )
    results.table(
        "one task on 10 nodes",
        ("", "µs", "required"),
        [("median", f"{one:.1f}", SINGLE_MICROSECONDS)],
    )
    results.keep(
        "placement_decisions", {"decisions_per_second": figures, "single_microseconds": one}
    )
    found = []
    if JUDGED in sizes:
        for case, (required, goal) in TARGETS.items():
            rate = statistics.median(figures[case][JUDGED])
            found.append(results.Target(f"decisions/s, {case}", rate, required, goal))
    what = "one task on 10 nodes"
    return [
        *found,
        results.Target(what, one, SINGLE_MICROSECONDS, unit=" µs", is_most=True),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="nodes, by commas")
    parser.add_argument("--seeds", default="1,2,3", help="by commas")
    chosen = parser.parse_args(arguments)
    sizes, seeds = (
        [int(each) for each in words.split(",")] for words in (chosen.sizes, chosen.seeds)
    )
    print(results.verdict(measured(sizes, seeds)))


if __name__ == "__main__":
    main()
