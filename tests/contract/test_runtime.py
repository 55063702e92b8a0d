"""What every runtime promises the agent: one suite for Docker, processes and the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent import guard
from agent.runtime.base import Gone, OutputChunk, Phase, Rejected, Runtime, Seen, Terminal
from homeport.model import Health, TaskId
from homeport.spec import Driver
from tests.contract.runtimes import (
    PATIENCE_SECONDS,
    Bench,
    DockerBench,
    ProcessBench,
    SimulatedBench,
    silent,
    until,
    up,
)

NOBODY = TaskId("shop-nobody-1/1/1")


@pytest.fixture(params=["simulated", "process", pytest.param("docker", marks=pytest.mark.docker)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each runtime in turn."""
    made: Bench
    match request.param:
        case "simulated":
            made = SimulatedBench()
        case "process":
            made = ProcessBench(tmp_path)
        case _:
            made = DockerBench(request.getfixturevalue("docker_engine").host, tmp_path)
    yield made
    await made.close()


@pytest.fixture
def runtime(bench: Bench) -> Runtime:
    """The runtime of the agent under test."""
    return bench.runtime()


def is_running(seen: Seen | None) -> bool:
    return seen is not None and seen.phase is Phase.RUNNING


def has_exited(seen: Seen | None) -> bool:
    return seen is not None and seen.phase is Phase.EXITED


async def text_of(
    runtime: Runtime, task: TaskId, *, follow: bool = False, tail: int = -1, since_ms: int = 0
) -> str:
    """What a task wrote."""
    logs = runtime.logs(task, follow=follow, tail=tail, since_ms=since_ms, until_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return "".join([chunk.data.decode() async for chunk in logs])


async def command(
    runtime: Runtime, task: TaskId, *words: str, interactive: bool = False
) -> Terminal:
    """Run a command beside a task."""
    return await runtime.exec(
        task, words, tty=False, interactive=interactive, user="", working_dir="", env=()
    )


# ---------------------------------------------------------------------------- the life of a task


async def test_a_task_goes_from_nothing_to_running_and_back(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    phases = [await runtime.inspect(task.task)]
    await runtime.prepare(task, silent)
    phases.append(await runtime.create(task))
    phases.append(await runtime.start(task.task))
    phases.append(await runtime.stop(task.task, 10.0))
    await runtime.remove(task.task)
    phases.append(await runtime.inspect(task.task))
    assert [seen and seen.phase for seen in phases] == [
        None,
        Phase.CREATED,
        Phase.RUNNING,
        Phase.EXITED,
        None,
    ]


async def test_what_runs_is_seen_with_its_process_and_generation(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.sleeper(generation=7)
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert (seen.phase, seen.task, seen.generation) == (Phase.RUNNING, task.task, 7)
    assert seen.pid > 0
    assert seen.started_ms > 0
    assert seen.exit_code is None
    assert (seen,) == await runtime.list()


async def test_creating_twice_makes_one_container(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await runtime.prepare(task, silent)
    first = await runtime.create(task)
    again = await runtime.create(task)
    assert first.container_id == again.container_id
    assert len(await runtime.list()) == 1


async def test_starting_twice_starts_once(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    before = await runtime.inspect(task.task)
    await runtime.start(task.task)
    assert before == await runtime.inspect(task.task)


async def test_what_is_running_is_created_by_being_adopted(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    before = await runtime.inspect(task.task)
    adopted = await runtime.create(task)
    assert before == adopted


@pytest.mark.parametrize("code", [0, 3])
async def test_an_exit_code_is_told(bench: Bench, runtime: Runtime, code: int) -> None:
    task = bench.ends(code)
    await up(runtime, task)
    seen = await until(runtime, task.task, has_exited)
    assert seen is not None
    assert (seen.exit_code, seen.oom_killed, seen.pid) == (code, False, 0)
    assert seen.finished_ms >= seen.started_ms > 0


async def test_an_ended_task_starts_again_in_place(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    first = await runtime.inspect(task.task)
    await runtime.stop(task.task, 10.0)
    await runtime.start(task.task)
    second = await runtime.inspect(task.task)
    assert first is not None
    assert second is not None
    assert (second.phase, second.container_id) == (Phase.RUNNING, first.container_id)
    assert second.pid != first.pid
    assert second.exit_code is None


async def test_two_tasks_have_two_containers(bench: Bench, runtime: Runtime) -> None:
    one, two = bench.sleeper(slot=1), bench.sleeper(slot=2)
    await up(runtime, one)
    await up(runtime, two)
    await runtime.stop(one.task, 10.0)
    assert [seen.phase for seen in await runtime.list()] == [Phase.EXITED, Phase.RUNNING]


# -------------------------------------------------------------------------------------- stopping


async def test_an_obedient_task_ends_by_itself_when_told(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.stop(task.task, PATIENCE_SECONDS)
    assert seen is not None
    assert seen.exit_code in (0, 143)  # a simulated one did not catch the signal


async def test_a_stubborn_task_is_killed_after_its_grace(bench: Bench, runtime: Runtime) -> None:
    task = bench.stubborn()
    await up(runtime, task)
    await follow_until(runtime, task.task, "deaf")
    loop = asyncio.get_running_loop()
    started = loop.time()
    seen = await runtime.stop(task.task, 0.3)
    assert loop.time() - started >= 0.3
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 137)


async def test_a_kill_needs_no_grace(bench: Bench, runtime: Runtime) -> None:
    task = bench.stubborn()
    await up(runtime, task)
    await runtime.kill(task.task)
    seen = await until(runtime, task.task, has_exited)
    assert seen is not None
    assert (seen.exit_code, seen.oom_killed) == (137, False)


async def test_a_task_that_is_removed_while_it_runs_is_gone(bench: Bench, runtime: Runtime) -> None:
    task = bench.stubborn()
    await up(runtime, task)
    await runtime.remove(task.task)
    assert await runtime.inspect(task.task) is None
    assert await runtime.list() == ()


async def test_stopping_what_has_ended_changes_nothing(bench: Bench, runtime: Runtime) -> None:
    task = bench.ends(3)
    await up(runtime, task)
    ended = await until(runtime, task.task, has_exited)
    assert ended == await runtime.stop(task.task, 10.0)
    await runtime.kill(task.task)
    assert ended == await runtime.inspect(task.task)


async def test_what_does_not_exist_is_stopped_killed_and_removed_without_complaint(
    runtime: Runtime,
) -> None:
    assert await runtime.stop(NOBODY, 1.0) is None
    await runtime.kill(NOBODY)
    await runtime.remove(NOBODY)
    assert await runtime.inspect(NOBODY) is None


async def test_what_does_not_exist_cannot_be_started_or_looked_into(runtime: Runtime) -> None:
    with pytest.raises(Gone):
        await runtime.start(NOBODY)
    with pytest.raises(Gone):
        await text_of(runtime, NOBODY)
    with pytest.raises(Gone):
        await command(runtime, NOBODY, "true")
    assert await runtime.sample(NOBODY) is None


async def test_a_task_that_was_removed_in_between_is_gone(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await runtime.prepare(task, silent)
    await runtime.create(task)
    await bench.runtime().remove(task.task)
    with pytest.raises(Gone):
        await runtime.start(task.task)


# ------------------------------------------------------------------------------------ misfortune


async def test_a_process_killed_from_outside_is_seen_as_ended(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    bench.kill_outside(seen)
    ended = await until(runtime, task.task, has_exited)
    assert ended is not None
    assert ended.exit_code == 137


async def test_too_much_memory_is_told_apart_from_a_kill(bench: Bench, runtime: Runtime) -> None:
    task = bench.greedy()
    await up(runtime, task)
    seen = await until(runtime, task.task, has_exited)
    assert seen is not None
    assert (seen.oom_killed, seen.exit_code) == (True, 137)


async def test_what_cannot_be_prepared_is_refused_in_words(bench: Bench, runtime: Runtime) -> None:
    with pytest.raises(Rejected, match=r"\w+ \w+"):
        await runtime.prepare(bench.unpreparable(), silent)
    assert await runtime.list() == ()


async def test_what_cannot_be_started_is_refused_in_words(bench: Bench, runtime: Runtime) -> None:
    task = bench.unstartable()
    await runtime.prepare(task, silent)
    await runtime.create(task)
    with pytest.raises(Rejected, match="nosuch"):
        await runtime.start(task.task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert seen.phase is not Phase.RUNNING


async def test_labels_of_ours_are_refused(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper(labels=(("dev.homeport.task", "other/1/1"),))
    with pytest.raises(Rejected, match=r"dev\.homeport\.task"):
        await runtime.prepare(task, silent)


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_health_is_told(bench: Bench, runtime: Runtime, is_healthy: bool) -> None:
    task = bench.checked(is_healthy=is_healthy)
    await up(runtime, task)
    first = await runtime.inspect(task.task)
    assert first is not None
    expected = Health.HEALTHY if is_healthy else Health.UNHEALTHY
    assert first.health in (Health.STARTING, expected)
    seen = await until(
        runtime, task.task, lambda seen: seen is not None and seen.health is expected
    )
    assert is_running(seen)


async def test_without_a_health_check_there_is_no_health(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert seen.health is Health.NONE


# -------------------------------------------------------------------------------------- adoption


async def test_a_new_agent_finds_what_the_old_one_left_running(bench: Bench) -> None:
    old = bench.runtime()
    task = bench.sleeper()
    await up(old, task)
    before = await old.inspect(task.task)
    await old.close()
    new = bench.runtime()
    assert (before,) == await new.list()
    stopped = await new.stop(task.task, 10.0)
    assert has_exited(stopped)


async def test_an_end_that_no_agent_saw_keeps_its_exit_code(bench: Bench) -> None:
    old = bench.runtime()
    task = bench.ends(3)
    await up(old, task)
    await old.close()
    seen = await until(bench.runtime(), task.task, has_exited)
    assert seen is not None
    assert seen.exit_code == 3


async def test_the_containers_of_another_cluster_are_not_touched(bench: Bench) -> None:
    theirs, ours = bench.runtime("theirs-" + bench.revision), bench.runtime()
    task = bench.sleeper()
    await up(theirs, task)
    before = await theirs.inspect(task.task)
    assert await ours.list() == ()
    assert await ours.inspect(task.task) is None
    assert await ours.stop(task.task, 0.0) is None
    await ours.kill(task.task)
    await ours.remove(task.task)
    await ours.clean("shop")
    with pytest.raises(Gone):
        await ours.start(task.task)
    with pytest.raises(Gone):
        await text_of(ours, task.task)
    with pytest.raises(Gone):
        await command(ours, task.task, "true")
    await ours.prepare(task, silent)
    with pytest.raises(Rejected, match="taken on this node"):
        await ours.create(task)
    assert before == await theirs.inspect(task.task)


async def test_cleaning_one_stack_leaves_the_tasks_of_another(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.sleeper(stack="other")
    await up(runtime, task)
    await runtime.clean("shop")
    await runtime.clean("other")  # it still has a task here: nothing that it uses goes
    assert is_running(await runtime.inspect(task.task))
    await runtime.stop(task.task, 10.0)
    await runtime.start(task.task)


# ---------------------------------------------------------------------------------- what happens


async def test_events_begin_with_a_look_at_everything_and_tell_of_each_change(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.sleeper()
    told: list[tuple[TaskId | None, str]] = []

    async def expect(task: TaskId | None, action: str) -> None:
        async for event in events:
            told.append((event.task, event.action))
            if (event.task, event.action) == (task, action):
                return

    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(runtime.events()) as events:
        first = await anext(events)
        await up(runtime, task)
        await expect(task.task, "start")
        await runtime.stop(task.task, 10.0)
        await expect(task.task, "die")
        await runtime.remove(task.task)
        await expect(task.task, "destroy")
    assert first.task is None
    assert {each for each, _ in told} == {task.task}


async def test_events_of_another_cluster_are_not_told(bench: Bench) -> None:
    theirs, ours = bench.runtime("theirs-" + bench.revision), bench.runtime()
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(ours.events()) as events:
        assert (await anext(events)).task is None
        await up(theirs, bench.sleeper(slot=1))
        await up(ours, bench.sleeper(slot=2))
        assert (await anext(events)).task == bench.sleeper(slot=2).task


# ------------------------------------------------------------------------------------ looking in


async def test_logs_are_kept_after_the_end(bench: Bench, runtime: Runtime) -> None:
    task = bench.says("one", "two", "three")
    await up(runtime, task)
    await follow_until(runtime, task.task, "three")
    await runtime.stop(task.task, 10.0)
    assert await text_of(runtime, task.task) == "one\ntwo\nthree\n"
    assert await text_of(runtime, task.task, tail=1) == "three\n"
    assert await text_of(runtime, task.task, tail=0) == ""


async def test_logs_carry_their_time_and_are_found_by_it(bench: Bench, runtime: Runtime) -> None:
    task = bench.says("one")
    await up(runtime, task)
    chunk = await follow_until(runtime, task.task, "one")
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert abs(chunk.at_ms - seen.started_ms) < 60_000
    assert await text_of(runtime, task.task, since_ms=chunk.at_ms) == "one\n"
    assert await text_of(runtime, task.task, since_ms=chunk.at_ms + 1) == ""


async def test_following_logs_ends_with_the_process(bench: Bench, runtime: Runtime) -> None:
    task = bench.says("one")
    await up(runtime, task)
    await follow_until(runtime, task.task, "one")
    async with asyncio.TaskGroup() as background:
        followed = background.create_task(text_of(runtime, task.task, follow=True))
        await runtime.stop(task.task, 10.0)
    assert followed.result() == "one\n"


async def follow_until(runtime: Runtime, task: TaskId, line: str) -> OutputChunk:
    """Wait until a task has written this line."""
    logs = runtime.logs(task, follow=True, tail=-1, since_ms=0, until_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(logs):
        async for chunk in logs:
            if chunk.data.decode() == f"{line}\n":
                return chunk
    raise AssertionError(f"it ended without saying {line}")


async def test_standard_error_is_told_apart(bench: Bench, runtime: Runtime) -> None:
    task = bench.says_twice()
    await up(runtime, task)
    chunks = []
    logs = runtime.logs(task.task, follow=True, tail=-1, since_ms=0, until_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(logs):
        async for chunk in logs:
            chunks.append((chunk.data, chunk.is_stderr))
            if len(chunks) == 2:
                break
    assert sorted(chunks) == [(b"err\n", True), (b"out\n", False)]


async def test_a_command_runs_beside_the_task(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    terminal = await command(runtime, task.task, "echo", "hello", "world")
    async with asyncio.timeout(PATIENCE_SECONDS):
        said = b"".join([chunk.data async for chunk in terminal])
        code = await terminal.exit_code()
    await terminal.close()
    assert (said, code) == (b"hello world\n", 0)


async def test_the_exit_code_of_a_command_is_told(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    terminal = await command(runtime, task.task, "sh", "-c", "exit 5")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await terminal.exit_code() == 5
    await terminal.close()


async def test_a_command_reads_its_input_to_the_end(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    terminal = await command(runtime, task.task, "cat", interactive=True)
    await terminal.write(b"first\n")
    await terminal.write(b"last\n")
    await terminal.close_input()
    async with asyncio.timeout(PATIENCE_SECONDS):
        said = b"".join([chunk.data async for chunk in terminal])
        code = await terminal.exit_code()
    await terminal.close()
    assert (said, code) == (b"first\nlast\n", 0)


async def test_no_command_runs_where_no_task_runs(bench: Bench, runtime: Runtime) -> None:
    task = bench.ends(0)
    await up(runtime, task)
    await until(runtime, task.task, has_exited)
    with pytest.raises(Rejected):
        await command(runtime, task.task, "true")


async def test_counters_are_there_while_it_runs(bench: Bench, runtime: Runtime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    sample = await runtime.sample(task.task)
    assert sample is not None
    assert sample.pids >= 1
    await runtime.stop(task.task, 10.0)
    assert await runtime.sample(task.task) is None


# ------------------------------------------------------------------------------------- the engine


async def test_a_working_engine_says_so(runtime: Runtime) -> None:
    assert (await runtime.check()).ok
    facts = await runtime.facts()
    assert facts.capacity.cpu_millis >= 1000
    assert facts.capacity.memory_bytes > 1 << 20


async def test_an_image_that_was_never_loaded_is_not_there(runtime: Runtime) -> None:
    assert not await runtime.has_image("sha256:" + "0" * 64)


# ---------------------------------------------------------------------------- fencing


async def test_the_guard_ends_all_processes_of_a_task_by_its_marks_and_nobody_elses(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.task(shell="trap '' TERM; sleep 1000 & sleep 1000 & wait; wait")
    other = bench.sleeper(slot=2)
    seen, bystander = await up(runtime, task), await up(runtime, other)
    marks = runtime.marks(seen)
    assert marks == runtime.marks(await runtime.inspect(task.task) or seen)
    assert set(marks).isdisjoint(runtime.marks(bystander))
    if bench.driver is Driver.SIMULATED:
        assert guard.is_named(f"0::/{seen.container_id}\n", marks)
        return
    killed, failed = guard.end(marks)
    assert killed >= 1
    assert not failed
    assert has_exited(await until(runtime, task.task, has_exited))
    assert is_running(await runtime.inspect(other.task))
    assert not list(guard.processes(marks)), "nothing of it is left"


async def test_a_container_without_the_agents_memory_is_seen_with_all_that_adopting_it_takes(
    bench: Bench, runtime: Runtime
) -> None:
    task = bench.sleeper(generation=7)
    seen = await up(runtime, task)
    (listed,) = await bench.runtime().list()
    assert (listed.task, listed.generation, listed.container_id) == (
        task.task,
        7,
        seen.container_id,
    )
    assert is_running(listed)
    adopted = await bench.runtime().create(task)
    assert (adopted.container_id, adopted.phase) == (seen.container_id, Phase.RUNNING)
