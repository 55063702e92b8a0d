"""Bulk work on virtual time: who asks for it meets the agent that does it."""

import asyncio

import pytest

from homeport.seams import LinkLost
from homeport.v1 import dispatcher_pb2 as pb
from tests.loops.scheduler.lanes import (
    Lane,
    session,
)

pytestmark = pytest.mark.looptime(end=3600)


async def test_bulk_work_is_matched_to_who_waits_for_it(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):
        work = pb.LogsWork(task="s-web-1/1/1", tail=5)

        async def agent():
            asked = await lane.hear("open_bulk")
            assert asked.logs == work
            bulk = Lane()
            bulk.say(
                pb.BulkRequest(hello=pb.BulkHello(node_id=joined.node_id, bulk_id=asked.bulk_id))
            )
            bulk.say(pb.BulkRequest(output=pb.Output(data=b"hi")))
            bulk.say(pb.BulkRequest(end=pb.BulkEnd()))
            await leader.lanes.bulk(bulk)

        async with asyncio.TaskGroup() as background:
            background.create_task(agent())
            async with leader.dispatcher.bulk.open(joined.node_id, work) as call:
                bodies = [each.WhichOneof("body") async for each in _until_end(call.requests)]
        assert bodies == ["output", "end"]


async def _until_end(requests):
    async for request in requests:
        yield request
        if request.WhichOneof("body") == "end":
            return


async def test_nobody_waits_for_bulk_work_longer_than_the_deadline(leader):
    joined = await leader.join()
    with pytest.raises(LinkLost, match="not connected"):
        async with leader.dispatcher.bulk.open(joined.node_id, pb.LogsWork()):
            pass
    async with session(leader, joined):
        began = leader.clock.boottime()
        with pytest.raises(LinkLost, match="did not open the call within 10 s"):
            async with leader.dispatcher.bulk.open(joined.node_id, pb.LogsWork()):
                pass
        assert leader.clock.boottime() - began == pytest.approx(10, abs=0.1)


async def test_the_bulk_call_of_another_node_is_not_taken_for_the_awaited_one(leader):
    joined = await leader.join()
    async with session(leader, joined) as (lane, _):

        async def stranger():
            asked = await lane.hear("open_bulk")
            bulk = Lane()
            bulk.say(pb.BulkRequest(hello=pb.BulkHello(node_id="n9-x", bulk_id=asked.bulk_id)))
            await leader.lanes.bulk(bulk)
            assert "nobody waits" in (await bulk.hear("end")).error

        async with asyncio.TaskGroup() as background:
            background.create_task(stranger())
            with pytest.raises(LinkLost):
                async with leader.dispatcher.bulk.open(joined.node_id, pb.LogsWork()):
                    pass
