"""Verify the one loop: what wakes it, and what comes of it.

What it commits and what it costs are in test_controller_commits.py and test_controller_costs.py.
"""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Condition, NodeState, Outcome, ServiceId, StackFile, VolumeState
from homeport.spec import Dependency, FileKind, FileSpec, Neighbour, PlacementSpec, SpreadRule
from scheduler import controller
from scheduler.cluster import keys
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import services as reconcile
from scheduler.store.base import ANY, Write
from tests.builders import World, node, spec, volume_mount
from tests.loops.scheduler.ring import Ring, settled

pytestmark = pytest.mark.looptime


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
