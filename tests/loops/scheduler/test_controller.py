"""Verify the one loop: what wakes it, what it commits, and what it costs.

Real store in memory, mirror and committer, in virtual time; agents are the test.
"""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import replace

import pytest

from homeport import codec
from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import (
    Condition,
    NodeState,
    NodeStatus,
    Outcome,
    ServiceId,
    StackFile,
    Task,
    TaskStatus,
    VolumeState,
)
from homeport.spec import (
    Dependency,
    FileKind,
    FileSpec,
    Neighbour,
    PlacementSpec,
    SpreadRule,
)
from scheduler import controller
from scheduler.cluster import keys
from scheduler.cluster.observed import Dirt, Liveness, Observed
from scheduler.controller import Controller
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import scheduling, services as reconcile
from scheduler.store.base import (
    ANY,
    LEADER_KEY,
    Ambiguous,
    Fence,
    Fenced,
    Unavailable,
    Write,
)
from scheduler.store.commit import Committer
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror
from tests.builders import World, node, spec, volume_mount

pytestmark = pytest.mark.looptime


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
    await asyncio.sleep(seconds)


async def test_a_service_that_is_applied_gets_its_tasks():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a", "b")
        service = await ring.apply(spec("web", replicas=3))
        await settled()
        assert [task.slot for task in ring.tasks(service)] == [1, 2, 3]
        assert sorted(task.node for task in ring.tasks(service)) == ["node-a", "node-a", "node-b"]
        assert ring.reasons().count("Placed") == 3
        assert ring.controller.fleet == Fleet.from_snapshot(ring.controller._snapshot())


async def test_what_changes_while_a_new_leader_takes_in_the_tasks_is_in_its_fleet(monkeypatch):
    monkeypatch.setattr(controller, "LOAD_TASKS", 1)
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a", "b")
        service = await ring.apply(spec("web", replicas=4))
        await settled()
        tasks = ring.tasks(service)
    async with ring.running():
        # The new leader's loop has begun, and has most tasks still before it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held = len(ring.controller.fleet.held)
        assert held < len(tasks)
        await ring.put(replace(tasks[0], outcome=Outcome(state=TaskState.FAILED)))
        await ring.put(replace(tasks[1], desired=Desired.SHUTDOWN), node("c", 3))
        ring.see("c", NodeState.READY)
        await settled()
        assert len(ring.controller.fleet.held) >= len(tasks) - 1
        assert ring.controller.fleet == Fleet.from_snapshot(ring.controller._snapshot())


async def test_an_idle_cluster_writes_nothing_and_looks_at_nothing():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web"))
        await settled()
        ring.report(ring.tasks(service)[0].id, TaskState.RUNNING)
        await settled()
        commits, cycles = ring.store.commits, ring.controller.cycles
        await settled(3000)
        assert (ring.store.commits, ring.controller.cycles) == (commits, cycles)


async def test_what_the_loop_does_is_counted_and_an_idle_one_counts_nothing():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        await ring.apply(spec("web", replicas=2, ports=(80,)))
        await settled()
        stats = ring.controller.stats
        assert stats.attempts["placed"] == 1
        assert stats.attempts["unschedulable"] >= 1
        assert stats.scheduling.count >= 1
        turns = stats.reconciling.count
        assert turns == ring.controller.cycles
        await settled(3000)
        assert stats.reconciling.count == turns


async def test_a_placement_that_is_not_written_counts_as_an_error():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        ring.store.before = [Unavailable("it is away")]
        await ring.apply(spec("web"))
        await settled(10)
        assert dict(ring.controller.stats.attempts) == {
            "placed": 1,
            "unschedulable": 0,
            "error": 1,
        }


async def test_a_slot_without_room_waits_and_is_filled_when_a_node_comes():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web", replicas=2, ports=(80,)))
        await settled()
        waiting = ring.observed.waiting[service]
        assert list(waiting) == [2]
        assert waiting[2].refusals[0].rule == "ports"
        assert "Waiting" in ring.reasons()
        await ring.put(node("b", 2))
        ring.see("b", NodeState.READY)
        await settled()
        assert [task.node for task in ring.tasks(service)] == ["node-a", "node-b"]
        assert service not in ring.observed.waiting


async def test_a_slot_that_waits_for_a_neighbour_is_filled_when_that_is_placed():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a", "b")
        beside = Neighbour(service="shop/db", key="node.id")
        service = await ring.apply(spec("web", placement=PlacementSpec(neighbours=(beside,))))
        await settled()
        assert ring.observed.waiting[service][1].refusals[0].rule == "neighbour"
        leader = await ring.apply(spec("db"))
        await settled()
        assert [task.node for task in ring.tasks(service)] == [
            task.node for task in ring.tasks(leader)
        ]
        assert service not in ring.observed.waiting


async def test_a_slot_that_waits_for_an_even_spread_is_filled_when_the_other_side_has_room():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a", "b")
        rule = SpreadRule(key="node.id", max_skew=1)
        filler = await ring.apply(spec("filler", cpu=4000))
        await settled()
        (full,) = [task.node for task in ring.tasks(filler)]
        service = await ring.apply(
            spec("web", cpu=100, replicas=3, placement=PlacementSpec(spread_rules=(rule,)))
        )
        await settled()
        assert len(ring.tasks(service)) == 1
        assert full not in {task.node for task in ring.tasks(service)}
        await ring.put(node("c", 3))
        ring.see("c", NodeState.READY)
        await settled()
        # One on the new node; a third would be one too many while the full one has none.
        assert len(ring.tasks(service)) == 2


async def test_a_slot_waits_while_the_only_node_is_not_well_and_is_filled_when_it_is():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        ring.say("a", Condition(name="engine", ok=False, message="Docker does not answer"))
        await settled()
        service = await ring.apply(spec("web"))
        await settled()
        assert not ring.tasks(service)
        waiting = ring.observed.waiting[service][1]
        assert "Docker does not answer" in waiting.reason
        ring.say("a", Condition(name="engine", ok=True))
        await settled()
        assert len(ring.tasks(service)) == 1


async def test_a_waiting_slot_is_not_looked_at_for_room_that_would_not_do(monkeypatch):
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        big = await ring.apply(spec("big", memory=1 << 40))
        small = await ring.apply(spec("small"))
        await settled()
        looked = []
        decide = reconcile.decide
        monkeypatch.setattr(
            reconcile, "decide", lambda *given: looked.append(given[2]) or decide(*given)
        )
        ring.dirt.capacity = True
        ring.report(ring.tasks(small)[0].id, TaskState.FAILED)
        await settled()
        assert small in looked
        assert big not in looked


async def test_a_service_with_which_all_is_well_is_looked_at_when_a_task_ends_not_when_one_runs(
    monkeypatch,
):
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web", replicas=3))
        await settled()
        looked = []
        decide = reconcile.decide
        monkeypatch.setattr(
            reconcile, "decide", lambda *given: looked.append(given[2]) or decide(*given)
        )
        first, second, third = (task.id for task in ring.tasks(service))
        ring.report(first, TaskState.STARTING)
        ring.report(second, TaskState.RUNNING)
        await settled()
        assert looked == []
        ring.report(third, TaskState.FAILED)
        await settled()
        assert looked[0] == service
        assert ring.reasons().count("Failed") == 1
        # It waits for a successor now, so that all is not well any more.
        del looked[:]
        ring.report(first, TaskState.RUNNING)
        await settled()
        assert service in looked


async def test_a_look_ends_when_enough_slots_want_a_task_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(controller, "LOOK_VACANCIES", 3)
    ring = Ring()
    places = []
    place = scheduling.decide
    monkeypatch.setattr(
        scheduling, "decide", lambda *given: places.append(len(given[2])) or place(*given)
    )
    services = []
    for number, name in enumerate(("one", "two", "three"), 1):
        world = World()
        world.revision = number * 100
        services.append(world.apply(spec(name, replicas=2)))
        await ring.put(world.tables.service(services[-1]), world.tables.spec(services[-1], 1))
    async with ring.running():
        await ring.add_nodes("a")
        await settled()
        assert [len(ring.tasks(service)) for service in services] == [2, 2, 2]
        assert max(places) == 4, "all that was due was looked at together"


async def test_the_successor_of_a_failed_task_waits_for_its_back_off():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web"))
        await settled()
        seen = []
        for _ in range(4):
            task = ring.tasks(service)[-1]
            start = ring.clock.boottime()
            ring.report(task.id, TaskState.FAILED, message="no")
            await ring.successor_of(task)
            seen.append(round(ring.clock.boottime() - start))
        assert seen == [1, 2, 4, 8]


async def test_a_commit_that_failed_frees_what_was_assumed_and_is_tried_again():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        ring.store.before = [Unavailable("off")]
        service = await ring.apply(spec("web", ports=(80,)))
        await settled(0.2)
        assert ring.tasks(service) == []
        assert ring.controller.fleet.held == {}
        await settled(3)
        assert len(ring.tasks(service)) == 1


async def test_a_commit_of_unknown_fate_that_took_place_is_not_made_twice():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        ring.store.after = [Ambiguous("no answer")]
        service = await ring.apply(spec("web"))
        await settled(10)
        assert [task.n for task in ring.tasks(service)] == [1]
        assert ring.committer.blocked == frozenset()


async def test_a_commit_of_unknown_fate_that_did_not_take_place_is_made_again():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        ring.store.before = [Ambiguous("no answer")]
        service = await ring.apply(spec("web"))
        await settled(10)
        assert [task.n for task in ring.tasks(service)] == [1]
        assert ring.committer.blocked == frozenset()


async def test_a_conflicting_batch_loses_only_the_change_that_conflicts():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        release = asyncio.Event()
        ring.store.late = [release]
        service = await ring.apply(spec("web", replicas=3))
        await settled(0.1)
        # While our commit is on its way somebody creates one of its tasks.
        intruder = Task(
            service=service, slot=2, n=1, node="node-a", generation=1, reason="by another"
        )
        await ring.put(intruder)
        release.set()
        await settled(5)
        tasks = ring.tasks(service)
        assert [task.slot for task in tasks] == [1, 2, 3]
        assert tasks[1] == intruder
        assert ring.controller.fleet == Fleet.from_snapshot(ring.controller._snapshot())


async def test_a_leader_that_was_replaced_stops():
    ring = Ring()
    await ring.store.commit([Write(LEADER_KEY, b"somebody else", ANY)])
    with pytest.RaisesGroup(Fenced):
        async with ring.running(Fence(epoch=12345)):
            await ring.add_nodes("a")
            await ring.apply(spec("web"))
            await settled(5)


async def test_one_service_that_cannot_be_decided_about_does_not_stop_the_others(monkeypatch):
    ring = Ring()
    decide, calls = reconcile.decide, Counter()

    def broken(snapshot, fleet, service):
        calls[service] += 1
        if service == bad:
            raise ValueError("a bug")
        return decide(snapshot, fleet, service)

    async with ring.running():
        await ring.add_nodes("a")
        bad = await ring.apply(spec("bad"))
        monkeypatch.setattr(reconcile, "decide", broken)
        good = await ring.apply(spec("good"))
        await ring.put(replace(ring.mirror.tables.service(bad), replicas=2))
        await settled(60)
        assert len(ring.tasks(good)) == 1
        assert 4 <= calls[bad] <= 10, "it is tried again, less and less often"


async def test_a_record_of_a_newer_version_is_kept_out_and_its_service_left_alone():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web", replicas=2))
        await settled()
        first = ring.tasks(service)[0]
        await ring.store.commit([Write(keys.task(first.id), b"\xff newer", ANY)])
        await settled(60)
        assert len(ring.tasks(service)) == 1, "the unreadable one is not replaced"
        assert keys.task(first.id) in ring.mirror.tables.unreadable
        assert first.id in ring.controller.fleet.held, "it still takes its room"


async def test_what_depends_on_a_service_starts_when_that_has_started():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        web = await ring.apply(spec("web", depends_on=(Dependency(service="db"),)))
        await settled()
        assert ring.tasks(web) == []
        world = World()
        world.revision = 100
        db = world.apply(spec("db"))
        await ring.put(world.tables.service(db), world.tables.spec(db, 1))
        await ring.put(ring.mirror.tables.service(web))
        await settled()
        assert ring.tasks(web) == []
        ring.report(ring.tasks(db)[0].id, TaskState.RUNNING)
        await settled()
        assert len(ring.tasks(web)) == 1


async def test_removing_a_stack_leaves_nothing_but_its_data():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("db", mounts=(volume_mount("data"),)))
        await settled()
        task = ring.tasks(service)[0]
        tables = ring.mirror.tables
        await ring.put(
            replace(tables.service(service), removing=True),
            replace(tables.stack("shop"), removing=True),
        )
        await settled()
        assert ring.tasks(service)[0].desired is Desired.REMOVED
        ring.report(task.id, TaskState.REMOVED)
        await settled()
        left = [key for key in ring.mirror.tables.stored_keys() if not key.startswith("nodes/")]
        assert left == [keys.volume("shop", "data", "node-a")]
        assert tables.volumes_of("shop", "data")[0].state is VolumeState.RETAINED


async def test_a_removal_told_by_an_agent_that_has_lost_count_is_believed():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web"))
        await settled()
        task = ring.tasks(service)[0]
        ring.report(task.id, TaskState.RUNNING, attempt=7)
        await settled()
        await ring.put(replace(ring.mirror.tables.service(service), removing=True))
        await settled()
        # Its journal is lost: it has no container and no record, and counts from 1 again.
        ring.report(task.id, TaskState.REMOVED, attempt=1)
        await settled()
        assert ring.mirror.tables.task(task.id) is None
        assert ring.mirror.tables.service(service) is None


async def test_what_an_apply_that_failed_half_way_left_behind_is_forgotten_in_time():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web"))
        await settled()
        ring.report(ring.tasks(service)[0].id, TaskState.RUNNING)
        await settled()
        kept = sorted(ring.mirror.tables.stored_keys())
        edition = ring.mirror.tables.spec(service, 1)
        content = FileSpec(kind=FileKind.CONFIG, name="conf", data=b"one")
        await ring.put(
            replace(edition, generation=2),
            replace(edition, service=ServiceId("shop-new-9")),
            StackFile(stack="shop", digest="d1", spec=content),
        )
        await settled(3700)
        assert len(ring.mirror.tables.stored_keys()) == len(kept) + 3, "they may be wanted yet"
        await settled(3600)
        assert sorted(ring.mirror.tables.stored_keys()) == kept


class CountingTables:
    """Counts look-ups, and the records that lists hand out."""

    def __init__(self, tables):
        self._tables = tables
        self.count = 0

    def __getattr__(self, name):
        found = getattr(self._tables, name)
        if not callable(found):
            return found

        def counted(*given):
            answer = found(*given)
            if isinstance(answer, list):
                self.count += len(answer)
            elif hasattr(answer, "__next__"):
                answer = list(answer)
                self.count += len(answer)
            self.count += 1
            return answer

        return counted


async def lookups_for_one_death(services):
    """Look-ups until a task that failed in a cluster of 20 nodes has its successor."""
    ring = Ring()
    world = World()
    for number in range(1, 21):
        world.put(node(f"n{number:02}", number))
        ring.observed.put_liveness(
            f"node-n{number:02}", Liveness(state=NodeState.READY, reported=True)
        )
    ids = [world.apply(spec(f"s{number}", replicas=10)) for number in range(services)]
    for index, service in enumerate(ids):
        for slot in range(1, 11):
            task = Task(
                service=service,
                slot=slot,
                n=1,
                node=f"node-n{(index + slot) % 20 + 1:02}",
                generation=1,
                created_ms=1_000_000,
            )
            world.put(task)
            ring.observed.put_status(TaskStatus(task=task.id, state=TaskState.RUNNING))
    values = [world.tables.value(key) for key in world.tables.stored_keys()]
    for start in range(0, len(values), 100):
        await ring.put(*values[start : start + 100])
    async with ring.running():
        await settled(5)
        counting = CountingTables(ring.mirror.tables)
        ring.mirror.tables = counting
        ring.report(f"{ids[0]}/1/1", TaskState.FAILED, message="it died")
        await settled(5)
        assert [task.n for task in ring.tasks(ids[0]) if task.slot == 1] == [1, 2]
        return counting.count


@pytest.mark.timeout(300)
async def test_the_death_of_one_container_costs_the_same_among_1000_and_20000_tasks():
    small = await lookups_for_one_death(100)
    large = await lookups_for_one_death(2000)
    assert large == small
