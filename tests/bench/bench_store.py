"""How fast a store makes small records durable, beside a bare loop over the same database.

    python -m tests.bench.bench_store [--store sqlite|etcd] [--writes 240000] [--rounds 3]

SQLite:
Both write the same keys and values with WAL and synchronous=FULL in the same run and on the
same disk, alternating. The bare loop is one table, `executemany` of 120 rows, one COMMIT:
no compares, no history, no checksums, no watch, one commit at a time. The store makes
commits of 120 writes that compare with *absent*, with eight in flight as the scheduler has.

etcd: one member of Debian's etcd, on the same disk, for both. The bare loop puts one record at a
time over a plain gRPC channel, as most programs use etcd; a second one keeps 100 puts in flight,
and a third writes transactions of 120 puts without compares. etcd, client and loop share this
machine's cores.
"""

import argparse
import asyncio
import itertools
import pathlib
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing

import grpc
from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

from homeport.seams import SystemClock, system_randomness
from scheduler.store.base import ABSENT, OPERATIONS_MAX, Write
from scheduler.store.etcd import EtcdOptions, EtcdStore
from scheduler.store.sqlite import SqliteStore
from tests.bench import results
from tests.testbed.etcd import Etcd

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


def sqlite_in(folder):
    return SqliteStore.open(folder / "store.db", clock=SystemClock())


async def etcd_at(server, prefix):
    options = EtcdOptions(endpoints=server.endpoints, prefix=prefix)
    return EtcdStore(options, system_randomness())


async def bare_etcd(server, writes, in_flight, per_request=1):
    """Writes per second of plain puts, and the median time of one request in ms."""
    channel = grpc.aio.insecure_channel(server.endpoints[0].removeprefix("http://"))
    kv = rpc_pb2_grpc.KVStub(channel)
    prefix = f"/bare/{time.monotonic_ns()}/"
    keys = (prefix + key for batch in batches(writes) for key in batch)
    times = []

    async def write():
        while chunk := list(itertools.islice(keys, per_request)):
            begin = time.perf_counter()
            puts = [rpc_pb2.PutRequest(key=key.encode(), value=VALUE) for key in chunk]
            if per_request == 1:
                await kv.Put(puts[0])
            else:
                operations = [rpc_pb2.RequestOp(request_put=put) for put in puts]
                await kv.Txn(rpc_pb2.TxnRequest(success=operations))
            times.append(time.perf_counter() - begin)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(write())
    rate = writes / (time.perf_counter() - start)
    await channel.close()
    return rate, statistics.median(times) * 1_000


async def store(opening, writes, in_flight, watched=False):
    """Writes per second through the store, and the median time of one commit in ms."""
    store = await opening
    work = iter(batches(writes))
    times = []

    async def write():
        for keys in work:
            begin = time.perf_counter()
            await store.commit([Write(key, VALUE, ABSENT) for key in keys])
            times.append(time.perf_counter() - begin)

    begun = (await store.list("")).revision

    async def follow():
        seen = 0
        async for batch in store.watch("", begun):
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


def sqlite_runs(writes):
    """name -> what runs it in a folder of its own."""
    return {
        "bare loop, 120 per commit": lambda path: (bare(path, writes), 0),
        "bare loop, 960 per commit": lambda path: (bare(path, writes, IN_FLIGHT), 0),
        "store, 1 commit in flight": lambda path: asyncio.run(store(sqlite_in(path), writes, 1)),
        "store, 8 in flight": lambda path: asyncio.run(store(sqlite_in(path), writes, IN_FLIGHT)),
        "store, 8 in flight, watched": lambda path: asyncio.run(
            store(sqlite_in(path), writes, IN_FLIGHT, watched=True)
        ),
    }


def etcd_runs(writes, server):
    """The same for an etcd; what would take minutes writes a tenth or less."""

    def through(in_flight, watched=False):
        opening = etcd_at(server, f"/store/{time.monotonic_ns()}/")
        return asyncio.run(store(opening, writes, in_flight, watched))

    return {
        "bare puts, 1 at a time": lambda _: asyncio.run(bare_etcd(server, writes // 48, 1)),
        "bare puts, 100 in flight": lambda _: asyncio.run(bare_etcd(server, writes // 12, 100)),
        "bare 120-put transactions, 8": lambda _: asyncio.run(
            bare_etcd(server, writes, IN_FLIGHT, OPERATIONS_MAX)
        ),
        "store, 1 commit in flight": lambda _: through(1),
        "store, 8 in flight": lambda _: through(IN_FLIGHT),
        "store, 8 in flight, watched": lambda _: through(IN_FLIGHT, watched=True),
    }


def main(given=None):
    """Alternate the two and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite")
    parser.add_argument("--writes", type=int, default=240_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where to write; default: the usual temporary folder")
    arguments = parser.parse_args(given)
    writes = arguments.writes // OPERATIONS_MAX * OPERATIONS_MAX
    if arguments.store == "sqlite":
        measure("store", sqlite_runs(writes), arguments)
    else:
        with Etcd() as server:
            measure("store-etcd", etcd_runs(writes, server), arguments)


def measure(name, runs, arguments):
    """Take turns; the first run is what the others are compared with."""
    figures = {}
    for _ in range(arguments.rounds):
        for title, run in runs.items():
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                figures.setdefault(title, []).append(run(pathlib.Path(folder)))
    results.keep(name, figures)
    base = statistics.median(rate for rate, _ in next(iter(figures.values())))
    for title, found in figures.items():
        rate = statistics.median(rate for rate, _ in found)
        latency = statistics.median(time for _, time in found)
        spread = ", ".join(f"{rate:,.0f}" for rate, _ in sorted(found))
        print(
            f"{title:30} {rate:9,.0f} writes/s  {rate / base:5.2f} x bare"
            f"  {f'median request {latency:.1f} ms' if latency else '':25}  ({spread})"
        )


if __name__ == "__main__":
    main()
