# ruff: noqa: T201
"""Play many random cases on all cores: `python -m tests.placement FIRST COUNT`.

Ends with one line of counts. The exit code is 1 when the engine answered otherwise than the
reference, 2 when the cases were too tame to prove anything. One case alone (COUNT 1) is played in
this process, and what goes wrong there is raised.
"""

import argparse
import random
import sys
import time

from tests.placement.cases import Case
from tests.placement.ranges import run

FEW = 500
"""A range of fewer cases is not asked how wild it was."""
EVERY = 10_000


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.placement", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("count", type=int, help="how many")
    parser.add_argument("--jobs", type=int, default=None, help="processes at once")
    options = parser.parse_args()
    if options.count == 1:
        case = Case(random.Random(options.first))
        print(f"seed {options.first}: {case.drawn.size} nodes, {sorted(case.drawn.features)}")
        case.play()
        print(f"placed {case.played.placed}, refusals {dict(case.played.refusals)}")
        return 0
    began, told = time.monotonic(), set()

    def tell(totals):
        for seed in totals.mismatches.keys() - told:
            told.add(seed)
            print(f"seed {seed}: {totals.mismatches[seed]}", flush=True)
            print(f"  replay: python -m tests.placement {seed} 1", flush=True)
        if totals.cases % EVERY == 0:
            print(f"{totals.cases} cases in {time.monotonic() - began:.0f} s", flush=True)

    totals = run(options.first, options.count, jobs=options.jobs, tell=tell)
    is_tame = totals.cases >= FEW and totals.tame
    if is_tame:
        print(totals.tame)
    print(totals.words())
    if totals.mismatches:
        return 1
    return 2 if is_tame else 0


if __name__ == "__main__":
    sys.exit(main())
