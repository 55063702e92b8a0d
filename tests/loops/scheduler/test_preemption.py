"""Verify what the control loop makes of preemption: what it writes, tells, counts and wakes for."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import NodeState
from homeport.spec import Constraint, ConstraintOperator, PlacementSpec
from scheduler.cluster.observed import Brake
from scheduler.placement.fleet import Fleet
from scheduler.store.base import Unavailable
from tests.builders import GIB, node, spec
from tests.loops.scheduler.ring import Ring, settled

pytestmark = pytest.mark.looptime

YOUNG_SECONDS = 12
"""A new leader does not know what was stopped just before it came, and has nothing stopped."""


async def filled(ring, *names, replicas=2, memory=4 * GIB, **fields):
    """Nodes that are full of a service of priority 0, all of which runs."""
    await ring.add_nodes(*names)
    low = await ring.apply(spec("low", memory=memory, **fields), replicas=replicas)
    await settled()
    for task in ring.tasks(low):
        ring.report(task.id, TaskState.RUNNING)
    await settled(YOUNG_SECONDS)
    return low


def chief(**fields):
    return spec("chief", **({"memory": 4 * GIB, "priority": 100, "preempts": True} | fields))


def ending(ring, service):
    return [
        task
        for task in ring.tasks(service)
        if task.outcome is None and task.desired is not Desired.RUNNING
    ]


def live(ring, service):
    return [
        task
        for task in ring.tasks(service)
        if task.outcome is None and task.desired is Desired.RUNNING
    ]


def same_fleet(ring):
    return ring.controller.fleet == Fleet.from_snapshot(ring.controller._snapshot())


async def test_room_is_made_told_and_counted():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        service = await ring.apply(chief())
        await settled()
        (victim,) = ending(ring, low)
        (event,) = [each for each in ring.observed.events if each.reason == "Preempted"]
        assert (event.object, event.node) == (victim.id, "a")
        assert event.message == "it makes room for shop/chief.1 of priority 100"
        assert ring.controller.stats.preempted == 1
        assert same_fleet(ring)
        commits = ring.store.commits
        await settled(300)
        assert (ring.store.commits, len(ending(ring, low))) == (commits, 1)
        ring.report(victim.id, TaskState.SHUTDOWN)
        await settled()
        assert [task.node for task in live(ring, service)] == [victim.node]
        assert ring.observed.waiting[low][victim.slot].refusals
        assert ring.controller.stats.preempted == 1
        assert same_fleet(ring)


async def test_the_room_is_kept_until_all_of_it_is_there():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        service = await ring.apply(chief(memory=8 * GIB))
        await settled()
        first, second = ending(ring, low)
        ring.report(first.id, TaskState.SHUTDOWN)
        await settled(30)
        assert live(ring, low) == live(ring, service) == []
        ring.report(second.id, TaskState.SHUTDOWN)
        await settled()
        assert len(live(ring, service)) == 1


async def test_room_that_is_not_needed_after_all_goes_to_who_waits():
    ring = Ring()
    async with ring.running():
        on_a = Constraint(key="node.hostname", operator=ConstraintOperator.EQ, value="a")
        low = await filled(ring, "a", placement=PlacementSpec(constraints=(on_a,)))
        service = await ring.apply(chief(memory=8 * GIB))
        await settled()
        first, _ = ending(ring, low)
        ring.report(first.id, TaskState.SHUTDOWN)
        await settled()
        assert live(ring, low) == []
        # It gets a node of its own, and what was kept for it is free.
        await ring.put(node("b", 2))
        ring.see("b", NodeState.READY)
        await settled()
        assert [task.node for task in live(ring, service)] == ["node-b"]
        assert [task.slot for task in live(ring, low)] == [first.slot]


async def test_a_larger_set_ends_a_few_at_a_time_and_only_once():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a", replicas=8, memory=GIB)
        service = await ring.apply(chief(memory=5 * GIB))
        await settled()
        begun = ending(ring, low)
        assert len(begun) == 3
        for task in begun:
            ring.report(task.id, TaskState.SHUTDOWN)
        await settled(5)
        assert ending(ring, low) == []
        await settled(20)
        assert len(ending(ring, low)) == 2
        for task in ending(ring, low):
            ring.report(task.id, TaskState.SHUTDOWN)
        await settled()
        assert len(live(ring, service)) == 1
        assert ring.controller.stats.preempted == 5


async def test_the_next_leader_ends_nobody_more():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        service = await ring.apply(chief())
        await settled()
    async with ring.running():
        await settled(60)
        (victim,) = ending(ring, low)
        ring.report(victim.id, TaskState.SHUTDOWN)
        await settled()
        assert len(live(ring, service)) == 1
        assert len(live(ring, low)) == 1


async def test_a_stop_that_was_not_written_is_tried_again():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        ring.store.before = [Unavailable("it is away")]
        await ring.apply(chief())
        await settled(10)
        assert ring.store.before == []
        assert len(ending(ring, low)) == 1
        assert ring.controller.stats.preempted == 1


async def test_nobody_ends_before_all_nodes_have_reported_and_then_somebody_does():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        await ring.put(node("b", 2))
        await ring.apply(chief())
        await settled(60)
        assert ending(ring, low) == []
        ring.see("b", NodeState.DOWN)
        await settled()
        assert len(ending(ring, low)) == 1


async def test_nobody_ends_while_the_brake_is_on_and_somebody_does_when_it_is_off():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a")
        ring.observed.brake = Brake(since=0.0, since_ms=0, silent=(), counted=(), cause="a cut")
        await ring.apply(chief())
        await settled(60)
        assert ending(ring, low) == []
        # Nothing but the brake itself changes.
        ring.see("a", NodeState.READY)
        await settled()
        assert ring.observed.brake is None
        assert len(ending(ring, low)) == 1


async def test_room_that_a_higher_priority_took_is_made_anew():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a", "b", replicas=4)
        service = await ring.apply(chief())
        await settled()
        (victim,) = ending(ring, low)
        urgent = await ring.apply(spec("urgent", memory=4 * GIB, priority=200))
        ring.report(victim.id, TaskState.SHUTDOWN)
        await settled(10)
        assert len(live(ring, urgent)) == 1
        (second,) = ending(ring, low)
        ring.report(second.id, TaskState.SHUTDOWN)
        await settled(10)
        assert len(live(ring, service)) == 1


async def test_what_kept_somebody_may_change_and_is_looked_at_again():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a", preemptible=False)
        service = await ring.apply(chief())
        await settled()
        assert "no tasks of lower priority" in ring.observed.waiting[service][1].reason
        edition = ring.mirror.tables.spec(low, 1)
        head = ring.mirror.tables.service(low)
        spec_now = replace(edition.spec, preemptible=None)
        await ring.put(replace(edition, generation=2, spec=spec_now), replace(head, generation=2))
        await settled(10)
        assert len(ending(ring, low)) == 1


async def test_a_minimum_that_has_come_to_run_lets_others_go():
    ring = Ring()
    async with ring.running():
        low = await filled(ring, "a", min_replicas=1)
        sick = ring.tasks(low)[0]
        ring.report(sick.id, TaskState.BACKOFF)
        await ring.apply(chief())
        await settled(30)
        assert ending(ring, low) == []
        ring.report(sick.id, TaskState.RUNNING, attempt=2)
        await settled(10)
        assert len(ending(ring, low)) == 1


async def test_who_waits_for_room_that_nobody_can_make_costs_nothing():
    ring = Ring()
    async with ring.running():
        await filled(ring, "a", priority=100)
        await ring.apply(chief())
        await settled(60)
        cycles = ring.controller.cycles
        await settled(3000)
        assert ring.controller.cycles == cycles
