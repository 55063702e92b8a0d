"""What the docker runtime does while its engine, a container or a registry is in trouble.

Faults F28 and F32 to F38 of an engine that is really killed, frozen or starved. Deadlines are
shortened, nothing else is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

import pytest
from docker import APIClient

from agent.runtime import docker, docker_check, docker_look, proc
from agent.runtime.base import Gone, Phase, Rejected, Unavailable, Work
from agent.runtime.docker import DockerRuntime, DockerSettings
from agent.runtime.docker_images import PullLimits
from homeport.model import Health
from homeport.seams import SystemClock
from homeport.spec import Argv, FileKind, FileMount, HealthCheck, NetworkAttachment, PullPolicy
from tests.contract.runtimes import PATIENCE_SECONDS, DockerBench, silent, until, up
from tests.contract.works import stack_file
from tests.testbed import requirements
from tests.testbed.engine import Engine
from tests.testbed.images import CRASHING, SLEEPER, WEB
from tests.testbed.proxy import Wire
from tests.testbed.registry import Registry

pytestmark = pytest.mark.docker

STUCK = "stuck"
"""An OCI runtime that starts nothing as long as a file called `hold` is there."""


class Trouble:
    """An engine of this module's own, and how to make a container of it hang."""

    def __init__(self, folder: Path) -> None:
        self.hold = folder / "hold"
        script = folder / "stuck.sh"
        script.write_text(f"#!/bin/sh\nwhile [ -e {self.hold} ]; do sleep 0.1; done\nexit 1\n")
        script.chmod(0o755)
        self.engine = Engine(arguments=["--add-runtime", f"{STUCK}={script}"])


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    if problem := requirements.missing(requirements.ENGINE, root=True):
        pytest.fail(problem, pytrace=False)
    made = Trouble(tmp_path_factory.mktemp("trouble"))
    with made.engine:
        made.engine.load()
        yield made


@pytest.fixture
async def bench(trouble: Trouble, tmp_path: Path) -> AsyncIterator[DockerBench]:
    made = DockerBench(trouble.engine.host, tmp_path)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "START_SECONDS", 2.0)
    monkeypatch.setattr(docker_look, "INSPECT_SECONDS", 1.0)
    monkeypatch.setattr(docker_check, "CHECK_SECONDS", 1.0)


# -------------------------------------------------------------------------------------- the engine


async def test_a_frozen_engine_is_unavailable_within_the_deadline_and_is_back_when_it_thaws(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await up(runtime, task)
    before = await runtime.inspect(task.task)
    trouble.engine.pause()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(Unavailable, match=r"did not answer within 1 s"):
                await runtime.inspect(task.task)
            condition = await runtime.check()
    finally:
        trouble.engine.resume()
    assert not condition.ok
    assert "did not answer" in condition.message
    assert before == await runtime.inspect(task.task)
    assert (await runtime.check()).ok


async def test_a_killed_engine_restarts_no_container_and_says_look_at_everything(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task, short = bench.sleeper(slot=1), bench.task(slot=2, shell="sleep 1; exit 7")
    await up(runtime, task)
    await up(runtime, short)
    before = await runtime.inspect(task.task)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(runtime.events()) as events:
        assert (await anext(events)).task is None
        trouble.engine.kill9()
        condition = await runtime.check()
        with pytest.raises(Unavailable, match="is the engine running"):
            await runtime.inspect(task.task)
        trouble.engine.start()
        async for event in events:
            if event.task is None:
                break
    assert not condition.ok
    assert before == await runtime.inspect(task.task)
    ended = await until(
        runtime, short.task, lambda seen: seen is not None and seen.phase is Phase.EXITED
    )
    assert ended is not None
    assert ended.exit_code == 7


async def test_following_logs_outlives_the_engine_without_a_line_lost_or_twice(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.task(shell="for n in $(seq 40); do echo $n; sleep 0.05; done")
    await up(runtime, task)
    lines: list[str] = []
    logs = runtime.logs(task.task, follow=True, tail=-1, since_ms=0, until_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for chunk in logs:
            lines.append(chunk.data.decode().strip())
            if len(lines) == 5:
                trouble.engine.kill9()
                trouble.engine.start()
    assert lines == [str(number) for number in range(1, 41)]


async def test_an_engine_without_its_containerd_says_so_and_recovers(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await runtime.prepare(task, silent)
    await runtime.create(task)
    trouble.engine.containerd.kill9()
    try:
        condition = await runtime.check()
        with pytest.raises(Unavailable):
            await runtime.start(task.task)
    finally:
        trouble.engine.start()
    assert not condition.ok
    await started_at_last(bench, task)
    assert (await runtime.check()).ok


async def started_at_last(bench: DockerBench, task: Work) -> None:
    """Start a task as a runner would: again, as long as the engine is not available."""
    runtime = bench.runtime()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await runtime.start(task.task)
            except Unavailable:
                await runtime.check()  # takes as long as the engine needs to answer
            else:
                return


async def test_after_work_failed_the_check_writes_until_writing_succeeds(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await runtime.prepare(task, silent)
    trouble.engine.kill9()
    with pytest.raises(Unavailable):
        await runtime.create(task)
    trouble.engine.start()
    client = trouble.engine.client()
    before = int(client.info()["Containers"])
    assert (await runtime.check()).ok
    probes = [
        event
        for event in client.events(since=0, until=_now(client), decode=True)
        if "dev.homeport.probe" in event["Actor"].get("Attributes", {})
    ]
    assert [event["Action"] for event in probes[-2:]] == ["create", "destroy"]
    assert int(client.info()["Containers"]) == before


def _now(client: object) -> int:
    """The engine's own clock, a second on."""
    system_time = client.info()["SystemTime"]  # type: ignore[attr-defined]
    return int(datetime.fromisoformat(system_time).timestamp()) + 1


# ------------------------------------------------------------------------------------ a container


async def test_one_container_that_hangs_blocks_no_other(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    hung = [bench.sleeper(slot=slot, oci_runtime=STUCK) for slot in range(1, 21)]
    trouble.hold.touch()
    try:
        for task in hung:
            await runtime.prepare(task, silent)
            await runtime.create(task)

        async def try_to_start(task: Work) -> str:
            try:
                await runtime.start(task.task)
            except Unavailable as error:
                return str(error)
            return ""

        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as background:
            starts = [background.create_task(try_to_start(task)) for task in hung]
        # More than there are threads, and all have timed out: they share two from now on.
        assert all("did not answer" in start.result() for start in starts)
        async with asyncio.TaskGroup() as background:
            looks = [background.create_task(_look(runtime, task)) for task in hung]
            healthy = bench.sleeper(slot=30)
            await up(runtime, healthy)
            assert not all(look.done() for look in looks)
            for look in looks:
                look.cancel()
        seen = await runtime.list()
    finally:
        trouble.hold.unlink()
    # In the list are all: those that could be looked at, and those that could not.
    assert len(seen) == 21
    assert [each.task for each in seen if each.phase is Phase.RUNNING] == [healthy.task]


async def _look(runtime: object, task: Work) -> None:
    try:
        await runtime.inspect(task.task)  # type: ignore[attr-defined]
    except Unavailable:
        return


async def test_a_dead_process_is_not_running_whatever_the_engine_says(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    shim = parent_of(seen.pid)
    # Who would tell the engine of the end is stopped: it goes on believing in its container.
    os.kill(shim, signal.SIGSTOP)
    try:
        os.kill(seen.pid, signal.SIGKILL)
        assert await proc.wait_for_exit(seen.pid, PATIENCE_SECONDS)
        claimed = trouble.engine.client().inspect_container(seen.container_id)["State"]["Running"]
        ghost = await runtime.inspect(task.task)
    finally:
        os.kill(shim, signal.SIGCONT)
    assert claimed
    assert ghost is not None
    assert (ghost.phase, ghost.pid, ghost.exit_code) == (Phase.EXITED, 0, None)
    assert "is gone" in ghost.error


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_paused_container_is_seen_as_paused_and_stops(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await up(runtime, task)
    trouble.engine.client().pause(f"{task.task.replace('/', '.')}")
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert seen.phase is Phase.PAUSED
    stopped = await runtime.stop(task.task, 10.0)
    assert stopped is not None
    assert (stopped.phase, stopped.exit_code) == (Phase.EXITED, 0)


async def test_a_container_that_was_paused_and_goes_on_is_not_unwell(
    bench: DockerBench, trouble: Trouble
) -> None:
    """Docker calls it unhealthy until its next check, and who believes that restarts it."""
    runtime = bench.runtime()
    check = HealthCheck(test=("CMD", "true"), interval_ms=3000, retries=3)
    task = bench.sleeper(health_check=check)
    seen = await up(runtime, task)
    await until(runtime, task.task, lambda seen: seen is not None and seen.health is Health.HEALTHY)
    client = trouble.engine.client()
    client.pause(seen.container_id)
    client.unpause(seen.container_id)
    claimed = client.inspect_container(seen.container_id)["State"]["Health"]
    after = await runtime.inspect(task.task)
    assert (claimed["Status"], claimed["FailingStreak"]) == ("unhealthy", 0)
    assert after is not None
    assert after.health is not Health.UNHEALTHY


@pytest.mark.parametrize("by", ["the same agent", "the next agent"])
async def test_a_container_that_was_renamed_by_hand_stays_the_tasks_and_gets_its_name_back(
    bench: DockerBench, trouble: Trouble, by: str
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await up(runtime, task)
    before = await runtime.inspect(task.task)
    assert before is not None
    client = trouble.engine.client()
    client.rename(before.container_id, "mine-now")
    if by == "the next agent":
        runtime = bench.runtime()
        assert await runtime.list() == (before,)
    assert await runtime.inspect(task.task) == before
    assert (await runtime.create(task)).container_id == before.container_id
    assert _names(client, task) == [task.task.replace("/", ".")]


async def test_a_container_whose_name_is_taken_meanwhile_is_still_the_only_one_of_its_task(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper()
    await up(runtime, task)
    before = await runtime.inspect(task.task)
    assert before is not None
    client = trouble.engine.client()
    client.rename(before.container_id, "mine-now")
    name = task.task.replace("/", ".")
    foreign = client.create_container(SLEEPER.name, name=name)["Id"]
    try:
        assert await runtime.inspect(task.task) == before
        # Nor does an agent that comes anew make a second one.
        runtime = bench.runtime()
        assert await runtime.list() == (before,)
        assert (await runtime.create(task)).container_id == before.container_id
        assert _names(client, task) == ["mine-now"]
        await runtime.stop(task.task, 5.0)
        await runtime.remove(task.task)
        assert _names(client, task) == []
        assert client.inspect_container(name)["Id"] == foreign
    finally:
        client.remove_container(foreign, force=True)


def _names(client: APIClient, task: Work) -> list[str]:
    """The names of all containers that carry this task's label."""
    found = client.containers(all=True, filters={"label": f"dev.homeport.task={task.task}"})
    return sorted(each["Names"][0].lstrip("/") for each in found)


async def test_a_command_that_is_left_alone_is_hung_up(bench: DockerBench) -> None:
    runtime = bench.runtime()
    task = bench.sleeper(pid_mode="host")  # so that its numbers are ours
    await up(runtime, task)
    terminal = await runtime.exec(
        task.task,
        ["sh", "-c", "echo $$; exec sleep 1000"],
        tty=False,
        interactive=False,
        user="",
        working_dir="",
        env=(),
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        pid = int((await anext(aiter(terminal))).data)
    await terminal.close()
    assert await proc.wait_for_exit(pid, PATIENCE_SECONDS)


async def test_a_container_that_was_not_connected_to_all_its_networks_is_completed(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper(
        networks=(NetworkAttachment(network="front"), NetworkAttachment(network="back"))
    )
    await runtime.prepare(task, silent)
    created = await runtime.create(task)
    client = trouble.engine.client()
    # As an agent leaves it that dies between making and connecting a container.
    client.disconnect_container_from_network(created.container_id, "shop_front")
    assert await bench.runtime().create(task) == await runtime.inspect(task.task)
    networks = client.inspect_container(created.container_id)["NetworkSettings"]["Networks"]
    assert set(networks) == {"shop_front", "shop_back"}


async def test_networks_of_a_stack_go_with_it_and_others_stay(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper(networks=(NetworkAttachment(network="front"),))
    await up(runtime, task)
    client = trouble.engine.client()
    client.create_network("shop_foreign", labels={"dev.homeport.stack": "shop"})
    await runtime.clean("shop")
    assert {each["Name"] for each in client.networks()} >= {"shop_front", "shop_foreign"}
    await runtime.remove(task.task)
    await runtime.clean("shop")
    names = {each["Name"] for each in client.networks()}
    client.remove_network("shop_foreign")
    assert "shop_front" not in names
    assert "shop_foreign" in names


async def test_a_network_of_somebody_else_is_not_taken_for_the_stack_s(
    bench: DockerBench, trouble: Trouble
) -> None:
    client = trouble.engine.client()
    client.create_network("shop_front")
    try:
        with pytest.raises(Rejected, match="is not this stack's"):
            await bench.runtime().prepare(
                bench.sleeper(networks=(NetworkAttachment(network="front"),)), silent
            )
    finally:
        client.remove_network("shop_front")


async def test_thirty_tasks_at_once_make_one_network(bench: DockerBench, trouble: Trouble) -> None:
    tasks = [
        bench.sleeper(slot=slot, networks=(NetworkAttachment(network="front"),))
        for slot in range(1, 31)
    ]
    # Two agents' worth of runtimes: one has a lock of its own, two have not.
    runtimes = [bench.runtime(), bench.runtime()]
    async with asyncio.TaskGroup() as background:
        for number, task in enumerate(tasks):
            background.create_task(runtimes[number % 2].prepare(task, silent))
    names = [each["Name"] for each in trouble.engine.client().networks(names=["shop_front"])]
    assert names == ["shop_front"]


# ------------------------------------------------------------------------------------ the machine


async def test_secrets_that_a_reboot_took_are_put_back_before_the_start(
    bench: DockerBench, trouble: Trouble
) -> None:
    runtime = bench.runtime()
    task = bench.sleeper(
        files=(FileMount(kind=FileKind.SECRET, source="word", target="/run/secrets/word"),),
        stack_files=(stack_file(FileKind.SECRET, "word", b"open sesame"),),
    )
    await up(runtime, task)
    first = await runtime.inspect(task.task)
    trouble.engine.power_off()
    shutil.rmtree(bench.state_dir / "secrets")
    trouble.engine.start()
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert seen.phase is Phase.EXITED
    with pytest.raises(Gone, match="secrets"):
        await runtime.start(task.task)
    assert not (bench.state_dir / "secrets").exists()  # the engine must not have made directories
    await up(runtime, task)
    again = await runtime.inspect(task.task)
    assert first is not None
    assert again is not None
    assert (again.phase, again.container_id) == (Phase.RUNNING, first.container_id)
    terminal = await runtime.exec(
        task.task,
        ["cat", "/run/secrets/word"],
        tty=False,
        interactive=False,
        user="",
        working_dir="",
        env=(),
    )
    assert b"".join([chunk.data async for chunk in terminal]) == b"open sesame"
    await terminal.close()


# ----------------------------------------------------------------------------------- the registry


async def pull(runtime: DockerRuntime, bench: DockerBench, name: str, slot: int = 1) -> list[str]:
    """Prepare a task with this image; what it told on the way."""
    told: list[str] = []
    task = bench.task(image=name, shell="true", slot=slot)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await runtime.prepare(task, told.append)
    return told


def impatient(bench: DockerBench) -> DockerRuntime:
    """A runtime that gives up on a silent registry after a second and a half."""
    return DockerRuntime(
        DockerSettings(
            cluster=bench.cluster,
            state_dir=bench.state_dir,
            secrets_dir=bench.state_dir / "secrets",
            base_url=bench.host,
            pull_limits=PullLimits(stall_seconds=1.5),
        ),
        SystemClock(),
    )


async def test_a_registry_that_stops_sending_is_given_up_in_words(
    bench: DockerBench, trouble: Trouble, registry: Registry
) -> None:
    name = f"stall-{bench.revision}:1"
    registry.push(trouble.engine, WEB, name)
    runtime = impatient(bench)
    with Wire((registry.host, registry.port)) as wire:
        wire.stall()
        with pytest.raises(Rejected, match=r"cannot pull .*: no bytes came for 1\.5 s"):
            await pull(runtime, bench, f"{wire.address}/{name}")
        wire.resume()
        told = await pull(runtime, bench, f"{wire.address}/{name}")
    assert told[0] == f"pulling {wire.address}/{name}"
    await runtime.close()


async def test_a_stalled_pull_holds_up_no_other(
    bench: DockerBench, trouble: Trouble, registry: Registry
) -> None:
    name = f"beside-{bench.revision}:1"
    registry.push(trouble.engine, WEB, name)
    runtime = impatient(bench)
    with Wire((registry.host, registry.port)) as wire:
        wire.stall()
        async with asyncio.TaskGroup() as background:
            stalled = background.create_task(_refusal(runtime, bench, f"{wire.address}/{name}"))
            await pull(runtime, bench, f"{registry.address}/{name}", slot=2)
            assert not stalled.done()
    assert "no bytes came" in stalled.result()
    await runtime.close()


async def _refusal(runtime: DockerRuntime, bench: DockerBench, name: str) -> str:
    with pytest.raises(Rejected) as refused:
        await pull(runtime, bench, name)
    return str(refused.value)


async def test_many_tasks_that_want_one_image_share_one_pull(
    bench: DockerBench, trouble: Trouble, registry: Registry
) -> None:
    short = f"shared-{bench.revision}:1"
    registry.push(trouble.engine, SLEEPER, short)
    runtime = bench.runtime()
    with Wire((registry.host, registry.port)) as wire:
        name = f"{wire.address}/{short}"
        wire.stall()
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as background:
            pulling = [asyncio.Event() for _ in range(8)]
            pulls = [
                background.create_task(
                    runtime.prepare(bench.task(image=name, slot=slot), pulling_is(event))
                )
                for slot, event in enumerate(pulling, start=1)
            ]
            for event in pulling:
                await event.wait()
            # Whoever asked first goes away; the others' pull goes on.
            pulls[0].cancel()
            wire.resume()
    client = trouble.engine.client()
    lines = b"".join(client.events(since=0, until=_now(client))).splitlines()
    pulled = [
        event
        for event in map(json.loads, lines)
        if event.get("status") == "pull" and name in event.get("id", "")
    ]
    assert len(pulled) == 1


def pulling_is(event: asyncio.Event) -> Callable[[str], None]:
    return lambda sentence: event.set()


async def test_an_image_that_the_registry_has_not_is_refused_in_its_words(
    bench: DockerBench, registry: Registry
) -> None:
    runtime = impatient(bench)
    with pytest.raises(Rejected, match=r"nosuch:1.*(not found|manifest unknown)"):
        await pull(runtime, bench, f"{registry.address}/nosuch:1")
    await runtime.close()


async def test_credentials_come_from_the_usual_docker_configuration(
    bench: DockerBench, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = impatient(bench)
    folder = bench.state_dir / "docker"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    with Registry(user="me", password="secret") as private:
        private.push(trouble.engine, SLEEPER, "mine:1")
        name = f"{private.address}/mine:1"
        with pytest.raises(Rejected, match=r"no basic auth|unauthorized"):
            await pull(runtime, bench, name)
        # As `docker login` writes it, while the agent runs.
        auth = base64.b64encode(b"me:secret").decode()
        (folder / "config.json").write_text(
            json.dumps({"auths": {private.address: {"auth": auth}}})
        )
        await pull(runtime, bench, name)
    await runtime.close()


async def test_an_image_that_is_here_is_used_while_its_registry_is_away(
    bench: DockerBench, trouble: Trouble, registry: Registry
) -> None:
    short = f"away-{bench.revision}:1"
    registry.push(trouble.engine, SLEEPER, short)
    runtime = impatient(bench)
    with Wire((registry.host, registry.port)) as wire:
        name = f"{wire.address}/{short}"
        await pull(runtime, bench, name)
        wire.cut(refuse=True)
        told: list[str] = []
        task = bench.task(image=name, pull_policy=PullPolicy.ALWAYS, command=Argv(args=("true",)))
        await runtime.prepare(task, told.append)
    assert any("the copy that is here is used" in sentence for sentence in told)
    await runtime.close()


async def test_an_image_archive_is_taken_in(bench: DockerBench, trouble: Trouble) -> None:
    client = trouble.engine.client()
    image_id = client.inspect_image(CRASHING.name)["Id"]
    archive = bench.state_dir / "image.tar"
    bench.state_dir.mkdir(exist_ok=True)
    archive.write_bytes(b"".join(client.get_image(CRASHING.name)))
    client.remove_image(CRASHING.name, force=True)
    runtime = bench.runtime()
    assert not await runtime.has_image(image_id)
    await runtime.load_image(str(archive))
    assert await runtime.has_image(image_id)
    (bench.state_dir / "bad.tar").write_bytes(b"nothing of the kind")
    with pytest.raises(Rejected):
        await runtime.load_image(str(bench.state_dir / "bad.tar"))
