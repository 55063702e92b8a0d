"""How fast the SQLite store makes small records durable, beside a bare loop over SQLite.

    python -m tests.bench.bench_store [--writes 240000] [--rounds 3]

Both write the same keys and values with WAL and synchronous=FULL in the same run and on the
same disk, alternating. The bare loop is one table, `executemany` of 120 rows, one COMMIT:
no compares, no history, no checksums, no watch, one commit at a time. The store makes
commits of 120 writes that compare with *absent*, with eight in flight as the scheduler has.
"""

import argparse
import asyncio
import pathlib
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing

from homeport.seams import SystemClock
from scheduler.store.base import ABSENT, OPERATIONS_MAX, Write
from scheduler.store.sqlite import SqliteStore
from tests.bench import results

VALUE = bytes(range(200))
IN_FLIGHT = 8


def batches(writes):
    for start in range(0, writes, OPERATIONS_MAX):
        yield [f"tasks/web-{n % 997}/{n}/1" for n in range(start, start + OPERATIONS_MAX)]


def bare(folder, writes, per_commit=1):
    """Writes per second of a loop over SQLite, so many batches of 120 in one transaction."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute("CREATE TABLE records (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        start = time.perf_counter()
        for number, keys in enumerate(batches(writes), 1):
            if not file.in_transaction:
                file.execute("BEGIN IMMEDIATE")
            rows = [(key.encode(), VALUE) for key in keys]
            file.executemany("INSERT INTO records VALUES (?, ?)", rows)
            if number % per_commit == 0:
                file.execute("COMMIT")
        if file.in_transaction:
            file.execute("COMMIT")
        return writes / (time.perf_counter() - start)


async def store(folder, writes, in_flight, watched=False):
    """Writes per second through the store, and the median time of one commit in ms."""
    store = await SqliteStore.open(folder / "store.db", clock=SystemClock())
    work = iter(batches(writes))
    times = []

    async def write():
        for keys in work:
            begin = time.perf_counter()
            await store.commit([Write(key, VALUE, ABSENT) for key in keys])
            times.append(time.perf_counter() - begin)

    async def follow():
        seen = 0
        async for batch in store.watch("", 0):
            seen += len(batch.changes)
            if seen >= writes:
                return

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        if watched:
            group.create_task(follow())
        for _ in range(in_flight):
            group.create_task(write())
    rate = writes / (time.perf_counter() - start)
    await store.close()
    return rate, statistics.median(times) * 1_000


def main(given=None):
    """Alternate the two and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--writes", type=int, default=240_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where to write; default: the usual temporary folder")
    arguments = parser.parse_args(given)
    writes = arguments.writes // OPERATIONS_MAX * OPERATIONS_MAX
    figures = {}
    for _ in range(arguments.rounds):
        for name, run in (
            ("bare loop, 120 per commit", lambda path: (bare(path, writes), 0)),
            ("bare loop, 960 per commit", lambda path: (bare(path, writes, IN_FLIGHT), 0)),
            ("store, 1 commit in flight", lambda path: asyncio.run(store(path, writes, 1))),
            ("store, 8 in flight", lambda path: asyncio.run(store(path, writes, IN_FLIGHT))),
            (
                "store, 8 in flight, watched",
                lambda path: asyncio.run(store(path, writes, IN_FLIGHT, watched=True)),
            ),
        ):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                figures.setdefault(name, []).append(run(pathlib.Path(folder)))
    results.keep("store", figures)
    base = statistics.median(rate for rate, _ in figures["bare loop, 120 per commit"])
    for name, found in figures.items():
        rate = statistics.median(rate for rate, _ in found)
        latency = statistics.median(time for _, time in found)
        spread = ", ".join(f"{rate:,.0f}" for rate, _ in sorted(found))
        print(
            f"{name:30} {rate:9,.0f} writes/s  {rate / base:5.2f} x bare"
            f"  {f'median commit {latency:.1f} ms' if latency else '':25}  ({spread})"
        )


if __name__ == "__main__":
    main()
