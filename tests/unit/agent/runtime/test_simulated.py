"""The simulation keeps time exactly, and what befalls its machine befalls its containers."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from agent.runtime.base import Phase, Rejected, Unavailable, Work
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine, script_of
from homeport.model import Health
from homeport.spec import Driver, Port, pairs
from tests.contract.works import work

pytestmark = pytest.mark.looptime


class LoopClock:
    """Both clocks on the event loop's time."""

    def boottime(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return int(self.boottime() * 1000)


@pytest.fixture
def engine() -> SimulatedEngine:
    return SimulatedEngine(LoopClock())


@pytest.fixture
def runtime(engine: SimulatedEngine) -> SimulatedRuntime:
    return SimulatedRuntime(engine, "c1")


def task(slot: int = 1, ports: tuple[Port, ...] = (), **script: object) -> Work:
    labels = pairs({f"sim.{key}": str(value) for key, value in script.items()})
    return work(driver=Driver.SIMULATED, slot=slot, ports=ports, labels=labels)


async def up(runtime: SimulatedRuntime, wanted: Work, tell: Callable[[str], None] = print) -> None:
    await runtime.prepare(wanted, tell)
    await runtime.create(wanted)
    await runtime.start(wanted.task)


async def test_each_step_takes_what_the_script_says(runtime: SimulatedRuntime) -> None:
    loop = asyncio.get_running_loop()
    wanted = task(prepare_ms=5000, create_ms=300, start_ms=200)
    told: list[str] = []
    times = [loop.time()]
    await runtime.prepare(wanted, told.append)
    times.append(loop.time())
    await runtime.create(wanted)
    times.append(loop.time())
    await runtime.start(wanted.task)
    times.append(loop.time())
    assert times == pytest.approx([0, 5.0, 5.3, 5.5])
    assert told == ["pulling hp/busybox:1"]


async def test_an_end_comes_when_the_script_says(runtime: SimulatedRuntime) -> None:
    wanted = task(run_for_ms=60_000, exit_code=4)
    async with aclosing(runtime.events()) as events:
        await anext(events)
        await up(runtime, wanted)
        actions = [(await anext(events)).action, (await anext(events)).action]
    seen = await runtime.inspect(wanted.task)
    assert seen is not None
    assert actions == ["start", "die"]
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 4)
    assert (seen.started_ms, seen.finished_ms) == (0, 60_000)


async def test_a_stop_cancels_the_end_that_was_to_come(runtime: SimulatedRuntime) -> None:
    wanted = task(run_for_ms=60_000)
    await up(runtime, wanted)
    await runtime.stop(wanted.task, 10.0)
    await runtime.start(wanted.task)
    await asyncio.sleep(59.9)
    before = await runtime.inspect(wanted.task)
    await asyncio.sleep(0.2)
    after = await runtime.inspect(wanted.task)
    assert before is not None
    assert after is not None
    assert (before.phase, after.phase) == (Phase.RUNNING, Phase.EXITED)


@pytest.mark.parametrize(
    ("stop_ms", "grace", "took", "code"),
    [(0, 10.0, 0, 143), (3000, 10.0, 3, 143), (30_000, 10.0, 10, 137)],
)
async def test_a_stop_takes_what_it_takes_but_no_longer_than_its_grace(
    runtime: SimulatedRuntime, stop_ms: int, grace: float, took: float, code: int
) -> None:
    wanted = task(stop_ms=stop_ms)
    await up(runtime, wanted)
    seen = await runtime.stop(wanted.task, grace)
    assert asyncio.get_running_loop().time() == pytest.approx(took)
    assert seen is not None
    assert seen.exit_code == code


async def test_health_changes_when_the_script_says(
    engine: SimulatedEngine, runtime: SimulatedRuntime
) -> None:
    wanted = task(health="healthy", health_after_ms=4000)
    await up(runtime, wanted)
    found = []
    for _ in range(3):
        seen = await runtime.inspect(wanted.task)
        assert seen is not None
        found.append(seen.health)
        await asyncio.sleep(2.5)
    engine.report_health(wanted.task, "unhealthy")
    seen = await runtime.inspect(wanted.task)
    assert seen is not None
    assert [*found, seen.health] == [
        Health.STARTING,
        Health.STARTING,
        Health.HEALTHY,
        Health.UNHEALTHY,
    ]


async def test_an_outage_refuses_every_call_and_ends_with_a_look_at_everything(
    engine: SimulatedEngine, runtime: SimulatedRuntime
) -> None:
    wanted = task()
    await up(runtime, wanted)
    async with aclosing(runtime.events()) as events:
        await anext(events)
        engine.outage = "the engine is down"
        with pytest.raises(Unavailable, match="the engine is down"):
            await runtime.inspect(wanted.task)
        assert not (await runtime.check()).ok
        engine.end(wanted.task)
        engine.recover()
        told = [await anext(events) for _ in range(2)]
    assert None in [event.task for event in told]
    assert (await runtime.check()).ok


async def test_a_hang_takes_a_whole_deadline_and_of_one_container_only_its_own(
    engine: SimulatedEngine, runtime: SimulatedRuntime
) -> None:
    one, two = task(slot=1), task(slot=2)
    await up(runtime, one)
    await up(runtime, two)
    engine.hanging.add(one.task)
    assert await runtime.inspect(two.task)
    assert asyncio.get_running_loop().time() == 0
    with pytest.raises(Unavailable):
        await runtime.inspect(one.task)
    assert asyncio.get_running_loop().time() == 10


async def test_after_a_reboot_nothing_runs_and_nobody_was_told(
    engine: SimulatedEngine, runtime: SimulatedRuntime
) -> None:
    wanted = task(run_for_ms=1000)
    await up(runtime, wanted)
    async with aclosing(runtime.events()) as events:
        await anext(events)
        engine.reboot()
        engine.recover()
        assert (await anext(events)).task is None
    seen = await SimulatedRuntime(engine, "c1").inspect(wanted.task)
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 255)


async def test_a_port_is_held_by_one_at_a_time(runtime: SimulatedRuntime) -> None:
    port = Port(target=80, published=8080)
    one, two = task(slot=1, ports=(port,)), task(slot=2, ports=(port, Port(target=81)))
    await up(runtime, one)
    with pytest.raises(Rejected, match="port 8080/tcp is taken"):
        await up(runtime, two)
    await runtime.stop(one.task, 0.0)
    await runtime.start(two.task)
    seen = await runtime.inspect(two.task)
    assert seen is not None
    assert seen.ports[0].published == 8080
    assert seen.ports[1].published >= 32768


async def test_steps_fail_with_the_sentence_of_the_script(runtime: SimulatedRuntime) -> None:
    with pytest.raises(Rejected, match="no image"):
        await runtime.prepare(task(fail_prepare="no image"), print)
    with pytest.raises(Rejected, match="no room"):
        await runtime.create(task(fail_create="no room"))
    wanted = task(fail_start="no luck")
    await runtime.create(wanted)
    with pytest.raises(Rejected, match="no luck"):
        await runtime.start(wanted.task)


@pytest.mark.parametrize(
    "label", [("sim.nosuch", "1"), ("sim.run_for_ms", "soon"), ("sim.oom", "x")]
)
def test_a_script_with_a_slip_is_refused(label: tuple[str, str]) -> None:
    with pytest.raises(Rejected, match="means nothing"):
        script_of((label,))


async def test_an_image_that_was_loaded_is_there(runtime: SimulatedRuntime) -> None:
    await runtime.load_image("/tmp/sha256:12.tar")
    assert await runtime.has_image("sha256:12")
