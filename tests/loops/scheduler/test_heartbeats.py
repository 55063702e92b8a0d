"""Heartbeats on virtual time: what is noticed by them and by their absence, at exact times."""

import asyncio

import pytest

from homeport.digests import running_hash, wanted_hash
from homeport.lifecycle import TaskState
from homeport.model import (
    NodeState,
)
from homeport.v1 import dispatcher_pb2 as pb
from tests.loops.scheduler.lanes import (
    Beats,
    ack,
    report,
    session,
    status,
)

pytestmark = pytest.mark.looptime(end=3600)


async def test_an_idle_session_with_heartbeats_writes_nothing(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, orders):
        lane.say(report(1, complete=True))
        await lane.hear("report_ack")
        revision, sequence = leader.mirror.newest, leader.observed.sequence
        beats = Beats(leader, joined, orders)
        async with beats.running():
            for _ in range(60):
                await beats.beat()
                await asyncio.sleep(1)
        assert leader.mirror.newest == revision
        assert leader.observed.sequence == sequence  # nor does any watcher wake
        assert lane.silent()


async def test_a_node_that_was_silent_is_asked_for_a_report(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        lane.say(ack(orders))
        lane.say(report(1, complete=True))
        await lane.hear("report_ack")
        assert not (await beats.beat()).resend_report
        await asyncio.sleep(6)
        assert leader.state(joined.node_id) is NodeState.SUSPECT
        assert (await beats.beat()).resend_report
        assert not leader.observed.knows(joined.node_id)
        lane.say(report(2, complete=True))
        await lane.hear("report_ack")
        assert leader.observed.knows(joined.node_id)
        assert not (await beats.beat()).resend_report


async def test_a_false_suspicion_doubles_the_nodes_threshold(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (_, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        await asyncio.sleep(6)
        assert leader.state(joined.node_id) is NodeState.SUSPECT
        await beats.beat()
        await asyncio.sleep(6)
        assert leader.state(joined.node_id) is NodeState.READY
        await asyncio.sleep(5)
        assert leader.state(joined.node_id) is NodeState.SUSPECT


async def test_s3_silence_means_nothing_to_who_is_not_the_proven_leader(leader):
    joined = await leader.join()
    async with session(leader, joined):
        leader.proven_until = leader.clock.boottime()
        await asyncio.sleep(60)
        assert leader.state(joined.node_id) is NodeState.READY


async def test_nothing_is_ordered_once_the_leadership_is_not_proven(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        leader.proven_until = leader.clock.boottime()
        await leader.service(1, node=joined.node_id)
        farewell = await lane.hear("farewell")
        assert "may not lead" in farewell.reason


async def test_orders_that_got_lost_are_told_again_after_two_heartbeats_say_so(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        beats.wanted = wanted_hash([])
        assert not (await beats.beat()).resend_assignments  # it may be on its way
        assert (await beats.beat()).resend_assignments
        again = await lane.hear("assignments")
        assert again.kind == pb.Assignments.KIND_COMPLETE
        assert [each.task for each in again.tasks] == ["s-web-1/1/1"]
        assert len(again.specs) == 1


async def test_reports_that_got_lost_are_asked_for_after_two_heartbeats_say_so(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        lane.say(report(1, status(1), complete=True))
        await lane.hear("report_ack")
        beats.running_hash = running_hash([status(1)])
        assert not (await beats.beat()).resend_report
        beats.running_hash = running_hash([status(1, TaskState.BACKOFF)])
        assert not (await beats.beat()).resend_report
        assert (await beats.beat()).resend_report


async def test_silence_is_noticed_at_its_exact_time(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, orders):
        async with Beats(leader, joined, orders).running() as beats:
            await beats.beat()
        last = leader.clock.boottime()
        lane.broken = True
        found = []
        for _ in range(400):
            await asyncio.sleep(0.05)
            state = leader.state(joined.node_id)
            if not found or found[-1][1] is not state:
                found.append((round(leader.clock.boottime() - last, 1), state))
    assert [state for _, state in found] == [
        NodeState.READY,
        NodeState.SUSPECT,
        NodeState.DOWN,
    ]
    assert [at for at, _ in found[1:]] == pytest.approx([5.0, 17.0], abs=0.11)


async def test_a_node_that_this_leader_never_heard_is_suspected_after_a_lease_and_then_down(leader):
    joined = await leader.join()
    assert leader.state(joined.node_id) is NodeState.UNKNOWN
    await asyncio.sleep(14.5)
    assert leader.state(joined.node_id) is NodeState.UNKNOWN
    await asyncio.sleep(1)
    assert leader.state(joined.node_id) is NodeState.SUSPECT
    await asyncio.sleep(6)
    assert leader.state(joined.node_id) is NodeState.SUSPECT
    await asyncio.sleep(1)
    assert leader.state(joined.node_id) is NodeState.DOWN


async def test_a_goodbye_of_a_restarting_agent_is_no_silence(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        goodbye = pb.Goodbye(kind=pb.GOODBYE_KIND_AGENT_RESTARTING)
        lane.say(pb.SessionRequest(goodbye=goodbye))
        await lane.serving
    await asyncio.sleep(10)
    assert leader.state(joined.node_id) is NodeState.READY
    async with session(leader, joined, session="s2"):
        assert not leader.observed.node(joined.node_id).restarting


async def test_a_goodbye_of_a_machine_that_goes_down_makes_it_suspect_at_once(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        goodbye = pb.Goodbye(kind=pb.GOODBYE_KIND_MACHINE_GOING_DOWN)
        lane.say(pb.SessionRequest(goodbye=goodbye))
        await lane.serving
    assert leader.state(joined.node_id) is NodeState.SUSPECT
    await asyncio.sleep(18)
    assert leader.state(joined.node_id) is NodeState.DOWN
