"""Plain processes whose agent, keeper or machine fails them, and what they cannot get away with."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.runtime import process_cgroups
from agent.runtime.base import Phase, Rejected, Seen
from agent.runtime.proc import boot_id, cgroup_names, process_stat, wait_for_exit
from agent.runtime.process import ProcessRuntime
from agent.runtime.process_state import ProcessFiles, run_of
from homeport.spec import Argv, Hook, Resources, Ulimit
from tests.contract.runtimes import PATIENCE_SECONDS, ProcessBench, silent, until, up

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    made = ProcessBench(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def runtime(bench: ProcessBench) -> ProcessRuntime:
    made = bench.runtime()
    assert isinstance(made, ProcessRuntime)
    return made


def has_exited(seen: Seen | None) -> bool:
    return seen is not None and seen.phase is Phase.EXITED


async def output(runtime: ProcessRuntime, task: object) -> str:
    logs = runtime.logs(task, follow=True, tail=-1, since_ms=0, until_ms=0)  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE_SECONDS):
        return "".join([chunk.data.decode() async for chunk in logs])


def to_its_end(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        start_new_session=True,
    )


async def test_a_process_outlives_the_kill_of_its_agent(bench: ProcessBench) -> None:
    # An agent as a process of its own: it starts the task and is killed, with its whole group.
    agent = textwrap.dedent(
        f"""
        import asyncio, os
        from pathlib import Path
        from tests.contract.runtimes import ProcessBench, up

        async def main():
            bench = ProcessBench(Path({str(bench.state_dir)!r}))
            bench.cluster, bench.revision = {bench.cluster!r}, {bench.revision!r}
            seen = await up(bench.runtime(), bench.task(shell="sleep 0.5; echo on; exit 6"))
            print(seen.pid, flush=True)
            os.killpg(0, 9)

        asyncio.run(main())
        """
    )
    run = to_its_end(agent)
    assert run.returncode == -signal.SIGKILL, run.stderr
    runtime = bench.runtime()
    (seen,) = await runtime.list()
    assert (seen.phase, seen.pid) == (Phase.RUNNING, int(run.stdout))
    ended = await until(runtime, seen.task, has_exited)
    assert ended is not None
    assert ended.exit_code == 6
    logs = runtime.logs(seen.task, follow=False, tail=-1, since_ms=0, until_ms=0)
    assert [chunk.data async for chunk in logs] == [b"on\n"]


async def test_a_process_whose_keeper_is_killed_is_ended_and_told_as_lost(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    keeper = keeper_of(bench, task.task)
    os.kill(keeper, signal.SIGKILL)
    ended = await until(runtime, task.task, has_exited)
    assert ended is not None
    assert ended.exit_code == 137
    assert "its keeper was killed" in ended.error
    assert await wait_for_exit(seen.pid, PATIENCE_SECONDS)
    assert (await runtime.start(task.task)).phase is Phase.RUNNING


def keeper_of(bench: ProcessBench, task: object) -> int:
    files = ProcessFiles(bench.state_dir / "processes", bench.cluster)
    run = run_of(files.place(task))  # type: ignore[arg-type]
    assert run is not None
    return run.keeper


async def test_a_pid_of_before_the_reboot_is_not_taken_for_the_process(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    # The process still lives; only the boot that its record names is another one.
    path = bench.state_dir / "processes" / task.task.replace("/", ".") / "run.json"
    text = path.read_text()
    path.write_text(text.replace(boot_id(), "another-boot"))
    after = await runtime.inspect(task.task)
    path.write_text(text)
    assert after is not None
    assert (after.phase, after.exit_code) == (Phase.EXITED, 137)
    assert "the machine was restarted" in after.error
    assert process_stat(seen.pid) is not None  # whoever has this number now was left alone


async def test_what_a_process_started_ends_with_it(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    # A daemon: in a session of its own, and nobody's child.
    task = bench.task(shell="setsid sleep 1000 & echo $!; sleep 1000")
    await up(runtime, task)
    logs = runtime.logs(task.task, follow=True, tail=-1, since_ms=0, until_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        pid = int((await anext(logs)).data)
    await logs.aclose()
    await runtime.kill(task.task)
    await until(runtime, task.task, has_exited)
    assert await wait_for_exit(pid, PATIENCE_SECONDS)


async def test_limits_hold_in_a_cgroup_of_its_own(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.task(
        # Five at once, where four are allowed (the shell is one of them).
        shell="for n in 1 2 3 4; do sleep 1000 & done; echo started; wait",
        limits=Resources(pids=4, memory_bytes=32 << 20, cpu_millis=500),
    )
    await up(runtime, task)
    said = await output(runtime, task.task)
    assert "fork" in said or "Resource" in said
    assert (await runtime.inspect(task.task)) is not None


async def test_its_cgroup_goes_with_it(bench: ProcessBench, runtime: ProcessRuntime) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    name = task.task.replace("/", ".")
    assert cgroup_names(seen.pid, name)
    await runtime.remove(task.task)
    left = [folder for folder in process_cgroups.all_folders() if name in folder]
    assert left == []


async def test_rlimits_and_oom_score_are_set(bench: ProcessBench, runtime: ProcessRuntime) -> None:
    task = bench.task(
        shell="ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj",
        ulimits=(Ulimit(name="nofile", soft=123, hard=456),),
        oom_score_adj=321,
    )
    await up(runtime, task)
    assert (await output(runtime, task.task)).split() == ["123", "456", "321"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_process_runs_as_its_user_with_little_of_the_agent_s_environment(
    bench: ProcessBench, runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "sesame")
    task = bench.task(
        shell='id -u; id -g; pwd; echo "$HOME/$AGENT_SECRET/$MINE"',
        user="nobody:4567",
        working_dir="/",
        env=(("MINE", "1"),),
    )
    await up(runtime, task)
    uid, gid, place, env = (await output(runtime, task.task)).split()
    assert (uid, gid, place) == ("65534", "4567", "/")
    assert env.endswith("//1")


async def test_a_user_that_this_machine_has_not_is_refused(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    with pytest.raises(Rejected, match="no user nosuchuser"):
        await runtime.prepare(bench.task(shell="true", user="nosuchuser"), silent)


async def test_a_working_directory_that_is_not_there_is_told(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.task(shell="true", working_dir="/nosuch/place")
    await runtime.prepare(task, silent)
    await runtime.create(task)
    with pytest.raises(Rejected, match="/nosuch/place"):
        await runtime.start(task.task)


async def test_hooks_run_beside_it(
    bench: ProcessBench, runtime: ProcessRuntime, tmp_path: Path
) -> None:
    def hook(words: str) -> Hook:
        return Hook(
            command=("sh", "-c", f"echo {words} $WHO >>{tmp_path}/told"), env=(("WHO", "me"),)
        )

    task = bench.sleeper(post_start=(hook("hello"),), pre_stop=(hook("goodbye"),))
    await up(runtime, task)
    await runtime.stop(task.task, 10.0)
    assert (tmp_path / "told").read_text() == "hello me\ngoodbye me\n"


async def test_a_hook_that_fails_at_the_start_ends_it(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.sleeper(post_start=(Hook(command=("sh", "-c", "echo oh no; exit 3")),))
    await runtime.prepare(task, silent)
    await runtime.create(task)
    with pytest.raises(Rejected, match="exited with 3: oh no"):
        await runtime.start(task.task)
    assert has_exited(await until(runtime, task.task, has_exited))


async def test_a_terminal_has_a_size_and_an_end(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.sleeper()
    await up(runtime, task)
    terminal = await runtime.exec(
        task.task, ["sh"], tty=True, interactive=True, user="", working_dir="/", env=(("PS1", ""),)
    )
    await terminal.resize(10, 77)
    await terminal.write(b"stty size; pwd; exit 3\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        said = b"".join([chunk.data async for chunk in terminal])
        code = await terminal.exit_code()
    await terminal.close()
    assert said.split(b"\r\n")[-3:-1] == [b"10 77", b"/"]
    assert code == 3


async def test_a_command_that_is_left_alone_is_ended(
    bench: ProcessBench, runtime: ProcessRuntime
) -> None:
    task = bench.sleeper()
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
    pid = 0
    async for chunk in terminal:
        pid = int(chunk.data)
        break
    await terminal.close()
    assert await wait_for_exit(pid, PATIENCE_SECONDS)


async def test_a_state_directory_that_cannot_be_written_is_no_working_engine(
    tmp_path: Path,
) -> None:
    (tmp_path / "processes").write_text("a file in the way")
    bench = ProcessBench(tmp_path)
    condition = await bench.runtime().check()
    (tmp_path / "processes").unlink()
    await bench.close()
    assert not condition.ok
    assert "cannot write" in condition.message


async def test_a_program_that_is_no_program_is_told(
    bench: ProcessBench, runtime: ProcessRuntime, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("not a program")
    task = bench.task(command=Argv(args=(str(tmp_path / "text"),)))
    await runtime.prepare(task, silent)
    await runtime.create(task)
    with pytest.raises(Rejected, match="Permission denied"):
        await runtime.start(task.task)
    seen = await runtime.inspect(task.task)
    assert seen is not None
    assert seen.exit_code == 126
