"""The session on virtual time: reconnecting, orders, heartbeats, reports, goodbyes."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agent import joining
from agent.bulk import LOGS_MAX, BulkDesk
from agent.identity import Identity
from agent.inventory import Load
from agent.observer import FACTS_SECONDS, LOOK_SECONDS, Observer, Tasks
from agent.reporter import SPACING_SECONDS
from agent.runtime.base import EngineFacts, Phase
from agent.session import Desk, Goodbye, Sessions
from homeport.lifecycle import TaskState as S
from homeport.model import Inventory, MachineDevice, TaskId
from homeport.spec import Resources
from homeport.v1 import dispatcher_pb2 as pb
from tests.loops.agent.rig import ORDER, Rig, Still, settle, work
from tests.loops.agent.schedulers import FakeScheduler, FakeTransport, assignments

pytestmark = pytest.mark.looptime

WEB = TaskId("s-web-1/1/1")
NODE = Identity(request_id="r", cluster_id=ORDER.cluster, node_id="n1", name="pi")


class Identities:
    """Where a test's agent keeps its identity."""

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity

    def load(self) -> Identity | None:
        return self.identity

    def save(self, identity: Identity) -> None:
        self.identity = identity


class Machine:
    """A machine that is always the same, unless a stick is plugged in or its disk grows."""

    def __init__(self) -> None:
        self.devices: tuple[MachineDevice, ...] = ()
        self.disk_bytes = 0

    def inventory(self, facts: EngineFacts, /) -> Inventory:
        capacity = Resources(disk_bytes=self.disk_bytes)
        return Inventory(
            hostname="pi", engine=facts.engine, capacity=capacity, devices=self.devices
        )

    def load(self, data_root: str, /) -> Load:
        return Load(
            cpu_seconds=0, memory_available_bytes=1 << 30, memory_total_bytes=2 << 30, disks=()
        )


class Agent(Rig):
    """The rig with a session."""

    def connect(self, transport: FakeTransport) -> None:
        self.machine = Machine()
        self.observer = Observer(
            runtime=self.runtime,
            machine=self.machine,
            clock=self.clock,
            randomness=Still(),
            tasks=Tasks(
                running=lambda: self.worker.running,
                unknown_containers=lambda: self.worker.unknown_containers,
                conditions=lambda: self.worker.conditions,
            ),
            inventory=Inventory(hostname="pi"),
        )
        self.sessions = Sessions(
            transport=transport,
            desk=Desk(
                obey=self.worker.obey,
                wanted_hash=lambda: self.worker.wanted_hash,
                reporter=self.reporter,
                journal=self.journal,
                lease=self.lease,
                remind=self.worker.remind,
                bulk=BulkDesk(self.runtime, self.journal.last_lines),
                node=self.observer,
            ),
            identities=Identities(NODE),
            clock=self.clock,
            randomness=Still(),
            schedulers=tuple(transport.schedulers),
            identity=NODE,
            boot_id=self.boot_id,
            version="1",
        )


@asynccontextmanager
async def connected(**schedulers: FakeScheduler) -> AsyncIterator[tuple[Agent, FakeTransport]]:
    agent = Agent()
    await agent.start()
    transport = FakeTransport(**schedulers)
    agent.connect(transport)
    async with asyncio.TaskGroup() as background:
        running = [
            background.create_task(agent.sessions.run()),
            background.create_task(agent.observer.run()),
        ]
        await settle()
        yield agent, transport
        for each in running:
            each.cancel()
    await agent.crash()


async def test_orders_are_journalled_obeyed_and_acknowledged() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())])
    async with connected(a=scheduler) as (agent, _):
        assert agent.state(WEB) == (1, S.RUNNING)
        (ack,) = scheduler.acks
        assert (ack.order.revision, ack.wanted_hash) == (1, agent.worker.wanted_hash)
        hello = scheduler.sessions[0].requests[0].hello
        assert (hello.node_id, hello.boot_id) == ("n1", "boot-1")


async def test_reports_are_complete_when_asked_and_acknowledged() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())])
    async with connected(a=scheduler) as (agent, _):
        assert scheduler.reports[0].complete
        await asyncio.sleep(SPACING_SECONDS)
        last = [report.statuses[-1] for report in scheduler.reports if report.statuses][-1]
        assert (last.task, last.state) == (WEB, S.RUNNING.value)
        assert scheduler.reports[-1].running_hash == agent.reporter.running_hash != b""
        scheduler.resend_report = True
        before = len(scheduler.reports)
        await asyncio.sleep(2)
        assert [report.complete for report in scheduler.reports[before:]] == [True]


async def test_s20_what_a_full_disk_has_taken_from_the_journal_a_scheduler_says() -> None:
    async with connected(a=FakeScheduler(greeting=[assignments(work())])) as (agent, _):
        await asyncio.sleep(1)
        agent.medium.error = OSError(errno.ENOSPC, "no space left on device")
        for _ in range(2):
            agent.engine.end(WEB, 1)
            await asyncio.sleep(5)
        before = agent.reporter.statuses[WEB]
        assert (before.attempt, before.state) == (3, S.RUNNING)
        await agent.crash()
        await agent.start()
        assert agent.state(WEB) == (2, S.RUNNING)  # there was another start, it sees that much
        scheduler = FakeScheduler(told=[before])
        agent.connect(FakeTransport(b=scheduler))
        running = asyncio.create_task(agent.sessions.run())
        await settle()
        (first,) = scheduler.reports[0].statuses
        assert (first.attempt, first.state) == (3, S.RUNNING.value)
        agent.medium.error = None
        agent.engine.end(WEB, 1)
        await asyncio.sleep(5)
        assert agent.state(WEB) == (4, S.RUNNING)
        assert agent.journal.records[WEB].attempt == 4
        running.cancel()


async def test_s20_what_a_scheduler_says_before_the_engine_answers_is_kept_until_then() -> None:
    async with connected(a=FakeScheduler(greeting=[assignments(work())])) as (agent, _):
        await asyncio.sleep(1)
        before = replace(agent.reporter.statuses[WEB], attempt=7)
        await agent.crash()
        agent.engine.outage = "connection refused"
        await agent.start()
        agent.connect(FakeTransport(b=FakeScheduler(told=[before])))
        running = asyncio.create_task(agent.sessions.run())
        await asyncio.sleep(1)
        assert WEB not in agent.reporter.statuses
        agent.engine.recover()
        await asyncio.sleep(5)
        assert agent.state(WEB) == (7, S.RUNNING)
        running.cancel()


async def test_a_report_that_is_not_acknowledged_is_sent_again() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())], acknowledges=False)
    async with connected(a=scheduler) as _:
        assert len(scheduler.reports) == 1
        await asyncio.sleep(5)
        assert len(scheduler.reports) == 2
        scheduler.acknowledges = True
        await asyncio.sleep(6)
        heard = {status.task: status.state for r in scheduler.reports for status in r.statuses}
        assert heard == {WEB: S.RUNNING.value}
        count = len(scheduler.reports)
        await asyncio.sleep(60)
        assert len(scheduler.reports) == count, "nothing is news any more"


async def test_what_was_not_heard_is_told_to_the_next_scheduler() -> None:
    first = FakeScheduler(greeting=[assignments(work())], acknowledges=False)
    second = FakeScheduler()
    async with connected(a=first, b=second) as (_, transport):
        first.is_down = True
        transport.schedulers["a"].sessions[0].break_off()
        await asyncio.sleep(3)
        heard = {status.task: status.state for r in second.reports for status in r.statuses}
        assert heard == {WEB: S.RUNNING.value}


async def test_heartbeats_come_every_second_and_keep_the_lease_from_their_sending() -> None:
    scheduler = FakeScheduler(greeting=[assignments()])
    async with connected(a=scheduler) as (agent, _):
        await asyncio.sleep(10)
        assert len(scheduler.heartbeats) == 11
        last = scheduler.heartbeats[-1]
        assert agent.lease.until_seconds == pytest.approx(last.sent_boottime_ns / 1e9 + 14)
        assert last.wanted_hash == agent.worker.wanted_hash


async def test_a_scheduler_that_does_not_answer_for_two_seconds_is_left() -> None:
    first, second = FakeScheduler(), FakeScheduler()
    async with connected(a=first, b=second) as (agent, transport):
        await asyncio.sleep(10.5)
        began = asyncio.get_running_loop().time()
        first.is_silent = True
        await asyncio.sleep(8)
        at, address = next(dial for dial in transport.dials if dial[0] > began)
        # The heartbeat at 11 s is the first without an answer.
        assert (address, at - began) == ("a", pytest.approx(2.5, abs=0.1))
        assert agent.sessions.connected_to == "b"


async def test_retries_come_at_once_and_then_less_often() -> None:
    first = FakeScheduler()
    async with connected(a=first) as (agent, transport):
        await asyncio.sleep(20)
        first.is_down = True
        began = asyncio.get_running_loop().time()
        first.sessions[0].break_off()
        await asyncio.sleep(30)
        dials = [round(at - began, 1) for at, _ in transport.dials if at > began - 0.05]
        assert dials[:7] == [0.0, 0.2, 0.6, 1.4, 3.0, 5.0, 7.0]
        assert agent.phases() == {}
        first.is_down = False
        await asyncio.sleep(6)
        assert agent.sessions.is_connected


async def test_the_named_leader_is_dialled_at_once() -> None:
    farewell = pb.Farewell(reason="does not lead", retry_after_ms=1_000, leader="c")
    follower, other, leader = FakeScheduler(farewell=farewell), FakeScheduler(), FakeScheduler()
    async with connected(a=follower, b=other, c=leader) as (agent, transport):
        assert [address for _, address in transport.dials] == ["a", "c"]
        assert agent.sessions.connected_to == "c"


async def test_a_told_delay_is_kept() -> None:
    farewell = pb.Farewell(reason="drains", retry_after_ms=3_000)
    async with connected(a=FakeScheduler(farewell=farewell)) as (_, transport):
        await asyncio.sleep(4)
        first, second = transport.dials[:2]
        assert second[0] - first[0] == pytest.approx(3.0, abs=0.01)


async def test_a_gap_ends_the_session_and_asks_for_all() -> None:
    gap = assignments(
        work(), order=replace(ORDER, revision=9), applies_to=replace(ORDER, revision=8)
    )
    scheduler = FakeScheduler(greeting=[gap])
    async with connected(a=scheduler) as (agent, _):
        assert scheduler.acks == []
        assert agent.phases() == {}
        scheduler.greeting = [assignments(work(), order=replace(ORDER, revision=9))]
        await asyncio.sleep(1)
        assert agent.state(WEB) == (1, S.RUNNING)


async def test_a_scheduler_that_is_behind_is_left_without_acting() -> None:
    old = FakeScheduler(greeting=[assignments(work(2))], order=ORDER)
    new = FakeScheduler(
        greeting=[assignments(work(1), order=replace(ORDER, epoch=2, revision=5))],
        order=replace(ORDER, epoch=2, revision=5),
    )
    async with connected(new=new, old=old) as (agent, _):
        new.is_down = True
        new.sessions[0].break_off()
        await asyncio.sleep(10)
        assert old.sessions
        assert set(agent.phases()) == {WEB}
        assert not agent.sessions.is_connected


async def test_a_store_that_was_restored_behind_us_is_left_although_its_leader_is_newer() -> None:
    # F23: the epoch rises soon; the revisions that this node has seen are gone all the same.
    new = FakeScheduler(greeting=[assignments(work(1), order=replace(ORDER, revision=900))])
    new.order = replace(ORDER, revision=900)
    order = replace(ORDER, epoch=500, revision=501)
    swapped = FakeScheduler(greeting=[assignments(work(2), order=order)], order=order)
    async with connected(new=new, swapped=swapped) as (agent, _):
        assert agent.journal.seen.revision == 900
        new.is_down = True
        new.sessions[0].break_off()
        await asyncio.sleep(10)
        assert swapped.sessions
        assert set(agent.phases()) == {WEB}
        assert not agent.sessions.is_connected
        # An operator's word: the next life of the store.
        order = replace(ORDER, incarnation=2, epoch=3, revision=4)
        swapped.order, swapped.greeting = order, [assignments(work(2), order=order)]
        await asyncio.sleep(20)
        assert agent.sessions.is_connected
        assert len(agent.phases()) == 2  # the first is unknown now, and runs on
        assert agent.worker.unknown_containers == (WEB,)


async def test_an_agent_that_is_pointed_elsewhere_goes_there_at_its_next_try() -> None:
    here, there = FakeScheduler(), FakeScheduler()
    async with connected(here=here, there=there) as (agent, transport):
        agent.sessions._configured = ("here",)
        agent.sessions._pointed = lambda: ("there",)
        await asyncio.sleep(5)
        assert agent.sessions.connected_to == "here"
        assert agent.sessions.is_connected
        here.is_down = True
        here.sessions[0].break_off()
        await asyncio.sleep(5)
        assert agent.sessions.connected_to == "there"
        assert transport.dials


async def test_another_cluster_is_not_obeyed() -> None:
    foreign = replace(ORDER, cluster="c2")
    scheduler = FakeScheduler(order=foreign, greeting=[assignments(work(), order=foreign)])
    async with connected(a=scheduler) as (agent, transport):
        await asyncio.sleep(20)
        assert agent.phases() == {}
        assert len(transport.dials) <= 6


async def test_orders_of_a_newer_scheduler_stop_nothing() -> None:
    unknown = assignments(work(2), order=replace(ORDER, revision=2))
    unknown.assignments.tasks[0].desired = 99
    scheduler = FakeScheduler(greeting=[assignments(work(1))])
    async with connected(a=scheduler) as (agent, _):
        scheduler.sessions[0].give(unknown)
        await asyncio.sleep(3)
        assert set(agent.phases()) == {WEB}
        assert agent.journal.seen.revision == 1


async def test_goodbye_is_said_and_containers_run_on() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())])
    async with connected(a=scheduler) as (agent, _):
        agent.sessions.stop(Goodbye.AGENT_RESTARTING, "told to stop")
        await settle()
        assert agent.sessions.stopped.is_set()
        assert [goodbye.kind for goodbye in scheduler.goodbyes] == [
            pb.GOODBYE_KIND_AGENT_RESTARTING
        ]
        assert set(agent.phases()) == {WEB}


async def test_an_idle_node_says_nothing_but_heartbeats() -> None:
    scheduler = FakeScheduler()
    async with connected(a=scheduler) as _:
        await asyncio.sleep(20)
        lane = scheduler.sessions[0]
        before = len(lane.requests)
        await asyncio.sleep(3600)
        assert lane.requests[before:] == []


async def test_logs_and_commands_are_bulk_work_of_their_own() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work(log="hello"))])
    async with connected(a=scheduler) as _:
        logs = pb.OpenBulk(bulk_id="b1", logs=pb.LogsWork(task=WEB, tail=-1))
        scheduler.sessions[0].give(pb.SessionResponse(open_bulk=logs))
        command = pb.ExecWork(task=WEB, command=["sh", "-c", "exit 7"])
        scheduler.sessions[0].give(
            pb.SessionResponse(open_bulk=pb.OpenBulk(bulk_id="b2", exec=command))
        )
        nothing = pb.OpenBulk(bulk_id="b3", logs=pb.LogsWork(task="s-x-1/1/1", tail=-1))
        scheduler.sessions[0].give(pb.SessionResponse(open_bulk=nothing))
        await settle()
        read, ran, failed = (lane.requests for lane in scheduler.bulk)
        assert read[0].hello.bulk_id == "b1"
        assert read[1].output.data == b"hello\n"
        assert not read[-1].end.error
        assert ran[-1].end.exit_code == 7
        assert "there is no container" in failed[-1].end.error
        assert len(scheduler.sessions) == 1, "the session went on"


async def test_a_node_follows_as_many_logs_as_it_says_and_refuses_the_next_in_words() -> None:
    works = [work(slot) for slot in range(1, LOGS_MAX + 3)]
    scheduler = FakeScheduler(greeting=[assignments(*works)])
    async with connected(a=scheduler) as (agent, _):
        await asyncio.sleep(30)
        tasks = [each[0].task for each in works]

        def follow(task: TaskId) -> None:
            logs = pb.LogsWork(task=task, tail=-1, follow=True)
            opened = pb.OpenBulk(bulk_id=task, logs=logs)
            scheduler.sessions[0].give(pb.SessionResponse(open_bulk=opened))

        for task in tasks[: LOGS_MAX + 1]:
            follow(task)
        await settle()
        for task in tasks[:LOGS_MAX]:
            agent.engine.write(task, f"hello from {task}")
        await settle()
        *following, refused = (lane.requests for lane in scheduler.bulk)
        said = [b"".join(each.output.data for each in requests) for requests in following]
        assert said == [f"hello from {task}\n".encode() for task in tasks[:LOGS_MAX]]
        assert refused[-1].end.error.startswith("this node's agent reads 64 logs at once")
        # A command has a place of its own, and so has a log once another one has ended.
        command = pb.ExecWork(task=tasks[0], command=["sh", "-c", "exit 7"])
        scheduler.sessions[0].give(
            pb.SessionResponse(open_bulk=pb.OpenBulk(bulk_id="x", exec=command))
        )
        scheduler.bulk[0].break_off()
        await settle()
        assert scheduler.bulk[-1].requests[-1].end.exit_code == 7
        follow(tasks[-1])
        await settle()
        agent.engine.write(tasks[-1], "late")
        await settle()
        assert scheduler.bulk[-1].requests[-1].output.data == b"late\n"


async def test_a_broken_bulk_call_ends_only_itself() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())])
    async with connected(a=scheduler) as (agent, _):
        follow = pb.OpenBulk(bulk_id="b1", logs=pb.LogsWork(task=WEB, tail=-1, follow=True))
        scheduler.sessions[0].give(pb.SessionResponse(open_bulk=follow))
        await settle()
        scheduler.bulk[0].break_off()
        await settle()
        agent.engine.write(WEB, "one more line")
        await asyncio.sleep(5)
        assert len(scheduler.sessions) == 1
        assert scheduler.bulk[0].is_closed


async def test_a_stick_is_seen_within_a_look_and_a_disk_that_grows_is_not_written_each_time() -> (
    None
):
    async with connected(a=FakeScheduler()) as (agent, _):
        await asyncio.sleep(15)
        agent.machine.devices = (MachineDevice(id="/dev/ttyUSB0"),)
        agent.machine.disk_bytes = 7
        await asyncio.sleep(LOOK_SECONDS * 1.2)
        inventory = agent.observer.inventory
        assert (inventory.devices, inventory.capacity.disk_bytes) == (agent.machine.devices, 0)
        await asyncio.sleep(FACTS_SECONDS)
        assert agent.observer.inventory.capacity.disk_bytes == 7


# ---------------------------------------------------------------- joining


async def joined(transport: FakeTransport, identities: Identities) -> Identity:
    return await joining.join(
        transport,
        identities,
        Still(),
        schedulers=tuple(transport.schedulers),
        name="pi",
        boot_id="boot-1",
        inventory=Inventory(),
    )


async def test_a_join_is_retried_with_the_same_request() -> None:
    first, second = FakeScheduler(is_down=True), FakeScheduler(refuses="the name pi is taken")
    transport = FakeTransport(a=first, b=second)
    identities = Identities()
    async with asyncio.TaskGroup() as background:
        joining_now = background.create_task(joined(transport, identities))
        await asyncio.sleep(10)
        assert not joining_now.done()
        second.refuses = ""
    assert joining_now.result().node_id == "n1"
    assert identities.identity == joining_now.result()
    requests = {join.request_id for join in first.joins + second.joins}
    assert requests == {joining_now.result().request_id}


async def test_who_has_joined_asks_nobody() -> None:
    transport = FakeTransport(a=FakeScheduler())
    assert await joined(transport, Identities(NODE)) == NODE
    assert transport.dials == []


async def test_a_hung_engine_is_told_and_heartbeats_go_on() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work())])
    async with connected(a=scheduler) as (agent, _):
        await asyncio.sleep(20)
        agent.engine.is_hanging = True
        beats = len(scheduler.heartbeats)
        await asyncio.sleep(60)
        assert len(scheduler.heartbeats) - beats == pytest.approx(60, abs=1)
        assert engine_condition(scheduler) is False
        assert agent.phases() == {WEB: Phase.RUNNING}
        agent.engine.recover()
        await asyncio.sleep(20)
        assert engine_condition(scheduler) is True
        assert agent.state(WEB) == (1, S.RUNNING)


def engine_condition(scheduler: FakeScheduler) -> bool:
    """Whether the engine is well, by the last word about it."""
    requests = scheduler.sessions[-1].requests
    reports = [each.node_report.status for each in requests if each.HasField("node_report")]
    return next(each.ok for each in reports[-1].conditions if each.name == "engine")
