"""Exclusive movable tasks under the node's lease: the agent's stop, the guard, the way back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.guarding import Guarding
from agent.orders import Orders
from agent.runtime.base import Phase
from agent.runtime.simulated_engine import SimulatedEngine
from homeport.lifecycle import TaskState as S
from homeport.model import TaskId
from homeport.spec import ContainerSpec, RestartCondition, RestartPolicy
from tests.loops.agent.guards import LoopGuards, MemoryBoard
from tests.loops.agent.rig import ORDER, LoopClock, Rig, work
from tests.loops.agent.schedulers import FakeScheduler, assignments
from tests.loops.agent.test_session import connected

pytestmark = pytest.mark.looptime

WEB = TaskId("s-web-1/1/1")


class JumpingClock(LoopClock):
    """For who was stopped, time passes all at once."""

    ahead_seconds = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.ahead_seconds


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.crash()
    for each in rig.guards.alive:
        each.kill()


async def running(rig: Rig, **more: object) -> None:
    """One exclusive movable task, up under a live lease."""
    await rig.apply(work(exclusive=True, **more))  # type: ignore[arg-type]
    await rig.beat(seconds=3)
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_a_lease_that_is_renewed_stops_nothing(rig: Rig) -> None:
    await running(rig)
    await rig.beat(seconds=60)
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_the_task_is_told_to_stop_two_seconds_before_the_lease_ends(rig: Rig) -> None:
    await running(rig, stop_ms=1_500)
    until = rig.lease.until_seconds
    await asyncio.sleep(until - 2 - rig.clock.boottime() - 0.05)
    assert rig.phases()[WEB] is Phase.RUNNING
    await asyncio.sleep(1.6)
    assert rig.phases()[WEB] is Phase.EXITED
    assert rig.clock.boottime() < until
    container = rig.engine.find(WEB)
    assert container is not None
    assert container.exit_code == 143, "it had the time to obey"


async def test_a_task_that_does_not_obey_is_dead_when_the_lease_ends(rig: Rig) -> None:
    await running(rig, stop_ms=60_000)
    await asyncio.sleep(rig.lease.until_seconds - rig.clock.boottime() + 0.2)
    assert rig.phases()[WEB] is Phase.EXITED


async def test_a_short_grace_is_all_that_is_taken_from_the_lease(rig: Rig) -> None:
    spec = ContainerSpec(image="example", stop_grace_ms=500)
    await running(rig, container=spec)
    await asyncio.sleep(rig.lease.until_seconds - 0.5 - rig.clock.boottime() - 0.05)
    assert rig.phases()[WEB] is Phase.RUNNING


@pytest.mark.parametrize("more", [{"exclusive": True, "pinned": True}, {}], ids=str)
async def test_pinned_and_ordinary_tasks_need_no_lease(rig: Rig, more: dict[str, bool]) -> None:
    await rig.apply(work(**more))  # type: ignore[arg-type]
    await rig.beat(seconds=3)
    await asyncio.sleep(3600)
    assert rig.state(WEB) == (1, S.RUNNING)
    assert not rig.guards.started, "nothing is to be guarded"


async def test_the_end_of_a_lease_is_nobodys_failure(rig: Rig) -> None:
    await running(rig, restart=RestartPolicy(condition=RestartCondition.NONE))
    await asyncio.sleep(30)
    assert rig.state(WEB) == (2, S.READY)
    assert "lease" in rig.reporter.statuses[WEB].message
    told = [event.reason for event in rig.journal.stories[WEB].events]
    assert told == ["Started", "LeaseEnded"], "people see why"
    rig.grant()
    await asyncio.sleep(0.2)
    assert rig.state(WEB) == (2, S.RUNNING)
    assert rig.journal.records[WEB].failures == 0


async def test_what_the_guard_killed_is_nobodys_failure(rig: Rig) -> None:
    await running(rig)
    await rig.crash()
    await asyncio.sleep(20)
    assert rig.phases()[WEB] is Phase.EXITED, "the guard needs no agent"
    await rig.start()
    await asyncio.sleep(5)
    assert rig.state(WEB) == (2, S.READY)
    assert rig.journal.records[WEB].failures == 0


async def test_nor_where_the_engine_says_so_only_when_the_lease_is_back(rig: Rig) -> None:
    await running(rig)
    container = rig.engine.find(WEB)
    assert container is not None
    rig.engine.hanging.add(WEB)
    rig.engine.tell(container, "health_status")  # the agent asks what that is, and waits
    await asyncio.sleep(rig.lease.until_seconds - rig.clock.boottime() + 0.5)
    assert container.phase is Phase.EXITED, "the guard needs no engine"
    rig.grant()
    await asyncio.sleep(0.2)
    rig.engine.recover()
    await rig.beat(seconds=60)
    assert rig.state(WEB) == (2, S.RUNNING)
    assert rig.journal.records[WEB].failures == 0
    assert rig.journal.records[WEB].lapses == 1
    rig.engine.end(WEB, 137)
    await rig.beat(seconds=1)
    assert rig.journal.records[WEB].failures == 1, "its own doing, as it had one all the time"


async def test_nor_where_a_new_agent_has_a_lease_before_it_can_look(rig: Rig) -> None:
    await running(rig)
    await rig.crash()
    await asyncio.sleep(20)
    assert rig.phases()[WEB] is Phase.EXITED
    rig.engine.outage = "it is being restarted"
    await rig.start()
    rig.grant()
    await rig.beat(seconds=5)
    rig.engine.recover()
    await rig.beat(seconds=60)
    assert rig.state(WEB) == (2, S.RUNNING)
    assert rig.journal.records[WEB].failures == 0


async def test_nor_where_an_agent_between_had_a_lease_and_could_not_look(rig: Rig) -> None:
    await running(rig)
    await rig.crash()
    await asyncio.sleep(20)
    rig.engine.outage = "it is being restarted"
    await rig.start()
    await rig.beat(seconds=5)
    await rig.crash()
    rig.engine.recover()
    await rig.start()
    await rig.beat(seconds=60)
    assert rig.state(WEB) == (2, S.RUNNING)
    assert rig.journal.records[WEB].failures == 0


async def test_a_lease_that_ended_begins_anew_only_with_a_schedulers_word(rig: Rig) -> None:
    await running(rig)
    await asyncio.sleep(30)
    rig.renew(rig.clock.boottime())
    await asyncio.sleep(5)
    assert rig.state(WEB) == (2, S.READY), "an answer to a heartbeat is not enough"
    rig.lease.hear(rig.clock.boottime() - 4)
    await asyncio.sleep(0.2)
    assert rig.state(WEB) == (2, S.RUNNING)


async def test_a_word_from_before_the_end_counts_for_nothing(rig: Rig) -> None:
    await running(rig)
    heard = rig.clock.boottime()
    await asyncio.sleep(30)
    rig.lease.hear(heard)
    rig.renew(rig.clock.boottime())
    await asyncio.sleep(5)
    assert rig.state(WEB) == (2, S.READY)


async def test_an_answer_that_was_long_on_its_way_renews_from_its_sending(rig: Rig) -> None:
    await running(rig)
    sent = rig.clock.boottime()
    await asyncio.sleep(20)
    assert rig.renew(sent)
    assert not rig.lease.is_live(rig.clock.boottime())
    await asyncio.sleep(1)
    assert rig.state(WEB) == (2, S.READY)


async def test_a_restart_of_the_agent_keeps_lease_task_and_guard(rig: Rig) -> None:
    await running(rig)
    (guard,) = rig.guards.alive
    await rig.crash()
    await asyncio.sleep(2)
    await rig.start()
    await rig.beat(seconds=5)
    assert rig.state(WEB) == (1, S.RUNNING)
    assert rig.guards.started == [guard], "it is taken over"


async def test_a_lost_journal_takes_no_task_from_under_the_lease(rig: Rig) -> None:
    await running(rig)
    await rig.crash()
    rig.medium = type(rig.medium)()
    await rig.start()
    assert rig.worker.unknown_containers == (WEB,)
    await asyncio.sleep(20)
    assert rig.phases()[WEB] is Phase.EXITED, "nobody renewed the lease"


async def test_the_guard_is_there_before_the_task_starts(rig: Rig) -> None:
    rig.guards.start_seconds = 3.0
    await rig.apply(work(exclusive=True))
    rig.grant()
    await asyncio.sleep(2)
    assert rig.state(WEB) == (1, S.READY)
    assert "guard" in rig.reporter.statuses[WEB].message
    await asyncio.sleep(1.5)
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_without_a_guard_no_exclusive_task_is_started_and_the_node_says_why(
    rig: Rig,
) -> None:
    rig.guards.refuses = "Cannot allocate memory"
    await rig.apply(work(exclusive=True), work(slot=2))
    await rig.beat(seconds=10)
    assert rig.state(WEB) == (1, S.READY)
    assert rig.state(TaskId("s-web-1/2/1")) == (1, S.RUNNING)
    assert "Cannot allocate memory" in rig.reporter.statuses[WEB].message
    (condition,) = [each for each in rig.worker.conditions if each.name == "fencing"]
    assert not condition.ok
    assert "Cannot allocate memory" in condition.message
    rig.guards.refuses = ""
    await rig.beat(seconds=2)
    assert rig.state(WEB) == (1, S.RUNNING)
    assert all(each.ok for each in rig.worker.conditions)


async def test_a_node_that_cannot_fence_starts_no_exclusive_task_and_says_so(rig: Rig) -> None:
    rig.unfenced = "the agent does not see the processes of its engine"
    await rig.apply(work(exclusive=True), work(slot=2))
    await rig.beat(seconds=5)
    assert rig.state(WEB) == (1, S.READY)
    assert "does not see" in rig.reporter.statuses[WEB].message
    assert rig.state(TaskId("s-web-1/2/1")) == (1, S.RUNNING)
    assert [(each.name, each.ok) for each in rig.worker.conditions] == [("fencing", False)]


async def test_a_killed_guard_is_back_within_a_second_and_the_task_runs_on(rig: Rig) -> None:
    await running(rig)
    rig.guards.alive[0].kill()
    await rig.beat(seconds=1)
    assert len(rig.guards.started) == 2
    assert len(rig.guards.alive) == 1
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_a_guard_that_hangs_is_replaced(rig: Rig) -> None:
    await running(rig)
    hanging = rig.guards.alive[0]
    hanging.hang()
    await rig.beat(seconds=4)
    assert hanging.gone.is_set()
    assert len(rig.guards.alive) == 1
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_a_node_that_gets_no_guard_for_long_stops_what_needs_one(rig: Rig) -> None:
    await running(rig)
    rig.guards.refuses = "Cannot allocate memory"
    rig.guards.alive[0].kill()
    await rig.beat(seconds=3)
    assert rig.phases()[WEB] is Phase.RUNNING
    await rig.beat(seconds=5)
    assert rig.phases()[WEB] is Phase.EXITED


async def test_the_guard_goes_with_the_last_exclusive_task(rig: Rig) -> None:
    await running(rig)
    await rig.bury(WEB)
    await asyncio.sleep(2)
    assert not rig.guards.alive
    assert WEB not in rig.phases()


async def test_a_guard_that_is_at_work_is_kept_though_the_agent_was_stopped_meanwhile() -> None:
    board, clock = MemoryBoard(), JumpingClock()
    guards = LoopGuards(board, SimulatedEngine(clock), clock)
    guarding = Guarding(board, guards, clock)
    guarding.protect(WEB, ("c x",))
    having = asyncio.create_task(guarding._have())
    await asyncio.sleep(0)
    clock.ahead_seconds = 30.0  # SIGSTOP: for the agent all that time passes at once
    board.guard, board.stamp_ns = (guards.started[0].pid, 1), int(clock.boottime() * 1e9)
    assert await having is guards.started[0]
    guards.started[0].kill()


async def test_a_guard_that_goes_before_its_first_word_because_the_task_did_is_no_trouble() -> None:
    board, clock = MemoryBoard(), LoopClock()
    guarding = Guarding(board, LoopGuards(board, SimulatedEngine(clock), clock), clock)
    guarding.protect(WEB, ("c x",))
    having = asyncio.create_task(guarding._have())
    await asyncio.sleep(0)
    guarding.release(WEB)
    assert await having is None
    assert guarding.conditions == ()


async def test_a_start_that_a_hung_engine_does_late_is_ended_by_the_guard(rig: Rig) -> None:
    await running(rig)
    await asyncio.sleep(30)
    container = rig.engine.find(WEB)
    assert container is not None
    rig.engine.begin(container)
    await asyncio.sleep(0.11)
    assert rig.phases()[WEB] is Phase.EXITED


async def test_an_exclusive_task_that_orders_leave_out_runs_on_and_is_not_started_again(
    rig: Rig,
) -> None:
    await running(rig)
    order = replace(ORDER, revision=rig.journal.seen.revision + 1)
    await rig.obey(Orders(order=order, is_complete=True))
    await rig.beat(seconds=3)
    assert rig.state(WEB) == (1, S.RUNNING), "absence is no command"
    rig.engine.end(WEB)
    await rig.beat(seconds=5)
    assert rig.phases()[WEB] is Phase.EXITED
    assert "leave out" in rig.reporter.statuses[WEB].message
    await rig.apply(work(exclusive=True))
    await rig.beat(seconds=2)
    assert rig.phases()[WEB] is Phase.RUNNING


async def test_an_exclusive_task_waits_for_a_copy_of_it_that_has_no_record(rig: Rig) -> None:
    # As after a restored store: what runs has no record, and its slot gets a task anew.
    await running(rig)
    await rig.crash()
    rig.medium = type(rig.medium)()
    await rig.start()
    assignment, generation = work(exclusive=True)
    second = TaskId("s-web-1/1/2")
    await rig.apply((replace(assignment, task=second), generation))
    await rig.beat(seconds=5)
    assert rig.phases() == {WEB: Phase.RUNNING}
    assert WEB in rig.reporter.statuses[second].message
    await rig.bury(WEB)
    await rig.beat(seconds=3)
    assert rig.phases() == {second: Phase.RUNNING}


async def test_after_a_reboot_an_exclusive_task_waits_for_a_schedulers_word(rig: Rig) -> None:
    await running(rig)
    await rig.power_cut()
    await rig.start()
    await asyncio.sleep(60)
    assert rig.phases()[WEB] is Phase.EXITED
    rig.grant()
    await asyncio.sleep(1)
    assert rig.phases()[WEB] is Phase.RUNNING


async def test_a_session_that_saw_the_lease_end_is_left_for_one_that_tells_all() -> None:
    scheduler = FakeScheduler(greeting=[assignments(work(exclusive=True))])
    async with connected(a=scheduler) as (agent, _):
        await asyncio.sleep(40)
        assert agent.lease.is_live(agent.clock.boottime())
        # As after a pause: the session still stands, and the lease is long over.
        agent.lease.until_seconds = agent.clock.boottime() - 20
        await asyncio.sleep(1.5)
        assert len(scheduler.sessions) == 2
        await asyncio.sleep(2)
        assert agent.lease.is_live(agent.clock.boottime())
