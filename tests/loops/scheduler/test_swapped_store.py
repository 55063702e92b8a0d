"""A store whose past is swapped under running schedulers: they stop nothing, and say so.

Whole schedulers on one store in memory, in virtual time; what agents have journalled is told
by hellos.
"""

import asyncio
import contextlib

import grpc
import pytest

from homeport import codec
from homeport.model import Cluster, Node, NodeId, NodeState, OrderId
from homeport.v1 import control_pb2, dispatcher_pb2
from scheduler.api.errors import Relayed
from scheduler.cluster import keys
from scheduler.cluster.changes import Put
from scheduler.store import renewal, standing
from scheduler.store.base import ABSENT, LEADER_KEY, Write
from scheduler.store.forward import WentBack
from scheduler.store.memory import MemoryStore
from tests.loops.scheduler.schedulers import LoopClock, Schedulers, stack, until

pytestmark = pytest.mark.looptime(end=10_000)

NODE = Node(id=NodeId("n1-x"), name="n1", number=1)


@pytest.fixture
async def schedulers(tmp_path):
    both = Schedulers(tmp_path)
    for each in both.all:
        each.start()
    yield both
    for each in both.all:
        with contextlib.suppress(Exception):
            await each.end()


def scale(replicas):
    return control_pb2.ScaleRequest(stack="hello", replicas={"web": replicas})


def apply(name="hello"):
    return control_pb2.ApplyRequest(stack=stack(name, "example"))


class Stream:
    """What a session's agent is sent."""

    def __init__(self):
        self.sent = []

    async def send(self, message):
        self.sent.append(message)


async def hello(leader, *, revision=0, epoch=0, incarnation=1, node=NODE.id):
    """One agent opens a session, having seen this; what it is told first."""
    order = leader.core.control.lead.authority.order()
    message = dispatcher_pb2.Hello(
        cluster_id=order.cluster, node_id=node, session_id="s", boot_id="b"
    )
    seen = OrderId(cluster=order.cluster, incarnation=incarnation, epoch=epoch, revision=revision)
    codec.fill(message.seen, seen)
    stream = Stream()

    async def nothing_more():
        await asyncio.sleep(1)
        for each in ():
            yield each

    await leader.core.lanes.dispatcher.session(stream, message, nothing_more())
    return stream.sent[0]


async def with_node(schedulers):
    leader, follower = await schedulers.pair()
    await leader.ask("Apply", apply())
    await leader.core.control.lead.authority.commit([Put(NODE, ABSENT, "t")])
    return leader, follower


async def test_who_was_not_let_in_is_not_taken_for_down_when_the_store_is_accepted(schedulers):
    """Or all that ran there would be started on the first node that is back."""
    leader, _ = await with_node(schedulers)
    farewell = (await hello(leader, revision=5_000)).farewell
    await asyncio.sleep(60)
    observed = leader.core.control.lead.authority.observed
    assert observed.node(NODE.id).state is NodeState.DOWN
    await leader.ask("AcceptRestore", control_pb2.AcceptRestoreRequest(request_id="a"))
    assert observed.node(NODE.id).state is NodeState.UNKNOWN
    await asyncio.sleep(farewell.retry_after_ms / 1000 * 2)
    assert observed.node(NODE.id).state is NodeState.UNKNOWN
    assert (await hello(leader, revision=5_000)).HasField("welcome")
    assert observed.node(NODE.id).state is NodeState.READY
    await asyncio.sleep(60)
    assert observed.node(NODE.id).state is NodeState.DOWN


async def test_a_new_incarnation_is_told_to_agents_that_are_there(schedulers):
    """Fence tokens carry it: what was told and not yet made is to be made with the higher one."""
    leader, _ = await with_node(schedulers)
    order = leader.core.control.lead.authority.order()
    message = dispatcher_pb2.Hello(
        cluster_id=order.cluster, node_id=NODE.id, session_id="s", boot_id="b"
    )
    stream = Stream()

    async def nothing_more():
        await asyncio.sleep(10)
        for each in ():
            yield each

    session = leader.core.lanes.dispatcher.session(stream, message, nothing_more())
    async with asyncio.TaskGroup() as background:
        background.create_task(session)
        await asyncio.sleep(1)
        await leader.ask("AcceptRestore", control_pb2.AcceptRestoreRequest(request_id="a"))
        await asyncio.sleep(1)
    complete = dispatcher_pb2.Assignments.KIND_COMPLETE
    told = [
        sent.assignments.order.incarnation
        for sent in stream.sent
        if sent.HasField("assignments") and sent.assignments.kind == complete
    ]
    assert told == [1, 2]


async def trouble(scheduler):
    answer = await scheduler.ask("GetCluster", control_pb2.GetClusterRequest())
    return answer.store_trouble


async def test_an_agent_that_has_seen_more_than_the_store_has_makes_the_leader_stand_still(
    schedulers,
):
    leader, _ = await with_node(schedulers)
    assert (await hello(leader)).HasField("welcome")
    assert not await trouble(leader)

    farewell = (await hello(leader, revision=5_000)).farewell
    assert "node n1 has seen revision 5000" in farewell.reason
    assert "accept-restore" in await trouble(leader)
    cycles = leader.core.controller.cycles
    with pytest.raises(Relayed, match="accept-restore"):
        await leader.ask("Scale", scale(2))
    # Nor is anybody else let in, or anything decided.
    assert (await hello(leader)).HasField("farewell")
    await asyncio.sleep(60)
    assert leader.core.controller.cycles <= cycles + 1

    answer = await leader.ask("AcceptRestore", control_pb2.AcceptRestoreRequest(request_id="a"))
    assert answer.cluster.incarnation == 2
    assert not await trouble(leader)
    welcome = (await hello(leader, revision=5_000)).welcome
    assert welcome.order.incarnation == 2
    await leader.ask("Scale", scale(2))
    tables = leader.core.mirror.tables
    (service,) = tables.services()
    assert service.last_n == 10_000
    reasons = [each.reason for each in leader.core.control.lead.authority.observed.events]
    assert {"StoreIsBehind", "RestoreAccepted"} <= set(reasons)


async def test_an_agent_of_a_later_life_is_above_what_is_accepted(schedulers):
    leader, _ = await with_node(schedulers)
    await hello(leader, incarnation=6, revision=3)
    answer = await leader.ask("AcceptRestore", control_pb2.AcceptRestoreRequest())
    assert answer.cluster.incarnation == 7


async def test_a_leader_that_was_deposed_does_not_take_itself_for_restored(schedulers):
    leader, _ = await with_node(schedulers)
    record = await schedulers.store.get(LEADER_KEY)
    dispatcher, observed = leader.core.lanes.dispatcher, leader.core.control.lead.authority.observed
    await schedulers.store.commit([Write(LEADER_KEY, None, record.version)])
    later = schedulers.store._revision + 50
    message = dispatcher_pb2.Hello(cluster_id=leader.core.mirror.tables.cluster.id, node_id=NODE.id)
    codec.fill(message.seen, OrderId(incarnation=1, epoch=later, revision=later))
    await dispatcher._weigh(message)
    assert observed.doubt is None


async def test_an_emptied_store_becomes_no_new_cluster(schedulers):
    leader, follower = await with_node(schedulers)
    cluster = leader.core.mirror.tables.cluster.id
    saved = renewal.entries_of(await schedulers.store.list(""))
    doomed = [record.key for record in (await schedulers.store.list("")).records]
    await schedulers.store.commit([Write(key, None) for key in doomed])
    await asyncio.sleep(30)
    assert await schedulers.store.get(keys.CLUSTER) is None
    for each in (leader, follower):
        said = await trouble(each)
        if said:
            assert f"worked for cluster {cluster}" in said
            assert "homeport restore" in said
    assert any([await trouble(each) for each in (leader, follower)])
    with pytest.raises(Relayed) as caught:
        await leader.ask("Scale", scale(3))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    # The records come back, as the next life.
    renewed = renewal.renewed(saved, 2)
    await schedulers.store.commit([Write(key, value) for key, value in renewed])
    await until(lambda: any(each.leads for each in schedulers.all))
    leader = await schedulers.leader()
    assert leader.core.mirror.tables.cluster == Cluster(
        id=cluster, incarnation=2, created_ms=leader.core.mirror.tables.cluster.created_ms
    )


async def test_a_scheduler_does_not_lead_on_a_store_that_was_moved_meanwhile(tmp_path):
    schedulers = Schedulers(tmp_path, count=1)
    (only,) = schedulers.all
    only.start()
    await schedulers.leader()
    note = standing.Moved(to="etcd e", flag="etcd", cluster="c", incarnation=2, at="now")
    await schedulers.store.commit([Write(standing.MOVED_KEY, standing.encoded(note))])
    record = await schedulers.store.get(LEADER_KEY)
    await schedulers.store.commit([Write(LEADER_KEY, None, record.version)])
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(only._task, 60)
    assert caught.group_contains(standing.NotToBeUsed, match="was moved to etcd e")


async def test_a_store_that_goes_back_ends_the_scheduler(tmp_path):
    schedulers = Schedulers(tmp_path, count=1)
    (only,) = schedulers.all
    only.start()
    leader = await schedulers.leader()
    older = MemoryStore(LoopClock())
    for record in (await schedulers.store.list("")).records:
        if renewal.is_of_cluster(record.key):
            await older.commit([Write(record.key, record.value)])
    for number in range(5):
        await leader.ask("Apply", apply(f"stack{number}"))
    only.store._store = older
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(only._task, 120)
    assert caught.group_contains(WentBack, match="went back from revision")
