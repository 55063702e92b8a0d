"""Sessions on virtual time: what is told at their beginning, reports, ends, and who gets none."""

import asyncio
from dataclasses import replace

import pytest

from homeport import codec
from homeport.digests import running_hash, wanted_hash
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Assignment,
    Inventory,
    NodeState,
    OrderId,
    TaskStatus,
    Volume,
)
from homeport.seams import LinkLost, Refused
from homeport.v1 import dispatcher_pb2 as pb
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Delete, Put
from scheduler.dispatch.lanes import Lanes
from scheduler.store.authority import NotLeading
from tests.loops.scheduler.lanes import (
    WEB,
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


async def test_a_session_begins_with_a_welcome_and_everything_that_is_wanted(leader):
    joined = await leader.join()
    await leader.service(1, 2, node=joined.node_id)
    async with session(leader, joined) as (lane, orders):
        assert lane.welcome.node_name == "pi"
        assert (lane.welcome.node_lease_ms, lane.welcome.heartbeat_ms) == (15_000, 1_000)
        assert lane.welcome.send_report
        assert orders.kind == pb.Assignments.KIND_COMPLETE
        assert [each.task for each in orders.tasks] == ["s-web-1/1/1", "s-web-1/2/1"]
        assert [each.generation for each in orders.specs] == [1]
        assert orders.order.epoch == leader.authority.epoch
        assert leader.state(joined.node_id) is NodeState.READY
        assert not leader.observed.knows(joined.node_id)


async def test_commits_that_come_while_a_message_is_sent_are_one_message(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined) as (lane, orders):
        for slot in (2, 3, 4):
            await leader.authority.commit([Put(task(slot, joined.node_id), ABSENT, "t")])
        await settle()
        told, before = [], orders.order
        while not lane.silent():
            message = await lane.hear("assignments")
            assert message.applies_to == before
            told += [each.task for each in message.tasks]
            before = message.order
        assert told == ["s-web-1/2/1", "s-web-1/3/1", "s-web-1/4/1"]


async def test_a_task_of_another_node_is_not_told(leader):
    mine, other = await leader.join("mine"), await leader.join("other")
    async with session(leader, mine) as (lane, _):
        await leader.service(1, node=other.node_id)
        await settle()
        assert lane.silent()


async def test_a_complete_report_makes_the_node_known_and_is_acknowledged(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        leader.authority.dirt.take()
        lane.say(report(1, status(1), complete=True))
        assert (await lane.hear("report_ack")).sequence == 1
        await settle()
        assert leader.observed.knows(joined.node_id)
        assert leader.observed.status(f"{WEB}/1/1").state is TaskState.RUNNING
        # Its tasks are known now: more than that one of them has come further.
        assert WEB in leader.authority.dirt.services
        assert WEB in leader.authority.dirt.take_progress()
        assert leader.wakes


async def test_a_status_never_goes_backwards(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        lane.say(report(1, status(1, attempt=3), complete=True))
        await lane.hear("report_ack")
        lane.say(report(2, status(1, TaskState.PREPARING, attempt=2)))
        await lane.hear("report_ack")
        assert leader.observed.status(f"{WEB}/1/1").attempt == 3


async def test_a_report_that_is_repeated_on_the_way_takes_nothing_back(leader):
    joined = await leader.join()
    await leader.service(1, 2, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        lane.say(report(1, status(1), complete=True))
        await lane.hear("report_ack")
        lane.say(report(2, status(2)))
        await lane.hear("report_ack")
        lane.say(report(1, status(1), complete=True))
        lane.say(report(3))
        assert (await lane.hear("report_ack")).sequence == 3
        assert leader.observed.status(f"{WEB}/2/1") is not None


async def test_what_a_complete_report_leaves_out_is_not_there(leader):
    joined = await leader.join()
    await leader.service(1, 2, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        lane.say(report(1, status(1), status(2), complete=True))
        await lane.hear("report_ack")
        lane.say(report(2, status(1), complete=True))
        await lane.hear("report_ack")
        assert leader.observed.status(f"{WEB}/2/1") is None


async def test_l1_the_end_of_a_task_that_nobody_could_write_down_is_asked_for_again(leader):
    """Its agent said that it is gone, was heard, and forgot it; the store took no write."""
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        lane.say(report(1, status(1), complete=True))
        await lane.hear("report_ack")
        await leader.put(task(1, joined.node_id, desired=Desired.REMOVED))
        first = await lane.hear("assignments")
        lane.say(ack(first))
        lane.say(report(2, status(1, TaskState.REMOVED)))
        await lane.hear("report_ack")
        lane.say(report(3, complete=True))
        await lane.hear("report_ack")
        again = await lane.hear("assignments")
        assert [each.task for each in again.tombstones] == [f"{WEB}/1/1"]
        lane.say(ack(again))
        lane.say(report(4, status(1, TaskState.REMOVED)))
        await lane.hear("report_ack")
        assert leader.observed.status(f"{WEB}/1/1").state is TaskState.REMOVED


async def test_volumes_are_stored_before_their_report_is_acknowledged(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        volume = Volume(stack="s", name="data", node="ignored")
        lane.say(report(1, complete=True, volumes=[volume]))
        await lane.hear("report_ack")
        (found,) = leader.mirror.tables.volumes_of("s", "data")
        assert found.node == joined.node_id
        revision = leader.mirror.newest
        lane.say(report(2, complete=True, volumes=[volume]))
        await lane.hear("report_ack")
        assert leader.mirror.newest == revision  # nothing is written twice


async def test_a_status_that_this_version_cannot_read_concerns_only_its_task(leader):
    joined = await leader.join()
    await leader.service(1, 2, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        message = report(1, status(1), status(2), complete=True)
        message.report.statuses[0].state = 99
        lane.say(message)
        await lane.hear("report_ack")
        assert leader.observed.status(f"{WEB}/1/1") is None
        assert leader.observed.status(f"{WEB}/2/1").state is TaskState.RUNNING


async def test_an_inventory_is_written_when_it_differs_and_only_then(leader):
    joined = await leader.join()
    changed = codec.to_message(Inventory(kernel="6.1"))
    async with session(leader, joined, inventory=changed) as (lane, _):
        await settle()
        assert leader.mirror.tables.node(joined.node_id).inventory.kernel == "6.1"
        revision = leader.mirror.newest
        lane.say(pb.SessionRequest(node_report=pb.NodeReport(inventory=changed)))
        await settle()
        assert leader.mirror.newest == revision


async def test_a_reconnect_of_an_agent_that_told_everything_needs_no_report(leader):
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined) as (lane, _):
        lane.say(report(1, status(1), complete=True))
        await lane.hear("report_ack")
    known = running_hash([status(1)])
    async with session(leader, joined, session="s2", running_hash=known) as (lane, _):
        assert not lane.welcome.send_report
        assert leader.observed.knows(joined.node_id)


async def test_a_newer_session_of_the_same_boot_takes_the_place_of_the_older(leader):
    joined = await leader.join()
    async with (
        session(leader, joined, session="old") as (old, _),
        session(leader, joined, session="new") as (_, _),
    ):
        assert "takes its place" in (await old.hear("farewell")).reason
        await old.serving
        assert leader.observed.node(joined.node_id).session == "new"
    assert leader.observed.node(joined.node_id).session == ""


async def test_s20_an_agent_is_told_what_was_heard_of_its_tasks_as_it_may_have_forgotten(leader):
    joined = await leader.join()
    await leader.service(1, 2, 3, node=joined.node_id)
    async with session(leader, joined, session="old") as (lane, _):
        lane.say(report(1, status(1, attempt=3), status(2, TaskState.COMPLETE), complete=True))
        await lane.hear("report_ack")
    async with session(leader, joined, session="new") as (lane, _):
        told = [codec.from_message(TaskStatus, each) for each in lane.welcome.told]
        assert told == [status(1, attempt=3)]  # of the end of 2 the orders tell, of 3 none knows


async def test_s20_what_comes_late_from_an_older_session_is_not_heard(leader):
    """The agent has been told what was heard: more of that must not come behind its back."""
    joined = await leader.join()
    await leader.service(1, node=joined.node_id)
    async with session(leader, joined, session="old") as (old, _):
        old.is_stuck = True  # it takes no farewell, and what it has sent flies on
        await leader.put(task(2, joined.node_id))
        await settle()
        async with session(leader, joined, session="new") as (lane, _):
            old.say(report(1, status(1, attempt=5), complete=True))
            await settle()
            lane.say(report(1, status(1, attempt=2), complete=True))
            await lane.hear("report_ack")
            assert leader.observed.status(f"{WEB}/1/1").attempt == 2
        old.is_stuck = False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster_id": "other"}, "this is cluster c"),
        ({"seen": codec.to_message(OrderId(cluster="c", incarnation=9))}, "was restored"),
    ],
    ids=["an agent of another cluster", "an agent that has seen a later incarnation"],
)
async def test_who_gets_no_session_and_why(leader, change, words):
    joined = await leader.join()
    lane = Lane()
    lane.say(hello(joined, **change))
    await leader.lanes.session(lane)
    assert words in (await lane.hear("farewell")).reason


async def test_a_node_that_was_removed_is_told_so(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        node = leader.mirror.tables.node(joined.node_id)
        key = keys.node(node.id)
        await leader.authority.commit([Delete(key, leader.mirror.tables.version(key), "t")])
        assert "was removed" in (await lane.hear("farewell")).reason
        await lane.serving
    lane = Lane()
    lane.say(hello(joined))
    await leader.lanes.session(lane)
    assert "was removed" in (await lane.hear("farewell")).reason
    assert joined.node_id not in leader.observed.liveness


async def test_joining_twice_at_once_makes_two_numbers(leader):
    async with asyncio.TaskGroup() as background:
        joins = [background.create_task(leader.join(f"n{number}")) for number in range(4)]
    nodes = [leader.mirror.tables.node(each.result().node_id) for each in joins]
    assert sorted(node.number for node in nodes) == [1, 2, 3, 4]
    with pytest.raises(Refused, match="belongs to node"):
        await leader.lanes.join(pb.JoinRequest(name="n1", request_id="another"))


async def test_who_does_not_lead_names_the_leader():
    lanes = Lanes()
    lanes.leader = "b:2"
    with pytest.raises(NotLeading, match="b:2"):
        await lanes.join(pb.JoinRequest())
    with pytest.raises(NotLeading, match="b:2"):
        await lanes.heartbeat(Lane())
    lane = Lane()
    lane.say(pb.SessionRequest(hello=pb.Hello()))
    await lanes.session(lane)
    farewell = await lane.hear("farewell")
    assert farewell.leader == "b:2"


async def test_a_lane_that_says_nothing_is_closed():
    with pytest.raises(LinkLost, match="did not say hello"):
        await Lanes().session(Lane())


async def test_the_end_of_an_epoch_is_told_to_every_agent(leader):
    first, second = await leader.join("a"), await leader.join("b")
    async with (
        session(leader, first) as (one, _),
        session(leader, second, session="s2") as (two, _),
    ):
        await leader.dispatcher.close("this scheduler leads no more", leader="b:2")
        for lane in (one, two):
            farewell = await lane.hear("farewell")
            assert (farewell.reason, farewell.leader) == ("this scheduler leads no more", "b:2")
            await lane.serving


def test_the_hashes_of_both_sides_agree():
    # What the scheduler tells is what the agent hashes.
    wanted = Assignment(
        task=f"{WEB}/1/1", stack="s", service_name="web", generation=1, desired=Desired.RUNNING
    )
    assert wanted_hash([wanted]) == wanted_hash([replace(wanted, fence_token=9, reason="x")])
