"""Leases on virtual time: who gets one, and who must not."""

import asyncio
from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    NodeState,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import Delete
from scheduler.dispatch import liveness
from scheduler.dispatch.dispatcher import Dispatcher
from tests.loops.scheduler.lanes import (
    WEB,
    Beats,
    Lane,
    ack,
    hello,
    report,
    session,
    settle,
    status,
    task,
)

pytestmark = pytest.mark.looptime(end=3600)


async def test_a_heartbeat_is_answered_with_a_lease_while_the_leadership_is_proven(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        lane.say(ack(orders))
        await settle()
        answer = await beats.beat()
        assert answer.echoed_boottime_ns == beats.sent
        assert answer.node_lease_ms == 15_000
        assert list(answer.schedulers) == ["a:1"]
        leader.proven_until = leader.clock.boottime()  # S3: not a moment longer
        assert await beats.beat() is None


async def test_s1_no_lease_before_the_agent_has_acknowledged_what_is_wanted_of_it(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        assert (await beats.beat()).node_lease_ms == 0
        lane.say(ack(orders))
        await settle()
        assert (await beats.beat()).node_lease_ms == 15_000


async def test_s1_no_lease_while_a_move_of_an_exclusive_task_is_being_written(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with (
        session(leader, joined) as (lane, orders),
        Beats(leader, joined, orders).running() as beats,
    ):
        lane.say(ack(orders))
        await settle()
        leader.observed.revoking[joined.node_id] = {f"{WEB}/1/1": f"tasks/{WEB}/1/2"}
        assert (await beats.beat()).node_lease_ms == 0
        del leader.observed.revoking[joined.node_id]
        assert (await beats.beat()).node_lease_ms == 15_000


async def test_s1_no_lease_until_the_old_holder_has_given_up_what_has_moved(leader):
    old, new = await leader.join("old"), await leader.join("new")
    await leader.service(node=old.node_id)
    holder = task(1, old.node_id, exclusive=True)
    await leader.put(holder)
    async with (
        session(leader, old) as (lane, orders),
        Beats(leader, old, orders).running() as beats,
    ):
        lane.say(ack(orders))
        lane.say(report(1, status(1), complete=True))
        await lane.hear("report_ack")
        assert (await beats.beat()).node_lease_ms == 15_000
        await leader.put(replace(holder, n=2, node=new.node_id))
        assert (await beats.beat()).node_lease_ms == 0
        await leader.put(replace(holder, desired=Desired.REMOVED))
        ending = await lane.hear("assignments")
        assert (await beats.beat()).node_lease_ms == 0
        lane.say(ack(ending))
        await settle()
        assert (await beats.beat()).node_lease_ms == 0  # told, and it may still be held there
        lane.say(report(2, status(1, TaskState.SHUTDOWN)))
        await lane.hear("report_ack")
        assert (await beats.beat()).node_lease_ms == 15_000


async def test_s1_a_new_leader_withholds_the_lease_for_what_earlier_ones_have_moved(leader):
    old = await leader.join("old")
    await leader.service(node=old.node_id)
    holder = task(1, old.node_id, exclusive=True)
    await leader.put(holder, replace(holder, n=2, node="elsewhere"))
    leader.dispatcher = Dispatcher(leader.authority, schedulers=lambda: ())
    leader.lanes.dispatcher = leader.dispatcher
    async with (
        session(leader, old) as (lane, orders),
        Beats(leader, old, orders).running() as beats,
    ):
        lane.say(ack(orders))
        await settle()
        assert (await beats.beat()).node_lease_ms == 0
        await leader.authority.commit(
            [Delete(keys.task(holder.id), leader.mirror.tables.version(keys.task(holder.id)), "t")]
        )
        assert (await beats.beat()).node_lease_ms == 15_000  # the record is gone


async def test_a_node_that_is_lost_by_the_operators_word_is_down_at_once(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        await leader.put(replace(leader.mirror.tables.node(joined.node_id), lost_ms=5))
        assert "is off" in (await lane.hear("farewell")).reason
        assert leader.state(joined.node_id) is NodeState.DOWN


async def test_the_word_that_a_node_is_lost_is_void_once_it_is_back_and_has_its_orders(leader):
    joined = await leader.join()
    await leader.put(replace(leader.mirror.tables.node(joined.node_id), lost_ms=5))
    assert leader.state(joined.node_id) is NodeState.DOWN
    async with session(leader, joined) as (lane, orders):
        await settle()
        assert leader.mirror.tables.node(joined.node_id).lost_ms == 5
        lane.say(ack(orders))
        await settle()
        assert leader.mirror.tables.node(joined.node_id).lost_ms == 0
        assert leader.state(joined.node_id) is NodeState.READY


async def test_a_new_leader_knows_which_nodes_are_lost(leader):
    joined = await leader.join()
    await leader.put(replace(leader.mirror.tables.node(joined.node_id), lost_ms=5))
    Dispatcher(leader.authority, schedulers=lambda: ())
    assert leader.state(joined.node_id) is NodeState.DOWN


async def test_a_heartbeat_of_another_session_gets_no_lease(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (_, orders),
        Beats(leader, joined, orders, session="older").running() as beats,
    ):
        assert await beats.beat() is None


async def lives(leader, joined, orders, session):
    """One answered heartbeat: what an old hello cannot give."""
    async with Beats(leader, joined, orders, session=session).running() as beats:
        assert await beats.beat() is not None


async def turned_away(leader, joined, session, boot):
    """The words that a hello is refused with."""
    lane = Lane()
    lane.say(hello(joined, session=session, boot=boot))
    await leader.lanes.session(lane)
    return (await lane.hear("farewell")).reason


async def test_two_machines_with_one_identity_are_noticed(leader):
    joined = await leader.join()
    async with session(leader, joined, session="1", boot="b1") as (_, orders):
        await lives(leader, joined, orders, "1")
        async with session(leader, joined, session="2", boot="b2") as (_, orders):
            await lives(leader, joined, orders, "2")
            assert "say it again" in await turned_away(leader, joined, "3", "b1")
            words = await turned_away(leader, joined, "4", "b1")
            assert "two machines use its identity" in words
            assert [each.reason for each in leader.observed.events][-1] == "DuplicateIdentity"
            assert leader.observed.node(joined.node_id).session == "2"


async def test_an_old_hello_that_comes_late_makes_no_second_machine(leader):
    joined = await leader.join()
    # The machine was started anew; what it said before waited somewhere on the way.
    async with session(leader, joined, session="2", boot="b2") as (_, orders):
        await lives(leader, joined, orders, "2")
        async with session(leader, joined, session="1", boot="b1"):
            pass  # nobody answers the welcome
    async with session(leader, joined, session="3", boot="b2") as (_, orders):
        await lives(leader, joined, orders, "3")
    assert not leader.observed.node(joined.node_id).unfenced
    assert "DuplicateIdentity" not in [each.reason for each in leader.observed.events]


async def test_s1_neither_of_two_machines_with_one_identity_gets_a_lease(leader):
    joined = await leader.join()
    async with session(leader, joined, session="1", boot="b1") as (first, orders):
        first.say(ack(orders))
        await settle()
        beats = Beats(leader, joined, orders, session="1")
        async with beats.running():
            assert (await beats.beat()).node_lease_ms == 15_000
        # The copy comes; it may be the same machine after a restart.
        async with session(leader, joined, session="2", boot="b2") as (second, orders):
            second.say(ack(orders))
            await settle()
            beats = Beats(leader, joined, orders, session="2")
            async with beats.running():
                assert (await beats.beat()).node_lease_ms == 0  # the first may live on its lease
                await turned_away(leader, joined, "3", "b1")
                await turned_away(leader, joined, "4", "b1")
                await asyncio.sleep(30)
                assert (await beats.beat()).node_lease_ms == 0
                assert "two machines" in leader.observed.node(joined.node_id).unfenced
                await asyncio.sleep(liveness.ALTERNATION_SECONDS)
                assert (await beats.beat()).node_lease_ms == 15_000


async def test_of_two_machines_with_one_identity_the_one_that_is_left_is_let_in_unfenced(leader):
    joined = await leader.join()
    async with session(leader, joined, session="1", boot="b1") as (first, orders):
        first.say(ack(orders))
        await lives(leader, joined, orders, "1")
    async with session(leader, joined, session="2", boot="b2") as (second, orders):
        second.say(ack(orders))
        await lives(leader, joined, orders, "2")
        await turned_away(leader, joined, "3", "b1")
        assert "two machines" in await turned_away(leader, joined, "4", "b1")
    # The copy is stopped, as the message asks.
    await asyncio.sleep(10)
    async with session(leader, joined, session="5", boot="b1") as (first, orders):
        first.say(ack(orders))
        await settle()
        beats = Beats(leader, joined, orders, session="5")
        async with beats.running():
            assert (await beats.beat()).node_lease_ms == 0
        assert leader.observed.node(joined.node_id).session == "5"


async def test_s1_a_machine_that_was_restarted_gets_its_lease_when_the_old_one_is_over(leader):
    joined = await leader.join()
    async with session(leader, joined, session="1", boot="b1") as (first, orders):
        first.say(ack(orders))
        await settle()
        beats = Beats(leader, joined, orders, session="1")
        async with beats.running():
            await beats.beat()
    async with session(leader, joined, session="2", boot="b2") as (second, orders):
        second.say(ack(orders))
        await settle()
        beats = Beats(leader, joined, orders, session="2")
        async with beats.running():
            await asyncio.sleep(14)
            assert (await beats.beat()).node_lease_ms == 0
            await asyncio.sleep(1.2)
            assert (await beats.beat()).node_lease_ms == 15_000


@pytest.mark.parametrize(
    ("rate", "word"), [(0.97, "slower"), (1.03, "faster"), (0.995, ""), (1.005, "")]
)
async def test_s1_a_node_whose_clock_runs_off_by_more_than_a_percent_gets_no_lease(
    leader, rate, word
):
    joined = await leader.join()
    async with session(leader, joined) as (lane, orders):
        lane.say(ack(orders))
        await settle()
        beats = Beats(leader, joined, orders)
        beats.clock_rate = rate
        async with beats.running():
            for _ in range(70):
                answer = await beats.beat()
                await asyncio.sleep(1)
        unfenced = leader.observed.node(joined.node_id).unfenced
        assert (word in unfenced) if word else (unfenced == "")
        assert answer.node_lease_ms == (0 if word else 15_000)
