# ruff: noqa: T201
"""Search seeds that fail when a rule is switched off and pass with it on.

`make simulate-mutations`: three for each rule, kept in `recorded_seeds.json`. Those that are there
and still do are kept; how far the search for the others has come is in `.simulation/`, for one
edition of the sources. A rule that no seed catches is dead code, or a hole in what is simulated.
"""

import argparse
import os
import sys
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context

from tests.simulation.mutations import MUTATIONS
from tests.simulation.mutations.searching import SEEDS_MAX, Search, try_seeds


def main():
    """Search; the exit code is 1 when a rule was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations")
    parser.add_argument("names", nargs="*", help="rules to search for; all")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="how many to try at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    options = parser.parse_args()
    search = Search(options.names or list(MUTATIONS), options.first, options.seeds)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        flying = set()
        waiting = list(search.names)
        while waiting or flying:
            while waiting and len(flying) < options.jobs:
                seeds, missing = search.work(name := waiting.pop(0))
                if seeds:
                    flying.add(pool.submit(try_seeds, name, seeds, missing))
                else:
                    print(f"{name}: seeds {sorted(search.found[name])}", flush=True)
            if not flying:
                break
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            for name, found, broken, tried in (future.result() for future in done):
                search.take(name, found, tried)
                waiting.insert(0, name)
                if broken:
                    print(f"{name}: seeds {broken} fail with all rules on", flush=True)
    missed = search.missed
    print(f"rules {len(search.names)}, caught {len(search.names) - len(missed)}, missed: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
