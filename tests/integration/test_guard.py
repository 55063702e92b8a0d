"""The guard as a process: the agent killed, stopped, restarted; the guard killed; a hung engine.

The task ignores SIGTERM, so whatever ends it in time has killed it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import docker.errors
import pytest

from agent import guard
from agent.guard import Page
from agent.guarding import open_page, retire
from agent.runtime.base import Phase
from agent.runtime.proc import is_same_process, process_stat
from homeport.seams import SystemClock
from homeport.spec import Driver
from tests.integration import guarded_agent
from tests.integration.guarded_agent import LEASE_SECONDS, NODE, page_folder, the_work
from tests.integration.processes import until
from tests.testbed import requirements
from tests.testbed.engine import Engine

ROOT = Path(__file__).resolve().parents[2]


class Node:
    """A folder, one exclusive task in it, and agents that come and go."""

    def __init__(self, folder: Path, driver: Driver, host: str = "") -> None:
        self.folder = folder
        self.driver = driver
        self.host = host
        self.agents: list[subprocess.Popen[bytes]] = []
        self.connect()

    def connect(self) -> None:
        (self.folder / "connected").touch()

    def cut(self) -> None:
        (self.folder / "connected").unlink()

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "agent.log").open("ab") as log:
            agent = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.integration.guarded_agent",
                    str(self.folder), self.driver.name, *filter(None, [self.host]),
                ],
                cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.agents.append(agent)
        return agent

    @cached_property
    def page(self) -> Page:
        return open_page(page_folder(self.folder), NODE)

    def seen(self):
        async def look():
            runtime = guarded_agent.runtime_of(self.folder, self.driver, self.host)
            try:
                return await runtime.inspect(the_work(self.folder, self.driver).task)
            finally:
                await runtime.close()

        return asyncio.run(look())

    def pid(self) -> int:
        """Of the task's process, once it runs."""

        def running():
            seen = self.seen()
            return seen is not None and seen.phase is Phase.RUNNING and seen.pid

        return until(f"the task to run; {self.log()}", running)

    def guard(self) -> tuple[int, int]:
        """The guard that is at work: its pid and start time."""

        def at_work():
            pid, ticks = self.page.guard
            is_fresh = guard.boottime_ns() - self.page.stamp_ns < 10**9
            return is_fresh and is_same_process(pid, ticks) and (pid, ticks)

        return until(f"a guard at work; {self.log()}", at_work)

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "agent.log").read_text()[-2000:]
        return ""

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        page = self.page
        pid, ticks = page.guard
        if pid and is_same_process(pid, ticks):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(page_folder(self.folder))

        async def remove():
            runtime = guarded_agent.runtime_of(self.folder, self.driver, self.host)
            await runtime.remove(the_work(self.folder, self.driver).task)
            await runtime.close()

        asyncio.run(remove())


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, Driver.PROCESS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine():
    if problem := requirements.missing(requirements.ENGINE, root=True):
        pytest.fail(problem, pytrace=False)
    with Engine() as made:
        made.load()
        yield made


@pytest.fixture
def docker_node(tmp_path, engine):
    made = Node(tmp_path, Driver.DOCKER, engine.host)
    yield made
    if not engine.answers():
        engine.resume()
    made.close()


def ended(pid: int, ticks: int, by_boottime: float) -> None:
    """Wait for a process's end, which has to come by then; a second is allowed for the machine."""
    while is_same_process(pid, ticks):
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert now < by_boottime + 1.0, f"it lives {now - by_boottime:.2f} s after the lease's end"
        time.sleep(0.01)


def ticks_of(pid: int) -> int:
    stat = process_stat(pid)
    assert stat is not None
    return stat.start_ticks


def test_a_killed_agents_task_ends_with_its_lease(node: Node) -> None:
    agent = node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    node.guard()
    agent.kill()
    agent.wait()
    until_ns = node.page.lease_until_ns
    while is_same_process(pid, ticks) and guard.boottime_ns() < until_ns:
        time.sleep(0.01)
    assert guard.boottime_ns() >= until_ns, "as long as the lease lasts it runs on"
    ended(pid, ticks, until_ns / 1e9)
    until("the guard to say so", lambda: node.page.kills >= 1)


def test_a_stopped_agents_task_ends_with_its_lease_and_waits_for_a_word_when_it_goes_on(
    node: Node,
) -> None:
    agent = node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    node.guard()
    # A start whose answer it never reads is another story: that container is made anew.
    until("the agent to know that it runs", lambda: "state=RUNNING" in node.log())
    os.kill(agent.pid, signal.SIGSTOP)
    ended(pid, ticks, node.page.lease_until_ns / 1e9)
    node.cut()
    os.kill(agent.pid, signal.SIGCONT)
    time.sleep(LEASE_SECONDS)  # nothing is to happen in this time
    assert node.seen().phase is Phase.EXITED
    node.connect()
    assert node.pid() != pid


def test_without_a_scheduler_the_agent_itself_ends_the_task_in_time(node: Node) -> None:
    node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    node.guard()
    os.kill(node.guard()[0], signal.SIGSTOP)
    node.cut()
    ended(pid, ticks, until("a lease", lambda: node.page.lease_until_ns) / 1e9)


def test_a_killed_guard_is_back_and_the_task_runs_on(node: Node) -> None:
    node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    first = node.guard()
    os.kill(first[0], signal.SIGKILL)
    until("another guard", lambda: node.page.guard != first)
    assert node.guard() != first
    assert is_same_process(pid, ticks)


def test_the_next_agent_takes_over_the_guard_and_the_lease(node: Node) -> None:
    agent = node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    first = node.guard()
    for _ in range(2):
        agent.kill()
        agent.wait()
        agent = node.start()
        until("the lease to be renewed", lambda: node.page.lease_until_ns > guard.boottime_ns())
        time.sleep(0.5)  # it is to go on undisturbed
    assert node.guard() == first
    assert is_same_process(pid, ticks)


def test_a_machine_that_joined_anew_ends_what_the_earlier_node_ran_under_its_lease(
    node: Node,
) -> None:
    agent = node.start()
    pid = node.pid()
    ticks = ticks_of(pid)
    first = node.guard()
    agent.kill()
    agent.wait()
    os.kill(first[0], signal.SIGKILL)
    fresh = open_page(page_folder(node.folder), "n2")
    until_ns = node.page.lease_until_ns
    asyncio.run(retire(page_folder(node.folder), fresh, SystemClock()))
    assert guard.boottime_ns() >= until_ns
    ended(pid, ticks, guard.boottime_ns() / 1e9)
    assert not Path(node.page.path).exists()
    assert Path(fresh.path).exists()


def test_a_guard_is_small_and_idle_while_the_lease_lasts(node: Node) -> None:
    node.start()
    node.pid()
    pid, _ = node.guard()
    before = process_stat(pid)
    time.sleep(2.0)  # what is measured is how little happens in this time
    after = process_stat(pid)
    assert before is not None
    assert after is not None
    used = after.user_seconds + after.system_seconds - before.user_seconds - before.system_seconds
    assert used <= 0.02
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")
    )
    assert private < 6 * 1024, f"{private} KiB of its own"


@pytest.mark.docker
def test_a_container_ends_with_its_lease_while_the_engine_hangs(
    docker_node: Node, engine: Engine
) -> None:
    agent = docker_node.start()
    pid = docker_node.pid()
    ticks = ticks_of(pid)
    docker_node.guard()
    engine.pause()
    docker_node.cut()
    ended(pid, ticks, docker_node.page.lease_until_ns / 1e9)
    assert agent.poll() is None
    engine.resume()
    until("the engine to notice", lambda: docker_node.seen().phase is Phase.EXITED)
    docker_node.connect()
    assert docker_node.pid() != pid


@pytest.mark.docker
def test_a_container_that_a_hung_engine_starts_late_is_ended(
    docker_node: Node, engine: Engine
) -> None:
    agent = docker_node.start()
    docker_node.pid()
    container_id = docker_node.seen().container_id
    docker_node.guard()
    agent.kill()
    agent.wait()
    until("the guard's work", lambda: docker_node.seen().phase is Phase.EXITED)
    kills = docker_node.page.kills
    # What the engine does when it thaws with a start in its queue.
    # It may not even get as far as the program.
    with contextlib.suppress(docker.errors.APIError):
        engine.client().start(container_id)
    until("another kill", lambda: docker_node.page.kills > kills)
    until("the end", lambda: docker_node.seen().phase is Phase.EXITED)


@pytest.mark.docker
def test_the_container_knows_its_fence_token(docker_node: Node, engine: Engine) -> None:
    docker_node.start()
    docker_node.pid()
    config = engine.client().inspect_container(docker_node.seen().container_id)["Config"]
    assert "HOMEPORT_FENCE_TOKEN=7" in config["Env"]
    assert config["Labels"]["dev.homeport.fence-token"] == "7"
