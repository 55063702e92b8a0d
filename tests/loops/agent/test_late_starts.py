"""An engine that does later what nobody waits for any more: a start that was not answered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.runtime.base import Phase
from agent.runtime.simulated_engine import SimulatedContainer
from homeport.lifecycle import Desired, TaskState as S
from homeport.model import TaskId
from homeport.spec import Mode, RestartPolicy
from tests.loops.agent.rig import Rig, work

pytestmark = pytest.mark.looptime

WEB = TaskId("s-web-1/1/1")
LATE = 12.0
"""Two seconds after the call's own deadline."""


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.crash()
    for each in rig.guards.alive:
        each.kill()


@pytest.fixture
def starts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[TaskId]:
    """What processes began, and are begun from now on."""
    found: list[TaskId] = []
    begin = rig.engine.begin

    def watched(container: SimulatedContainer) -> None:
        found.append(container.task)
        begin(container)

    monkeypatch.setattr(rig.engine, "begin", watched)
    return found


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive", "a replica"])
async def test_an_end_is_not_told_while_a_start_may_still_take_place(
    rig: Rig, starts: list[TaskId], exclusive: bool
) -> None:
    rig.engine.late_seconds = LATE
    await rig.apply(work(exclusive=exclusive))
    await rig.beat(seconds=3)
    await rig.apply(work(exclusive=exclusive, desired=Desired.SHUTDOWN))
    await rig.beat(seconds=30)
    assert rig.state(WEB) == (1, S.SHUTDOWN)
    assert starts == [], "another may run in its place"


async def test_what_an_engine_starts_late_is_gone_before_the_lease_is_over(
    rig: Rig, starts: list[TaskId]
) -> None:
    rig.engine.late_seconds = 25.0
    await rig.apply(work(exclusive=True))
    await rig.beat(seconds=8)
    until = rig.lease.until_seconds
    await asyncio.sleep(until - rig.clock.boottime())
    assert rig.phases() == {}
    await asyncio.sleep(60)
    assert starts == []
    rig.engine.late_seconds = 0.0
    await rig.beat(seconds=15)
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_a_start_that_a_dead_agent_asked_for_counts(rig: Rig, starts: list[TaskId]) -> None:
    rig.engine.late_seconds = LATE
    await rig.apply(work(exclusive=True))
    await rig.beat(seconds=3)
    await rig.apply(work(exclusive=True, desired=Desired.SHUTDOWN))
    await rig.crash()
    await rig.start()
    await rig.beat(seconds=30)
    assert rig.state(WEB) == (1, S.SHUTDOWN)
    assert starts == []


async def test_a_job_does_not_run_again_because_its_first_start_comes_late(
    rig: Rig, starts: list[TaskId]
) -> None:
    rig.engine.late_seconds = 25.0
    assignment, generation = work(run_for_ms=1_000)
    job = replace(generation.spec, mode=Mode.REPLICATED_JOB)
    await rig.apply((assignment, replace(generation, spec=job)))
    await asyncio.sleep(9)
    rig.engine.late_seconds = 0.0
    await asyncio.sleep(60)
    assert rig.state(WEB) == (1, S.COMPLETE)
    assert starts == [WEB]


async def test_an_ordinary_container_that_ran_is_started_again_in_place(rig: Rig) -> None:
    await rig.apply(work(restart=RestartPolicy(delay_ms=1_000)))
    await asyncio.sleep(2)
    container = rig.engine.find(WEB)
    assert container is not None
    rig.engine.late_seconds = LATE
    rig.engine.end(WEB, 1)
    await asyncio.sleep(20)
    assert rig.engine.find(WEB) is container, "with all that was written into it"
    assert container.phase is Phase.RUNNING
