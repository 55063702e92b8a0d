"""Kubernetes' scheduler_perf, row by row: the same nodes and pods, placed by Homeport.

    python -m tests.bench.placement.scheduler_perf [--rows WORD,…] [--share 1] [--singly]

Every row of test/integration/scheduler_perf (misc, affinity, topology_spreading) that has a
threshold. A pod is a task, with a record of its own; pods of one template are the replicas of one
service. The engine walks many equal replicas down the sorted nodes together, with the answers of
one after the other. So one row, with `--singly` all, is measured in other ways too: as services of
ten, each task of which is chosen a node for by itself, and each pod a service of its own, with a
spec of its own, looked at by itself. The clock runs from the first write of what is measured, specs
included, until the last task's record is durable in etcd and the watch has told of it (`rig`); what
exists before is placed before. As there, nodes run nothing.

What their figure has and ours has not: an API server between client and etcd, which writes each
pod twice. Theirs is the mean of samples of one second, ours is all pods by all time.
"""

import argparse
import asyncio
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from homeport.spec import ServiceSpec
from scheduler.store.base import StoreError
from tests.bench import results
from tests.bench.placement import rig
from tests.bench.placement.scheduler_perf_rows import ROWS, Row
from tests.bench.results import Target
from tests.testbed.etcd import Etcd

ONE, TENS, ALONE = 0, 10, 1
"""Pods in a service: all of them, ten, or one."""
WAYS = {ONE: "one service", TENS: "services of ten", ALONE: "a service each"}
NAME = "placement-scheduler-perf"
TIMES = 20
"""How many times a row's threshold is wanted."""
SINGLY = "SchedulingBasic 5000/5000/50000"
SINGLY_SECONDS = (5.0, 2.0)
"""Required and wanted for that row, each pod decided singly."""
DURABLE = (25_000, 60_000)
"""Durable placements a second, required and wanted, replicas in batches: the same row as one
service."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row, measured."""

    row: Row
    way: int
    took: rig.Took | None  # None: they were not placed
    why: str = ""  # then

    @property
    def rate(self) -> float:
        """Pods a second."""
        return self.took.rate(self.row.pods) if self.took is not None else 0.0

    @property
    def times(self) -> float:
        """Of its threshold."""
        return self.rate / self.row.threshold


def split(spec: ServiceSpec, pods: int, way: int) -> Iterator[ServiceSpec]:
    """So many pods as services."""
    most = way or pods
    for which, first in enumerate(range(0, pods, most)):
        yield replace(spec, name=f"{spec.name}-{which:05}", replicas=min(most, pods - first))


def tried(server: Etcd, row: Row, way: int = ONE) -> Found:
    """A row, once more where the first try failed: a machine with other work may be too slow."""
    why = ""
    for _ in range(2):
        try:
            return asyncio.run(run(server, row, way))
        except* (rig.NotPlaced, StoreError) as errors:
            why = str(_first(errors))
            print(f"{row.name}: {why}", flush=True)
    return Found(row, way, None, why)


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


async def run(server: Etcd, row: Row, way: int = ONE) -> Found:
    """Set the row up, place it, and see that it was placed as it says."""
    setup = row.build(row)
    async with rig.leading(server.endpoints) as here:
        await here.add_nodes(setup.nodes)
        before = []
        for spec, stacks in setup.before:
            before += await here.apply([spec] * stacks, per_stack=1)
        await here.settled(sum(service.replicas for service in before))
        if setup.before:
            here.count_anew()
        async with setup.beside(here):
            here.hear(node.id for node in setup.nodes)
            await asyncio.sleep(0.2)
            watch = rig.Stopwatch()
            measured = await here.apply(split(setup.measured, row.pods, way))
            await here.settled(row.pods)
            took = watch.read()
        setup.check(here.placed(measured), here.placed(before))
        return Found(row, way, took)


def show(found: Sequence[Found]) -> None:
    """The table."""
    rows = []
    for each in found:
        row, took = each.row, each.took
        rows.append(
            (
                row.name,
                WAYS[each.way],
                f"{took.seconds:.2f}" if took is not None else "",
                f"{row.pods / took.cpu_seconds:,.0f}" if took is not None else "",
                f"{each.rate:,.0f}",
                f"{row.threshold:,}",
                f"{each.times:.1f}",
                each.why or row.differs,
            )
        )
    results.table(
        "scheduler_perf (nodes/pods before/pods measured)",
        ("row", "as", "s", "pods/CPU s", "pods/s", "threshold", "times", "differs"),
        rows,
    )


def targets(found: Sequence[Found]) -> list[Target]:
    """What DESIGN.md §10 and the rows want, of what was measured."""
    some: list[Target] = []
    for each in found:
        if each.row in ROWS and each.row.name == SINGLY:
            if each.way != ONE:
                required, goal = SINGLY_SECONDS
                what = f"SchedulingBasic 50,000 pods, each singly, as {WAYS[each.way]}"
                seconds = each.took.seconds if each.took is not None else math.inf
                some.append(Target(what, seconds, required, goal, unit=" s", is_most=True))
            else:
                required, goal = DURABLE
                some.append(Target("durable placements/s through etcd", each.rate, required, goal))
    as_replicas = [each for each in found if each.way == ONE]
    if as_replicas:
        least = min(as_replicas, key=lambda each: each.times)
        missed = sum(each.times < TIMES for each in as_replicas)
        what = f"scheduler_perf, {len(as_replicas) - missed} of {len(as_replicas)} rows at"
        some.append(
            Target(f"{what} {TIMES} times, the least ({least.row.name})", least.times, TIMES)
        )
    return some


def chosen(words: str) -> list[Row]:
    """The rows with one of these words in their names; without, all."""
    some = words.lower().split(",") if words else [""]
    return [row for row in ROWS if any(word in row.name.lower() for word in some)]


def ways(row: Row, *, singly: bool) -> tuple[int, ...]:
    """How its pods are measured. A rule about the tasks of one service allows one way alone."""
    if row.is_of_one_service:
        return (ONE,)
    if row.name == SINGLY:
        return (ONE, TENS, ALONE)
    return (ONE, ALONE) if singly else (ONE,)


def measured(rows: str = "", *, share: float = 1, singly: bool = False) -> list[Target]:
    """Measure, print, keep; returns how the targets were met.

    `share`: of the nodes and pods of each row. `singly`: every row also as services of one task,
    where its rules do not speak of one service.
    """
    found: list[Found] = []
    with Etcd() as server:
        for row in chosen(rows):
            part = row.shrunk(share)
            for way in ways(row, singly=singly):
                each = tried(server, part, way)
                found.append(each)
                print(
                    f"{row.name}, as {WAYS[way]}: {each.rate:,.0f} pods/s,"
                    f" {each.times:.1f} times its threshold (load {os.getloadavg()[0]:.1f})",
                    flush=True,
                )
            keep(found, share)
    show(found)
    return targets(found)


def keep(found: Sequence[Found], share: float) -> None:
    """As JSON."""
    figures = [
        {
            "row": each.row.name,
            "pods": each.row.pods,
            "as": WAYS[each.way],
            "seconds": each.took.seconds if each.took is not None else None,
            "cpu_seconds": each.took.cpu_seconds if each.took is not None else None,
            "why": each.why,
            "pods_per_second": each.rate,
            "threshold": each.row.threshold,
            "times": each.times,
            "differs": each.row.differs,
        }
        for each in found
    ]
    results.keep(NAME, {"share": share, "rows": figures})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="", help="words in the names of rows, by commas")
    parser.add_argument("--share", type=float, default=1, help="of nodes and pods")
    parser.add_argument("--singly", action="store_true", help="each pod a service of its own, too")
    options = parser.parse_args(arguments)
    print(results.verdict(measured(options.rows, share=options.share, singly=options.singly)))


if __name__ == "__main__":
    main()
