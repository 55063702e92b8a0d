"""What a task weighs in the scheduler, structure by structure.

    python -m tests.bench.placement.weights [--tasks 15625 --nodes 250 --replicas 250] [--lines 20]

A whole leading scheduler in this process (the product's Core on a store in memory, stock settings
but ten times the time for everything, since tracemalloc slows it down), with the simulated agents
of `c2m_crowd` on lanes of this process: every record, order and status comes the way that it comes
in a cluster. When all tasks are known to run everything is stopped, and one structure after the
other is cleared; what Python then has less is what it weighed. What two structures share counts
for the later one. The same without tasks is taken off.

Blocks are counted as the allocator hands them out, by sixteens. Left out: gRPC's C core and
protobuf, of which no task keeps anything; what a running interpreter has free in between; the
table of interned strings, which is as old as the interpreter and has 31 bytes for each of two
million; the events and marks for watchers, ten thousand each, however many tasks there are.

The defaults are a 128th of two million tasks, since dictionaries grow by doubling: these are as
full as the large ones are. A node has one task of a service, as in a cluster of thousands.
"""

import argparse
import asyncio
import collections
import gc
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from homeport.model import Leader
from homeport.seams import SystemClock, system_randomness
from homeport.spec import ContainerSpec, Driver, Resources, ServiceSpec
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.images import Images
from scheduler.store.memory import MemoryStore
from tests.bench import results
from tests.bench.placement.c2m_crowd import Agent, Counts
from tests.bench.placement.rig import MIB, Rig, logged
from tests.bench.scripted import InProcessLink

TASKS, NODES, REPLICAS = 15_625, 250, 250
PER_STACK = 50
EVENTS = "events, marks"
SLOWER = 3_000
"""The timers of so many nodes are ten times the usual ones."""
BLOCK_BYTES, BLOCKS_UP_TO = 16, 512
NOT_COUNTED = {__file__, collections.__file__, tracemalloc.__file__, asyncio.queues.__file__}
"""What weighing itself keeps, and lanes."""


class Link(InProcessLink):
    """With the call by which an agent joins."""

    async def join(self, request):
        return await self._lanes.join(request)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes, by structure, in the order of clearing; the last is what is left."""

    tasks: int
    by_structure: dict[str, int]
    by_line: list[tuple[str, int, int]]  # of what tasks weigh: where it was made, bytes, blocks

    @property
    def per_task(self) -> float:
        return sum(self.by_structure.values()) / self.tasks


def weighed():
    """Bytes that Python has handed out, by the line that asked for them."""
    gc.collect()
    sizes, counts = Counter(), Counter()
    for trace in tracemalloc.take_snapshot().traces:
        size, frame = trace.size, trace.traceback[0]
        if frame.filename in NOT_COUNTED:
            continue
        if size <= BLOCKS_UP_TO:
            size = -(-size // BLOCK_BYTES) * BLOCK_BYTES
        line = f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}"
        sizes[line] += size
        counts[line] += 1
    return sizes, counts


def structures(core, sessions):
    """What keeps something for each task, and how it forgets that; events are the first."""
    controller, authority = core.controller, core.control.lead.authority
    feed, dispatcher = core.control.lead.feed, core.dispatcher
    tables, fleet, observed = core.mirror.tables, controller.fleet, authority.observed
    said = list(dispatcher._said.values())

    def events():
        for kept in (observed.events, feed._ring, core.control.changes._ring):
            kept.clear()

    def told():
        for session in sessions:
            session.told.__init__()
            session._sent.clear()
            session._changed.clear()

    def heard():
        for each in said:
            each._statuses.clear()

    def presences():
        for each in fleet._presence.values():
            each.__init__()

    def by_node():
        tables._tasks_by_node.clear()

    def by_slot():
        tables._slots.clear()

    return {
        EVENTS: events,
        "what sessions told": told,
        "what agents said": heard,
        "statuses": observed.statuses.clear,
        "fleet: what each takes": fleet.held.clear,
        "fleet: by service": presences,
        "tables: by node": by_node,
        "tables: by slot, records": by_slot,
    }


async def weigh(tasks, nodes, replicas):
    """Fill a scheduler, stop it, and take it apart."""
    clock, randomness = SystemClock(), system_randomness()
    store = MemoryStore(clock, history_revisions=1)
    with tempfile.TemporaryDirectory() as folder, logged(Path(folder) / "log"):
        core = Core(
            store=store, me=Leader(id="bench", address="bench"), timers=Timers().scaled(SLOWER),
            clock=clock, randomness=randomness, images=Images(Path(folder)), writer="bench",
        )  # fmt: skip
        leads = asyncio.Event()

        async def on_leading(is_leading):
            leads.set()

        core.on_leading = on_leading
        counts = Counts()
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(core.run())]
            await leads.wait()
            rig = Rig(core)
            agents = []
            for number in range(1, nodes + 1):
                agent = Agent(Link(core.lanes, background), number, counts)
                await agent.join(-(-tasks // nodes) * 2)
                running.append(background.create_task(_attached(agent, number / nodes)))
                agents.append(agent)
            for agent in agents:
                await agent.told.wait()
                await agent.heard.wait()
            await rig.apply(services(tasks, replicas), per_stack=PER_STACK)
            await rig.settled(tasks)
            while counts.heard < tasks:  # noqa: ASYNC110 (the agents count for another process)
                await asyncio.sleep(0.1)
            # The last look at each service, and what is on its way.
            await asyncio.sleep(2)
            assert rig.authority.observed.statuses.keys() == {
                each.id for each in core.mirror.tables.tasks()
            }
            found = structures(core, list(core.dispatcher.sessions.values()))
            kept = core.controller, core.dispatcher, core.control.lead
            for agent in agents:
                agent.link.close()
            for each in running:
                each.cancel()
        store._records.clear()
        store._feed = None
        del agents, agent, running, rig
        result = taken_apart(found)
        del kept
        return result


def taken_apart(found):
    """Clear one structure after the other: bytes and blocks by line, and what each weighed."""
    found.pop(EVENTS)()
    sizes, counts = weighed()
    by_structure, total = {}, sizes.total()
    for name, clear in found.items():
        clear()
        now = weighed()[0].total()
        by_structure[name], total = total - now, now
    by_structure["all else, services too"] = total
    return sizes, counts, by_structure


async def _attached(agent, phase):
    # A lane that is closed ends in an error here, which is how the crowd notices too.
    with suppress(ExceptionGroup):
        await agent.run(phase)


def services(tasks, replicas):
    """As in `c2m.stacks`."""
    counts = [replicas] * (tasks // replicas)
    if rest := tasks % replicas:
        counts.append(rest)
    return [
        ServiceSpec(
            name=f"s{number:05}", replicas=count, driver=Driver.SIMULATED,
            container=ContainerSpec(image="example"),
            reservations=Resources(cpu_millis=10, memory_bytes=16 * MIB),
        )
        for number, count in enumerate(counts)
    ]  # fmt: skip


def compared(tasks, nodes, replicas) -> Weights:
    """What there is more with tasks than without."""
    sizes, counts, with_tasks = asyncio.run(weigh(tasks, nodes, replicas))
    sizes_before, _, without = asyncio.run(weigh(0, nodes, replicas))
    by_structure = {name: size - without[name] for name, size in with_tasks.items()}
    sizes.subtract(sizes_before)
    by_line = [(line, size, counts[line]) for line, size in sizes.most_common()]
    return Weights(tasks, by_structure, by_line)


def measured(tasks=TASKS, nodes=NODES, replicas=REPLICAS, *, lines=0) -> Weights:
    """Weigh, print, keep."""
    tracemalloc.start()
    try:
        found = compared(tasks, nodes, replicas)
    finally:
        tracemalloc.stop()
    rows = [(name, f"{size / tasks:.1f}") for name, size in found.by_structure.items()]
    rows.append(("in all", f"{found.per_task:.1f}"))
    title = f"{tasks:,} tasks of services of {replicas:,} on {nodes:,} nodes"
    results.table(title, ("", "bytes a task"), rows)
    if lines:
        rows = [
            (line, f"{size / tasks:.1f}", f"{count / tasks:.2f}")
            for line, size, count in found.by_line[:lines]
        ]
        results.table("by the line that made it", ("", "bytes a task", "blocks a task"), rows)
    figures = {"tasks": tasks, "nodes": nodes, "replicas": replicas, "per_task": found.per_task}
    results.keep("placement_weights", figures | {"by_structure": found.by_structure})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--replicas", type=int, default=REPLICAS)
    parser.add_argument("--lines", type=int, default=0, help="of the code, the heaviest first")
    chosen = parser.parse_args(arguments)
    measured(chosen.tasks, chosen.nodes, chosen.replicas, lines=chosen.lines)


if __name__ == "__main__":
    main()
