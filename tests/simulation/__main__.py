# ruff: noqa: T201
"""Run many seeds on all cores: `python -m tests.simulation FIRST COUNT [--story]`.

Ends with one line of counts; the exit code is 1 when a promise was broken.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.simulation.scenario import play


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("count", type=int, help="how many")
    parser.add_argument("--story", action="store_true", help="print the last lines of each seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    options = parser.parse_args()
    began = time.monotonic()
    seeds = range(options.first, options.first + options.count)
    total, faults, broken = Counter(), Counter(), []
    for verdict in verdicts(seeds, options.jobs):
        if verdict.violations:
            broken.append(verdict.seed)
            print(verdict.words() if options.story else _short(verdict), flush=True)
        elif options.story:
            print("\n".join(verdict.story), flush=True)
        faults += verdict.faults
        total.update(
            seeds=1,
            seconds=round(verdict.virtual_seconds),
            steps=verdict.steps,
            leaders=verdict.leaders,
            commits=verdict.commits,
            starts=verdict.starts,
        )
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    print(
        f"{total['seeds']} seeds, {total['seconds']} virtual seconds in"
        f" {time.monotonic() - began:.0f} s, {total['steps']} steps, {total['leaders']} leaders,"
        f" {total['commits']} commits, {total['starts']} starts, faults: {kinds};"
        f" violations: {len(broken)}{' in seeds ' + str(sorted(broken)) if broken else ''}"
    )
    return 1 if broken else 0


def verdicts(seeds, jobs):
    """Each seed's verdict, as they come."""
    if jobs == 1 or len(seeds) == 1:
        yield from map(play, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(play, seed) for seed in seeds]):
            yield future.result()


def _short(verdict):
    return f"seed {verdict.seed}: {verdict.violations[0][:1500]}"


if __name__ == "__main__":
    sys.exit(main())
