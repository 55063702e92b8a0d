"""Commands that go on for long outlive the scheduler that they began with.

Two real schedulers on a real etcd, an agent whose containers are processes; the command line
runs as a user runs it, and whoever leads is killed while it does.
"""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, until
from tests.testbed.etcd import Etcd

pytestmark = pytest.mark.timeout(150)

COUNTING = """
services:
  count:
    command: ["sh", "-c", "i=0; while :; do echo line $$i; i=$$((i+1)); sleep 0.05; done"]
    x-homeport: {runtime: process}
"""
WAITING = """
services:
  picky:
    command: ["sleep", "86400"]
    x-homeport: {runtime: process}
    deploy: {placement: {constraints: ["node.labels.late == yes"]}}
"""


class Pair:
    """Two schedulers and an agent."""

    def __init__(self, folder, endpoints):
        self.folder = folder
        self._arguments = ("--etcd-endpoints", ",".join(endpoints))
        self.schedulers = {}
        for name in ("s1", "s2"):
            scheduler = self._start(name, "127.0.0.1:0")
            self.schedulers[scheduler.address] = scheduler
        self.addresses = ",".join(self.schedulers)
        self.client = Client(self.addresses)
        until("a leader", self.leader, 120)
        self.agent = Agent(folder / "n1", self.addresses, "n1", "--runtime", "process")
        ready = [types_pb2.NODE_STATE_READY]
        until("the node", lambda: [view.state for view in self.client.nodes()] == ready, 120)

    def _start(self, name, listen):
        return Scheduler(
            self.folder / name,
            *("--name", name, *self._arguments),
            store="etcd",
            listen=listen,
            start_seconds=120,
        )

    def leader(self):
        """The leader's address."""
        try:
            found = self.client.get_cluster(control_pb2.GetClusterRequest(), 5.0).leader
        except CallFailed:
            return None
        return found if found in self.schedulers else None

    def kill_leader(self):
        """Kill -9 it, and return when the other one leads."""
        address = until("a leader", self.leader, 30)
        self.schedulers[address].end(signal.SIGKILL)
        until("another leader", lambda: self.leader() not in (None, address), 30)
        return address

    def start_again(self, address):
        number = list(self.schedulers).index(address) + 1
        self.schedulers[address] = self._start(f"s{number}", address)

    def command(self, *arguments):
        """The command line as a process, whose lines are read as they come."""
        clean = {name: value for name, value in os.environ.items() if "HOMEPORT" not in name}
        return Following(
            subprocess.Popen(
                [sys.executable, "-m", "homeport", "-s", self.addresses, *arguments],
                env=clean,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

    def apply(self, name, text):
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return ("apply", "-f", str(path), "-p", name)

    def end(self):
        for each in list(self.client.stacks()):
            self.client.remove_stack(control_pb2.RemoveStackRequest(stack=each.name), 30.0)
        until("nothing runs", lambda: not list(self.client.tasks(all=True)), 60)
        self.client.close()
        for process in (self.agent, *self.schedulers.values()):
            process.end(signal.SIGKILL)


class Following:
    """A command that runs, and its lines so far."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def said(self, pattern, after=0, seconds=30):
        """Wait for a line like this behind the first `after` lines."""
        return until(
            f"{pattern} in {self.lines[-5:]}",
            lambda: [each for each in self.lines[after:] if re.search(pattern, each)],
            seconds,
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with Etcd() as etcd:
        pair = Pair(tmp_path_factory.mktemp("pair"), etcd.endpoints)
        try:
            with pair.command(*pair.apply("hello", COUNTING), "--wait") as applying:
                assert applying.process.wait(60) == 0, applying.lines
            yield pair
        finally:
            pair.end()


def test_a_log_goes_on_without_a_line_lost_or_told_twice(pair):
    with pair.command("logs", "-f", "hello/count") as following:
        following.said("line 5$")
        dead = pair.kill_leader()
        count = len(following.lines)
        following.said(r"^line \d+$", after=count + 20)
        pair.start_again(dead)
        told = [int(each.split()[1]) for each in following.lines if each.startswith("line ")]
    assert told == list(range(told[0], told[0] + len(told)))
    assert any("going on at" in each for each in following.lines)


def test_a_list_and_the_events_go_on(pair):
    with pair.command("ps", "-w", "--no-headers") as listing, pair.command("events", "-f") as told:
        listing.said(r"^count\.1 .*RUNNING")
        told.said("Leading")
        dead = pair.kill_leader()
        before = len(listing.lines), len(told.lines)
        pair.client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"count": 2}))
        listing.said(r"^count\.2 .*RUNNING", after=before[0])
        told.said(r"task/hello/count\.2", after=before[1])
        assert listing.process.poll() is None
        assert told.process.poll() is None
        pair.start_again(dead)
        events = [each for each in told.lines if re.match(r"\d{4}-", each)]
        assert len(events) == len(set(events))
    pair.client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"count": 1}))
    running(pair.client, "hello", 1)


def test_waiting_says_at_once_what_fits_nowhere_and_goes_on_until_it_does(pair):
    with pair.command(*pair.apply("late", WAITING), "--wait", "--timeout", "90") as applying:
        (said,) = applying.said("late/picky.1 fits nowhere now: ")
        assert "late" in said
        dead = pair.kill_leader()
        pair.client.update_node(
            control_pb2.UpdateNodeRequest(node="n1", set_labels={"late": "yes"})
        )
        assert applying.process.wait(60) == 0, applying.lines
        pair.start_again(dead)


def test_a_single_scheduler_that_restarts_is_waited_for(tmp_path):
    scheduler = Scheduler(tmp_path / "s").leads()
    agent = Agent(tmp_path / "n1", scheduler.address, "n1")
    try:
        with Client(scheduler.address) as client:
            following = Following(
                subprocess.Popen(
                    [sys.executable, "-m", "homeport", "-s", scheduler.address, "nodes", "-w"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            with following:
                following.said("n1 .*READY")
                assert scheduler.end(signal.SIGTERM) == 0
                scheduler = Scheduler(tmp_path / "s", listen=scheduler.address)
                scheduler.leads()
                before = len(following.lines)
                client.update_node(
                    control_pb2.UpdateNodeRequest(
                        node="n1", availability=types_pb2.AVAILABILITY_PAUSE
                    )
                )
                following.said("n1 .*PAUSE", after=before)
    finally:
        agent.end()
        scheduler.end()
