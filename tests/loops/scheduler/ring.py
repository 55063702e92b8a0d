"""Everything around one controller: a real store in memory, mirror and committer, in virtual time.

Agents are the test.
"""

import asyncio
import contextlib
import random

from homeport import codec
from homeport.lifecycle import TERMINAL
from homeport.model import NodeState, NodeStatus, ServiceId, Task, TaskStatus
from scheduler.cluster import keys
from scheduler.cluster.observed import Dirt, Liveness, Observed
from scheduler.controller import Controller
from scheduler.store.base import ANY, Write
from scheduler.store.commit import Committer
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror
from tests.builders import World, node


class LoopClock:
    """The loop's virtual time."""

    def boottime(self):
        return asyncio.get_running_loop().time() + 1000.0

    def wall_ms(self):
        return int(asyncio.get_running_loop().time() * 1000) + 1_000_000


class Troubled:
    """A store of which single commits fail, before or after they were made."""

    def __init__(self, store):
        self._store = store
        self.before = []  # errors for the next commits of tasks
        self.after = []
        self.late = []  # let the next commit of tasks wait for this event first
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes, fence=None):
        self.commits += 1
        if not any(write.key.startswith("tasks/") for write in writes):
            return await self._store.commit(writes, fence)
        if self.late:
            await self.late.pop(0).wait()
        if self.before:
            raise self.before.pop(0)
        revision = await self._store.commit(writes, fence)
        if self.after:
            raise self.after.pop(0)
        return revision


class Ring:
    """Everything around one controller."""

    def __init__(self):
        self.clock = LoopClock()
        self.store = Troubled(MemoryStore(self.clock))
        self.mirror = Mirror(self.store)
        self.committer = Committer(self.store, self.mirror, writer="test")
        self.observed = Observed()
        self.dirt = Dirt()
        self.controller = None
        self.writes = 0

    async def put(self, *values):
        """What a user or an agent's join stores, past the mirror."""
        await self.store._store.commit(
            [Write(keys.key_of(value), codec.encode_record(value), ANY) for value in values]
        )

    async def add_nodes(self, *names):
        for number, name in enumerate(names, start=1):
            await self.put(node(name, number))
            self.see(name, NodeState.READY)

    def see(self, name, state):
        self.observed.put_liveness(f"node-{name}", Liveness(state=state, reported=True))
        self.dirt.node(f"node-{name}")
        if self.controller is not None:
            self.controller.wake()

    def say(self, name, *conditions):
        """What the node reports of itself, as a session takes it in."""
        self.observed.put_node_status(f"node-{name}", NodeStatus(conditions=conditions))
        self.dirt.node(f"node-{name}")
        self.controller.wake()

    async def apply(self, each, **fields):
        """A service's head and spec, as the API would write them."""
        world = World()
        service = world.apply(each, **fields)
        tables = world.tables
        await self.put(tables.stack("shop"), tables.service(service), tables.spec(service, 1))
        return service

    def report(self, task, state, **fields):
        self.observed.put_status(TaskStatus(task=task, state=state, **fields))
        mark = self.dirt.service if state in TERMINAL else self.dirt.progress
        mark(ServiceId(task.rsplit("/", 2)[0]))
        self.controller.wake()

    def tasks(self, service):
        return self.mirror.tables.tasks_of_service(service)

    async def successor_of(self, task):
        """Return when the slot has a newer task."""
        there = asyncio.Event()

        def look(changes):
            if any(
                isinstance(change.new, Task)
                and (change.new.service, change.new.slot) == (task.service, task.slot)
                and change.new.n > task.n
                for change in changes
            ):
                there.set()

        unsubscribe = self.mirror.subscribe(look)
        async with asyncio.timeout(1000):
            await there.wait()
        unsubscribe()

    def reasons(self):
        return [event.reason for event in self.observed.events]

    @contextlib.asynccontextmanager
    async def running(self, fence=None):
        await self.mirror.start()
        self.controller = Controller(
            self.mirror,
            self.committer,
            self.observed,
            self.dirt,
            self.clock,
            random.Random(1),
            fence,
        )
        async with asyncio.TaskGroup() as background:
            following = background.create_task(self.mirror.run())
            controlling = background.create_task(self.controller.run())
            try:
                yield self
            finally:
                following.cancel()
                controlling.cancel()


async def settled(seconds=0.5):
    """Give the loop this long to come to rest."""
    await asyncio.sleep(seconds)
