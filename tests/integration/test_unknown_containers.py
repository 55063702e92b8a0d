"""Records that a store has lost: nothing stops for it, and an operator adopts or forgets.

A real scheduler and agent; plain processes are the containers.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from homeport.client import Client
from homeport.seams import SystemClock
from homeport.v1 import control_pb2, types_pb2
from scheduler.store.base import Write
from scheduler.store.sqlite import SqliteStore
from tests.integration.processes import Process, Scheduler, running, until

pytestmark = pytest.mark.timeout(180)


class ProcessAgent(Process):
    """An agent that runs plain processes."""

    def __init__(self, folder, scheduler):
        folder.mkdir(exist_ok=True)
        super().__init__(
            "agent",
            folder / f"log-{time.monotonic_ns()}",
            *("--scheduler", scheduler, "--name", "n1", "--runtime", "process"),
            *("--state-dir", str(folder / "state"), "--metrics-address", "127.0.0.1:0"),
        )


class Site:
    """One scheduler, one agent, and a stack of two sleepers."""

    def __init__(self, folder):
        self.folder = folder
        self.scheduler = Scheduler(folder / "s").leads()
        self.agent = ProcessAgent(folder / "a", self.scheduler.address)
        self.client = Client(self.scheduler.address)
        sleeper = types_pb2.ServiceSpec(
            name="web",
            driver=types_pb2.DRIVER_PROCESS,
            replicas=2,
            container=types_pb2.ContainerSpec(
                command=types_pb2.Argv(args=("sleep", "1000")), stop_signal="SIGKILL"
            ),
        )
        until("the node", lambda: list(self.client.nodes()))
        self.client.apply(
            control_pb2.ApplyRequest(stack=types_pb2.StackSpec(name="s", services=[sleeper]))
        )
        tasks = running(self.client, "s", 2)
        self.pids = {each.status.task: each.status.pid for each in tasks}
        self.ids = sorted(self.pids)
        # Or the slot would be filled again at once, by a task of the same name.
        self.client.update_node(
            control_pb2.UpdateNodeRequest(node="n1", availability=types_pb2.AVAILABILITY_PAUSE)
        )

    def lose(self, *prefixes):
        """Delete these records while no scheduler looks; how many tasks have one then."""
        self.scheduler.end()

        async def delete():
            store = await SqliteStore.open(
                self.folder / "s" / "state" / "store.db", clock=SystemClock()
            )
            for prefix in prefixes:
                for record in (await store.list(prefix)).records:
                    await store.commit([Write(record.key, None, record.version)])
            left = await store.list("tasks/")
            await store.close()
            return len(left.records)

        left = asyncio.run(delete())
        self.scheduler = Scheduler(self.folder / "s", listen=self.scheduler.address)
        if "" not in prefixes:  # an empty store gets no leader before an operator's word
            self.scheduler.leads()
        return left

    def unknown(self):
        """Once the node is ready and has said."""
        (view,) = self.client.nodes()
        is_ready = view.state == types_pb2.NODE_STATE_READY and view.status.conditions
        return sorted(view.status.unknown_containers) if is_ready else None

    def alive(self):
        return {task for task, pid in self.pids.items() if Path(f"/proc/{pid}/stat").exists()}

    def homeport(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "homeport", "-s", self.scheduler.address, *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def close(self):
        self.client.close()
        self.agent.end(signal.SIGKILL)
        self.scheduler.end(signal.SIGKILL)
        for task in self.alive():
            os.kill(self.pids[task], signal.SIGKILL)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def test_what_lost_its_record_runs_on_until_it_is_adopted_or_forgotten(site):
    site.lose("tasks/")
    until("both to be unknown", lambda: site.unknown() == site.ids)
    assert site.alive() == set(site.ids)
    assert "without" in site.homeport("node", "adopt", "n1", "nothing").stderr

    first, second = site.ids
    done = site.homeport("node", "adopt", "n1", first.replace("/", "."))
    assert (done.returncode, done.stdout) == (0, f"container/{first.replace('/', '.')} adopted\n")

    def by_its_record():
        return [
            each.status.pid
            for each in site.client.tasks(stack="s")
            if each.status.task == first and each.status.state == types_pb2.TASK_STATE_RUNNING
        ]

    assert until("it to run by its record", by_its_record) == [site.pids[first]]
    until("one to be unknown", lambda: site.unknown() == [second])

    done = site.homeport("node", "forget", "n1", "--all")
    assert (done.returncode, done.stdout) == (
        0,
        f"container/{second.replace('/', '.')} forgotten\n",
    )
    until("the other to be gone", lambda: site.alive() == {first})
    until("nothing to be unknown", lambda: site.unknown() == [])


def test_what_lost_its_stack_can_only_be_forgotten(site):
    site.lose("tasks/", "services/", "specs/", "stacks/")
    until("both to be unknown", lambda: site.unknown() == site.ids)
    done = site.homeport("node", "adopt", "n1", "--all")
    assert done.returncode == 1
    assert "restore a backup" in done.stderr
    assert site.alive() == set(site.ids)
    assert site.homeport("node", "forget", "n1", "--all").returncode == 0
    until("both to be gone", lambda: not site.alive())
    until("nothing to be unknown", lambda: site.unknown() == [])
    until("the records that brought the word to be gone", lambda: site.lose("none/") == 0)


def test_a_store_that_lost_everything_stops_nothing(site):
    site.lose("")
    site.scheduler.logged("the store was emptied")
    time.sleep(3)  # it is to do nothing in this time
    assert site.alive() == set(site.ids)
    assert site.agent.child.poll() is None
