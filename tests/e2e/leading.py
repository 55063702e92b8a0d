"""Kill the leader again and again under load, and see what users, agents and containers notice.

    with Trial(folder, etcd.endpoints) as trial:
        trial.kill_leaders(30)
    print(trial.report())

Schedulers, agents and what runs are real processes of this machine; the store is a real etcd.
Two streams go on all the time: writers apply a small stack after another, each with its request
id and through all schedulers' addresses, and one reader asks each scheduler that lives, by
itself. What a scheduler that was just killed cannot answer is counted for nobody.
"""

import contextlib
import itertools
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, state_of, until

WRITERS = 2
STEADY = 6
"""Tasks of which none may restart."""
APPLIED_REPLICAS = 1
START_SECONDS = 120.0
"""How long a process may take to be there: a busy machine's business, and not judged."""


class ProcessAgent(Agent):
    """An agent whose containers are processes of this machine."""

    def __init__(self, folder, scheduler, name):
        super().__init__(folder, scheduler, name, "--runtime", "process")


def stack(name, replicas):
    """A stack of plain programs that run until they are told to end."""
    container = types_pb2.ContainerSpec(command={"args": ["sleep", "86400"]})
    service = types_pb2.ServiceSpec(
        name="web", driver=types_pb2.DRIVER_PROCESS, replicas=replicas, container=container
    )
    return types_pb2.StackSpec(name=name, services=[service])


@dataclass
class Kill:
    """What one death of the leader cost, in seconds after it."""

    number: int
    acknowledged: float = 0.0  # until a write was acknowledged that began after it
    dispatched: float = 0.0  # until a task that was made after it ran


@dataclass
class Noticed:
    """What the streams saw."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # stack -> revision
    failed_writes: list[str] = field(default_factory=list)
    reads: int = 0
    slowest_read: float = 0.0
    unknown_reads: int = 0  # without a leader: stored state alone
    failed_reads: list[str] = field(default_factory=list)
    stale_reads: list[str] = field(default_factory=list)


class Trial:
    """Three schedulers on one etcd, two agents, and what goes on there."""

    def __init__(self, folder: Path, endpoints: tuple[str, ...], *, schedulers: int = 3) -> None:
        self.folder = folder
        self.noticed = Noticed()
        self.kills: list[Kill] = []
        self.schedulers: dict[str, Scheduler] = {}
        self.agents: list[Agent] = []
        self.arguments = ("--etcd-endpoints", ",".join(endpoints))
        self._count = schedulers
        self._stop = threading.Event()
        self._dead: set[str] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        try:
            self._remove_all()
        finally:
            for process in (*self.agents, *self.schedulers.values()):
                process.end(signal.SIGKILL)
            self._end_what_is_left()

    def _start(self):
        for number in range(1, self._count + 1):
            scheduler = self._scheduler(f"s{number}", "127.0.0.1:0")
            self.schedulers[scheduler.address] = scheduler
        self.addresses = ",".join(self.schedulers)
        self.client = Client(self.addresses)
        until("a leader", self.leader, START_SECONDS)
        for name in ("n1", "n2"):
            # One address each: the others they learn from whoever leads.
            self.agents.append(ProcessAgent(self.folder / name, next(iter(self.schedulers)), name))
        ready = [types_pb2.NODE_STATE_READY] * len(self.agents)
        until("the nodes", lambda: self._node_states() == ready, START_SECONDS)
        self.client.apply(control_pb2.ApplyRequest(stack=stack("steady", STEADY)))
        until("what is to stay", lambda: len(self._running("steady")) == STEADY, START_SECONDS)
        self.steady = self.steady_facts()
        work = [*(self._write for _ in range(WRITERS)), self._read]
        for number, target in enumerate(work):
            thread = threading.Thread(target=target, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _scheduler(self, name, listen):
        return Scheduler(
            self.folder / name,
            *("--name", name, *self.arguments),
            store="etcd",
            listen=listen,
            start_seconds=START_SECONDS,
        )

    # ------------------------------------------------------------------ looking

    def leader(self):
        """The leader's address, as whoever answers says; empty while nobody leads."""
        try:
            found = self.client.get_cluster(control_pb2.GetClusterRequest(), 5.0)
        except CallFailed:
            return ""
        return found.leader if found.leader in self.schedulers else ""

    def _node_states(self):
        return [view.state for view in self.client.nodes()]

    def _running(self, name):
        return [
            task
            for task in self.client.tasks(stack=name)
            if state_of(task) == "RUNNING" and not task.unknown
        ]

    def steady_facts(self):
        """name -> (attempt, container, when it began): what no death of a scheduler changes."""
        return {
            task.name: (
                task.status.attempt,
                task.status.container_id,
                task.status.running_since_ms,
            )
            for task in self._running("steady")
        }

    # ------------------------------------------------------------------ the streams

    def _write(self, number):
        with Client(self.addresses) as client:
            for count in itertools.count():
                if self._stop.is_set():
                    return
                name = f"w{number}-{count}"
                request = control_pb2.ApplyRequest(
                    stack=stack(name, APPLIED_REPLICAS), request_id=name
                )
                try:
                    self.noticed.acknowledged[name] = client.apply(request, 30.0).revision
                    # What is not needed goes again: the machine is to hold out.
                    if count >= 3:
                        gone = f"w{number}-{count - 3}"
                        # Before it is asked for: a reader may see it done before we hear of it.
                        self.noticed.acknowledged.pop(gone, None)
                        client.remove_stack(
                            control_pb2.RemoveStackRequest(stack=gone, request_id=f"rm-{gone}"),
                            30.0,
                        )
                except CallFailed as error:
                    self.noticed.failed_writes.append(f"{name}: {error}")
                self._stop.wait(0.2)

    def _read(self, _number):
        clients = {address: Client(address) for address in self.schedulers}
        try:
            for address in itertools.cycle(clients):
                if self._stop.is_set():
                    return
                if address not in self._dead:
                    self._read_one(address, clients[address])
                self._stop.wait(0.05)
        finally:
            for client in clients.values():
                client.close()

    def _read_one(self, address, client):
        noticed = self.noticed
        before = dict(noticed.acknowledged)
        began = time.monotonic()
        try:
            stacks = {each.name for each in client.stacks()}
            services = client.list_services(control_pb2.ListServicesRequest(stack="steady"))
        except CallFailed as error:
            if address not in self._dead:
                noticed.failed_reads.append(f"{address}: {error}")
            return
        if address in self._dead:
            return
        noticed.reads += 1
        noticed.slowest_read = max(noticed.slowest_read, time.monotonic() - began)
        noticed.unknown_reads += bool(services.observed_unknown_since_ms)
        # S5: what was acknowledged before the question is in the answer, at every scheduler.
        missing = {name for name in before if name in noticed.acknowledged} - stacks
        if missing:
            noticed.stale_reads.append(f"{address}: without {sorted(missing)}")

    # ------------------------------------------------------------------ the deaths

    def kill_leaders(self, times):
        """So often: kill -9 whoever leads, wait for the next, start the dead one again."""
        for number in range(1, times + 1):
            address = until("a leader", self.leader, START_SECONDS)
            scheduler = self.schedulers[address]
            kill = Kill(number)
            self._dead.add(address)
            scheduler.end(signal.SIGKILL)
            died = time.monotonic()
            with Client(self.addresses) as client:
                name = f"after-{number}"
                request = control_pb2.ApplyRequest(stack=stack(name, 1), request_id=name)
                revision = client.apply(request, 60.0).revision
                kill.acknowledged = time.monotonic() - died
                self.noticed.acknowledged[name] = revision
                until(f"{name} runs", lambda name=name: self._running(name), 60)
                kill.dispatched = time.monotonic() - died
            self.kills.append(kill)
            again = self._scheduler(f"s{list(self.schedulers).index(address) + 1}", address)
            self.schedulers[address] = again
            until("it answers", lambda again=again: _answers(again), START_SECONDS)
            self._dead.discard(address)

    def settled(self):
        """Stop the streams, and say what is there and what should be: (acknowledged, there)."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        until("a leader", self.leader, START_SECONDS)
        # Agents tell a new leader what runs: until then it is unknown, and not gone.
        until("all nodes have reported", lambda: len(self.steady_facts()) == STEADY, START_SECONDS)
        there = {each.name for each in self.client.stacks() if not each.removing}
        return set(self.noticed.acknowledged) | {"steady"}, there

    def report(self):
        """One line for people."""
        noticed = self.noticed
        dispatched = [kill.dispatched for kill in self.kills]
        return (
            f"{len(self.kills)} leaders killed: a new leader acknowledged a write after at most"
            f" {max(kill.acknowledged for kill in self.kills):.1f} s and had a task running after"
            f" at most {max(dispatched):.1f} s (median {statistics.median(dispatched):.1f} s);"
            f" {noticed.reads} reads at single schedulers, the slowest {noticed.slowest_read:.1f}"
            f" s, {noticed.unknown_reads} of them without a leader, {len(noticed.failed_reads)}"
            f" failed, {len(noticed.stale_reads)} stale; {len(noticed.failed_writes)} writes failed"
        )

    def _remove_all(self):
        for each in list(self.client.stacks()):
            with contextlib.suppress(CallFailed):  # it was being removed, and is gone
                self.client.remove_stack(control_pb2.RemoveStackRequest(stack=each.name), 30.0)
        until("nothing runs", lambda: not list(self.client.tasks(all=True)), 60)
        self.client.close()

    def _end_what_is_left(self):
        """End what ran here where nobody was left to remove it: its keepers name our folder."""
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if str(self.folder).encode() in (process / "cmdline").read_bytes():
                    for child in (process / f"task/{process.name}/children").read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                    os.kill(int(process.name), signal.SIGKILL)


def _answers(scheduler):
    with Client(scheduler.address) as client:
        try:
            return client.get_cluster(control_pb2.GetClusterRequest(), 1.0).version
        except CallFailed:
            return ""
