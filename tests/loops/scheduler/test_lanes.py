"""A leader's lanes above the transport, on virtual time: sessions, heartbeats, bulk work.

Real mirror, committer, memory store and dispatcher; the agent is a script. Times are exact.
"""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from homeport import codec
from homeport.digests import running_hash, wanted_hash
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Assignment,
    Cluster,
    Inventory,
    NodeState,
    OrderId,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    Task,
    TaskStatus,
    Volume,
)
from homeport.seams import LinkLost, Refused
from homeport.spec import ServiceSpec
from homeport.v1 import dispatcher_pb2 as pb
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Delete, Put
from scheduler.cluster.observed import Dirt, Observed
from scheduler.config import Timers
from scheduler.dispatch import liveness
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.lanes import Lanes
from scheduler.store.authority import Authority, NotLeading
from scheduler.store.base import LEADER_KEY, Fence, Write
from scheduler.store.commit import Committer
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror

WEB = ServiceId("s-web-1")

pytestmark = pytest.mark.looptime(end=3600)


class LoopClock:
    """Boot time is the loop's virtual time."""

    def boottime(self):
        return asyncio.get_running_loop().time()

    def wall_ms(self):
        return round(self.boottime() * 1000)


class Lane:
    """Both ends of one stream: the scheduler's, and the script's."""

    def __init__(self):
        self.up = asyncio.Queue()
        self.down = asyncio.Queue()
        self.broken = False

    async def __aiter__(self):
        while (message := await self.up.get()) is not None:
            yield message

    async def send(self, message):
        if self.broken:
            raise LinkLost("broken")
        self.down.put_nowait(message)
        await asyncio.sleep(0)

    async def close(self):
        pass

    def say(self, message):
        self.up.put_nowait(message)

    async def hear(self, body):
        """The next message, which has to be of this kind."""
        async with asyncio.timeout(5):
            message = await self.down.get()
        assert message.WhichOneof("body") == body, message
        return getattr(message, body)

    def silent(self):
        return self.down.empty()


class Leader:
    """A leader's dispatch on a memory store."""

    def __init__(self):
        self.clock = LoopClock()
        self.store = MemoryStore(self.clock)
        self.mirror = Mirror(self.store)
        self.lanes = Lanes()
        self.proven_until = float("inf")
        self.wakes = 0

    async def start(self):
        epoch = await self.store.commit([Write(LEADER_KEY, b"", ABSENT)])
        await self.mirror.start()
        self.authority = Authority(
            mirror=self.mirror,
            committer=Committer(self.store, self.mirror),
            observed=Observed(),
            dirt=Dirt(),
            wake=self._wake,
            clock=self.clock,
            randomness=random.Random(1),
            timers=Timers(),
            fence=Fence(epoch),
            lead_until=lambda: self.proven_until,
        )
        await self.put(Cluster(id="c"))
        self.dispatcher = Dispatcher(self.authority, schedulers=lambda: ("a:1",))
        self.lanes.dispatcher = self.dispatcher

    def _wake(self):
        self.wakes += 1

    async def put(self, *values):
        changes = [Put(each, self.mirror.tables.version(keys.key_of(each)), "t") for each in values]
        await self.authority.commit(changes)

    async def join(self, name="pi"):
        request = pb.JoinRequest(name=name, request_id=f"r-{name}")
        return await self.lanes.join(request)

    async def service(self, *slots, node):
        await self.put(
            Stack(name="s"),
            Service(id=WEB, stack="s", name="web"),
            ServiceGeneration(service=WEB, generation=1, spec=ServiceSpec(name="web")),
            *(task(slot, node) for slot in slots),
        )

    @property
    def observed(self):
        return self.authority.observed

    def state(self, node):
        return self.observed.node(node).state


def task(slot, node, **fields):
    return Task(service=WEB, slot=slot, n=1, node=node, generation=1, **fields)


def status(slot, state=TaskState.RUNNING, attempt=1, **fields):
    return TaskStatus(task=f"{WEB}/{slot}/1", state=state, attempt=attempt, **fields)


def report(sequence, *statuses, complete=False, volumes=()):
    message = pb.Report(sequence=sequence, complete=complete)
    for each in statuses:
        codec.fill(message.statuses.add(), each)
    for volume in volumes:
        codec.fill(message.volumes.add(), volume)
    return pb.SessionRequest(report=message)


def hello(joined, session="s1", boot="b1", **fields):
    return pb.SessionRequest(
        hello=pb.Hello(
            cluster_id=fields.pop("cluster_id", joined.cluster_id),
            node_id=joined.node_id,
            session_id=session,
            boot_id=boot,
            **fields,
        )
    )


@pytest.fixture
async def leader():
    leader = Leader()
    await leader.start()
    async with asyncio.TaskGroup() as background:
        following = background.create_task(leader.mirror.run())
        watching = background.create_task(leader.dispatcher.run())
        yield leader
        await leader.dispatcher.close("the test is over")
        following.cancel()
        watching.cancel()
    await leader.store.close()


@asynccontextmanager
async def session(leader, joined, **fields):
    """An open session: (lane, its complete orders)."""
    lane = Lane()
    async with asyncio.TaskGroup() as background:
        serving = background.create_task(leader.lanes.session(lane))
        lane.say(hello(joined, **fields))
        welcome = await lane.hear("welcome")
        orders = await lane.hear("assignments")
        lane.welcome, lane.serving = welcome, serving
        yield lane, orders
        lane.say(None)


async def settle():
    """Let everything that is ready run."""
    await asyncio.sleep(0.001)


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
        assert WEB in leader.authority.dirt.services
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


class Beats:
    """A heartbeat lane, driven by a script."""

    def __init__(self, leader, joined, orders, session="s1"):
        self.leader, self.joined, self.session = leader, joined, session
        self.seen = codec.from_message(OrderId, orders.order)
        self.wanted, self.running_hash = orders.wanted_hash, b""
        self.lane = Lane()
        self.clock_rate = 1.0

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as background:
            background.create_task(self.leader.lanes.heartbeat(self.lane))
            yield self
            self.lane.say(None)

    async def beat(self):
        """The answer, or None for silence."""
        self.sent = sent = int(self.leader.clock.boottime() * self.clock_rate * 1e9)
        request = pb.HeartbeatRequest(
            cluster_id=self.joined.cluster_id,
            node_id=self.joined.node_id,
            session_id=self.session,
            sent_boottime_ns=sent,
            wanted_hash=self.wanted,
            running_hash=self.running_hash,
        )
        codec.fill(request.seen, self.seen)
        self.lane.say(request)
        try:
            async with asyncio.timeout(0.1):
                return await self.lane.down.get()
        except TimeoutError:
            return None


def ack(orders):
    message = pb.SessionRequest(order_ack=pb.OrderAck())
    message.order_ack.order.CopyFrom(orders.order)
    return message


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


async def test_a_heartbeat_of_another_session_gets_no_lease(leader):
    joined = await leader.join()
    async with (
        session(leader, joined) as (_, orders),
        Beats(leader, joined, orders, session="older").running() as beats,
    ):
        assert await beats.beat() is None


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
        from scheduler.cluster.changes import Delete

        key = keys.node(node.id)
        await leader.authority.commit([Delete(key, leader.mirror.tables.version(key), "t")])
        assert "was removed" in (await lane.hear("farewell")).reason
        await lane.serving
    lane = Lane()
    lane.say(hello(joined))
    await leader.lanes.session(lane)
    assert "was removed" in (await lane.hear("farewell")).reason
    assert joined.node_id not in leader.observed.liveness


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


async def test_a_node_that_this_leader_never_heard_is_unknown_and_then_down(leader):
    joined = await leader.join()
    assert leader.state(joined.node_id) is NodeState.UNKNOWN
    await asyncio.sleep(21.5)
    assert leader.state(joined.node_id) is NodeState.UNKNOWN
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


async def test_joining_twice_at_once_makes_two_numbers(leader):
    async with asyncio.TaskGroup() as background:
        joins = [background.create_task(leader.join(f"n{number}")) for number in range(4)]
    nodes = [leader.mirror.tables.node(each.result().node_id) for each in joins]
    assert sorted(node.number for node in nodes) == [1, 2, 3, 4]
    with pytest.raises(Refused, match="belongs to node"):
        await leader.lanes.join(pb.JoinRequest(name="n1", request_id="another"))


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
