"""All benchmarks of placement, one after the other: `make bench-placement`, `…-full`.

    python -m tests.bench.placement [--full] [--only decisions,scheduler_perf,openb,c2m]

Each part prints its table, keeps its figures in build/bench, and says of each target of DESIGN.md
§10 how it was met; the last line has all of them. Without `--full` the largest sizes alone and
three seeds, within twenty minutes on two cores.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from tests.bench import results
from tests.bench.placement import c2m, decisions, openb, scheduler_perf
from tests.bench.results import Target

Part = Callable[[], list[Target]]
C2M_SECONDS = 480.0
"""No longer is waited for two million containers: all parts together have twenty minutes."""

QUICK: dict[str, Part] = {
    "decisions": lambda: decisions.measured(sizes=(5_000, 20_000)),
    "scheduler_perf": scheduler_perf.measured,
    "openb": openb.measured,
    "c2m": lambda: c2m.measured(deadline_seconds=C2M_SECONDS),
}
FULL: dict[str, Part] = {
    "decisions": decisions.measured,
    "scheduler_perf": lambda: scheduler_perf.measured(singly=True),
    "openb": lambda: openb.measured("all", seeds=10),
    "c2m": lambda: c2m.measured(stores=("etcd", "sqlite")),
}
# A further part is something that measures, prints and keeps, and returns how its targets were
# met; and a line in each of these.


def run(parts: dict[str, Part]) -> bool:
    """Measure all, and print the verdict; False where a part could not be measured."""
    found: list[Target] = []
    failed: list[str] = []
    began = time.monotonic()
    for name, part in parts.items():
        print(f"\n==== {name} ({time.monotonic() - began:.0f} s)", flush=True)
        try:
            found += part()
        except Exception:  # noqa: BLE001 (what the others find is not lost with it)
            traceback.print_exc()
            failed.append(name)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    unmeasured = f" · NOT MEASURED: {', '.join(failed)}" if failed else ""
    print(results.verdict(found) + unmeasured)
    return not failed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="bench-placement", description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="all sizes, ten seeds, all traces")
    parser.add_argument("--only", default="", help=f"some of {', '.join(QUICK)}, by commas")
    options = parser.parse_args(arguments)
    parts = FULL if options.full else QUICK
    if options.only:
        names = options.only.split(",")
        if unknown := set(names) - parts.keys():
            parser.error(f"no such part: {', '.join(sorted(unknown))}")
        parts = {name: parts[name] for name in names}
    sys.exit(0 if run(parts) else 1)


if __name__ == "__main__":
    main()
