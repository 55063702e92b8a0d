# ruff: noqa: T201
"""Try every mutant of placement: `python -m tests.placement.mutations [FILE.py …]`.

Each comparison negated, each term dropped. Survivors must stand in `survivors.toml` with the
reason why nothing can catch them. The exit code is 1 when one does not, or when one that stands
there is caught. Interrupted, the same command goes on where it was; after a change of the sources,
what caught a mutant the last time is tried first.
"""

import argparse
import os
import signal
import sys
import time

from tests.placement.mutations import trying
from tests.placement.mutations.searching import Search


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.placement.mutations")
    parser.add_argument("files", nargs="*", help="files of scheduler/placement; all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--verbose", action="store_true", help="tell what catches each")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops what it has started
    search = Search(options.files)
    left = len(search.left)
    print(f"{len(search.mutants)} mutants, {left} to try", flush=True)
    trying.preload()
    if left and (caught := trying.try_unchanged()):
        print(f"placement as it is does not pass: {caught}")
        return 1
    began, done = time.monotonic(), 0

    def tell(mutant, caught):
        nonlocal done
        done += 1
        if not caught:
            print(f"survives: {mutant.file}:{mutant.line} {mutant.name}", flush=True)
        elif options.verbose:
            print(f"{caught}: {mutant.file}:{mutant.line} {mutant.name}", flush=True)
        if done % 100 == 0:
            print(f"{done} of {left} in {time.monotonic() - began:.0f} s", flush=True)

    search.run(options.jobs, tell)
    faults = list(search.faults())
    for each in faults:
        print(each)
    print(search.words())
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
