"""What the controller's loop does about commits that fail, are refused, or are not answered."""

import asyncio

import pytest

from homeport.model import Task
from scheduler.placement.fleet import Fleet
from scheduler.store.base import ANY, LEADER_KEY, Ambiguous, Fence, Fenced, Unavailable, Write
from tests.builders import spec
from tests.loops.scheduler.ring import Ring, settled

pytestmark = pytest.mark.looptime


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
