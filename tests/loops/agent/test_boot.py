"""After a reboot: who starts first, who waits for whom, with nobody to ask."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState as S
from homeport.model import Assignment, ServiceGeneration, TaskId, task_id
from homeport.spec import Dependency, DependencyCondition
from tests.loops.agent.rig import Rig, work

pytestmark = pytest.mark.looptime


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(starts_in_flight=1)
    yield rig
    await rig.crash()


def service(
    name: str,
    *,
    priority: int = 0,
    needs: str = "",
    condition: DependencyCondition = DependencyCondition.STARTED,
    **script: object,
) -> tuple[Assignment, ServiceGeneration]:
    assignment, generation = work(service=name, priority=priority, **script)
    depends_on = (Dependency(service=needs, condition=condition),) if needs else ()
    return (
        replace(assignment, service_name=name),
        replace(generation, spec=replace(generation.spec, name=name, depends_on=depends_on)),
    )


def task_of(name: str) -> TaskId:
    return task_id(service(name)[1].service, 1, 1)


async def rebooted(
    rig: Rig, *works: tuple[Assignment, ServiceGeneration], seconds: float = 30
) -> dict[str, float]:
    """When each of them ran again after a power cut, in seconds."""
    await rig.apply(*works)
    await asyncio.sleep(120)
    assert all(status.state is S.RUNNING for status in rig.reporter.statuses.values())
    await rig.power_cut()
    rig.told.clear()
    began = asyncio.get_running_loop().time()
    await rig.start()
    await asyncio.sleep(seconds)
    return {
        work[0].service_name: at - began
        for work in works
        for at, attempt, state in rig.story(work[0].task)
        if state == "RUNNING" and attempt == 2
    }


async def test_the_most_important_starts_first_although_others_were_ready_before(
    rig: Rig,
) -> None:
    names = {"low": 0, "middle": 5, "high": 9}
    works = [service(name, priority=each, start_ms=1000) for name, each in names.items()]
    works.append(service("first", priority=0, start_ms=1000))
    at = await rebooted(rig, *works)
    assert sorted(at, key=at.__getitem__) == ["high", "middle", "low", "first"]


async def test_what_depends_on_another_waits_until_that_runs(rig: Rig) -> None:
    at = await rebooted(
        rig,
        service("web", priority=9, needs="db"),
        service("db", start_ms=4000),
    )
    assert at["db"] == pytest.approx(4.0, abs=0.1)
    assert 0 <= at["web"] - at["db"] < 0.5, "it is woken, and looks not only now and then"


async def test_what_depends_on_a_healthy_one_waits_for_its_health(rig: Rig) -> None:
    at = await rebooted(
        rig,
        service("web", needs="db", condition=DependencyCondition.HEALTHY),
        service("db", health="healthy", health_after_ms=7000),
    )
    assert at["web"] == pytest.approx(7.0, abs=0.5)


async def test_what_depends_on_one_that_never_comes_starts_after_a_minute(rig: Rig) -> None:
    at = await rebooted(
        rig,
        service("web", needs="db", condition=DependencyCondition.HEALTHY),
        service("db", health="healthy", health_after_ms=100_000),
        seconds=70,
    )
    assert at["web"] == pytest.approx(60.0, abs=2)


async def test_without_a_reboot_nothing_waits_for_another(rig: Rig) -> None:
    await rig.apply(service("web", needs="db"), service("db", start_ms=4000))
    await asyncio.sleep(1)
    assert rig.state(task_of("web")) == (1, S.RUNNING)
