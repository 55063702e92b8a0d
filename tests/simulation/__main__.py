# ruff: noqa: T201
"""Run many seeds on all cores: `python -m tests.simulation FIRST COUNT [--story]`.

Ends with one line of counts. The exit code is 1 when a promise was broken, 2 when the run was
too tame to prove anything. Interrupted, the same command goes on where it was (`--state`).
"""

import argparse
import sys
import time
from pathlib import Path

from tests.simulation.ranges import State, run
from tests.simulation.scenario import play

FEW = 50
"""A range of fewer seeds is not asked how wild it was."""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("count", type=int, help="how many")
    parser.add_argument(
        "--story", action="store_true", help="play each seed twice and print its last lines"
    )
    parser.add_argument("--jobs", type=int, default=None, help="processes at once")
    parser.add_argument("--state", type=Path, default=None, help="where to keep what is done")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    if options.story:
        return _tell_stories(seeds)
    state = State(options.state)
    if known := len(state.lines.keys() & set(seeds)):
        print(f"goes on: {known} of {len(seeds)} seeds are done", flush=True)
    began = time.monotonic()
    done = 0

    def tell(line):
        nonlocal done
        done += 1
        if line["violations"]:
            print(f"seed {line['seed']}: {line['violations'][0]}", flush=True)
            print(f"  replay: python -m tests.simulation {line['seed']} 1 --story", flush=True)
        elif done % 500 == 0:
            print(f"{done} seeds in {time.monotonic() - began:.0f} s", flush=True)

    totals = run(seeds, jobs=options.jobs, state=state, tell=tell)
    if totals.seeds >= FEW and totals.tame:
        print(totals.tame)
    print(totals.words())
    if totals.broken:
        return 1
    return 2 if totals.seeds >= FEW and totals.tame else 0


def _tell_stories(seeds):
    is_broken = False
    for seed in seeds:
        verdict, again = play(seed), play(seed)
        print("\n".join([*verdict.story, *verdict.violations]))
        print(f"seed {seed}: {verdict.steps} steps, digest {verdict.digest}")
        if again.digest != verdict.digest:
            print(f"seed {seed} played differently the second time: {again.digest}")
            is_broken = True
        is_broken = is_broken or bool(verdict.violations)
    return 1 if is_broken else 0


if __name__ == "__main__":
    sys.exit(main())
