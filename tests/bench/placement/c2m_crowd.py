"""Thousands of simulated agents in one process, each with a connection of its own.

They speak the dispatcher's protocol as real agents do: join, session, heartbeats with both hashes,
an acknowledgement of every order, and reports that say RUNNING, one in flight at a time and spaced
as `agent.reporter` spaces them. No container is started. Written to be light: the machine that it
shares with the scheduler is what is measured.

What it does is said as lines of JSON on standard output; `Crowd` reads them in the other process.
"""

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import threading
import time

import grpc

from agent.grpc_transport import OPTIONS, GrpcLink
from agent.reporter import SPACING_SECONDS, STATUSES_MAX
from homeport import codec
from homeport.digests import Sum
from homeport.model import Inventory
from homeport.seams import LinkLost
from homeport.spec import Resources
from homeport.v1 import dispatcher_pb2 as pb, types_pb2

CHANNEL_OPTIONS = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
"""Without the last one, channels to the same address share one connection."""
ATTACHING_MAX = 64
TELL_SECONDS = 0.25
RUNNING = types_pb2.TASK_STATE_RUNNING
IMAGE = "sha256:" + "0" * 64


class Counts:
    """What all agents together have come to."""

    def __init__(self):
        self.joined = self.attached = self.lost = self.retold = 0
        self.received = self.acknowledged = self.heard = self.repeated = self.messages = 0

    def line(self):
        return json.dumps({"at": time.monotonic(), **vars(self)})


class Agent:
    """One simulated machine."""

    def __init__(self, link, number, counts):
        self.name = f"node-{number:05}"
        self.link = link
        self.counts = counts
        self.told = asyncio.Event()
        self.heard = asyncio.Event()
        self._known = {}  # task -> its status, as reported
        self._untold = {}
        self._flying = -1  # how many new statuses the report on its way has; -1: none is
        self._complete = True
        self._sequence = itertools.count(1)
        self._wake = asyncio.Event()
        self._running = Sum()
        self._order = self._wanted = None
        self._heartbeat_seconds = 1.0
        self._session = None
        self._sessions = 0
        self._sending = asyncio.Lock()  # gRPC takes one message of a call at a time

    async def join(self, tasks):
        """Become a node with room for so many tasks, and some more."""
        request = pb.JoinRequest(name=self.name, boot_id="boot", request_id=self.name)
        room = Resources(cpu_millis=20 * tasks, memory_bytes=tasks << 25)
        inventory = Inventory(
            hostname=self.name, os="linux", architecture="x86_64", capacity=room,
            drivers=("SIMULATED",),
        )  # fmt: skip
        codec.fill(request.inventory, inventory)
        answer = await self.link.join(request)
        self.cluster, self.id = answer.cluster_id, answer.node_id
        self.counts.joined += 1

    async def run(self, phase):
        """One session with its heartbeats; `phase` (0 to 1) spreads them over the interval."""
        self._session = self.link.session()
        self._sessions += 1
        self._flying, self._complete = -1, True
        self._wake.clear()  # the welcome comes first
        hello = pb.Hello(
            cluster_id=self.cluster, node_id=self.id, session_id=self._id, boot_id="boot",
            seen=self._order, wanted_hash=self._wanted,
        )  # fmt: skip
        await self._send(hello=hello)
        async with asyncio.TaskGroup() as background:
            background.create_task(self._read())
            background.create_task(self._report())
            background.create_task(self._beat(phase))

    @property
    def _id(self):
        return f"{self.name}/{self._sessions}"

    async def _send(self, **body):
        async with self._sending:
            await self._session.send(pb.SessionRequest(**body))

    async def _read(self):
        async for message in self._session:
            body = message.WhichOneof("body")
            if body == "assignments":
                await self._obey(message.assignments)
            elif body == "report_ack":
                self.counts.heard += max(0, self._flying)
                self._flying = -1
                self.heard.set()
                self._wake.set()
            elif body == "welcome":
                self._heartbeat_seconds = message.welcome.heartbeat_ms / 1000
                self._wake.set()
            elif body == "farewell":
                raise LinkLost(message.farewell.reason)

    async def _obey(self, orders):
        known, now_ms = self._known, time.time_ns() // 1_000_000
        for order in orders.tasks:
            task = order.task
            if task in known:
                self.counts.repeated += 1
                continue
            container = hashlib.blake2b(task.encode(), digest_size=32).hexdigest()
            known[task] = self._untold[task] = types_pb2.TaskStatus(
                task=task, attempt=1, state=RUNNING, health=types_pb2.HEALTH_NONE,
                container_id=container, pid=len(known) + 1000, image_digest=IMAGE,
                changed_ms=now_ms, running_since_ms=now_ms,
            ).SerializeToString()  # fmt: skip
            self._running.add(f"{task}|1|{RUNNING}|{types_pb2.HEALTH_NONE}")
        assert not orders.tombstones, "nothing is to be removed"
        self.counts.received += len(orders.tasks)
        self.counts.messages += 1
        self._order, self._wanted = orders.order, orders.wanted_hash
        ack = pb.OrderAck(order=orders.order, wanted_hash=orders.wanted_hash)
        await self._send(order_ack=ack)
        self.counts.acknowledged += len(orders.tasks)
        self.told.set()
        self._wake.set()

    async def _report(self):
        """One report at a time, with all that came meanwhile."""
        await self._wake.wait()
        while True:
            if self._flying >= 0 or not (self._complete or self._untold):
                self._wake.clear()
                await self._wake.wait()
                continue
            tasks = list(self._known if self._complete else self._untold)
            if not self._complete:
                del tasks[STATUSES_MAX:]
            report = pb.Report(sequence=next(self._sequence), complete=self._complete)
            fresh = 0
            for task in tasks:
                report.statuses.add().MergeFromString(self._known[task])
                fresh += self._untold.pop(task, None) is not None
            self._flying, self._complete = fresh, False
            await self._send(report=report)
            await asyncio.sleep(SPACING_SECONDS)

    async def _beat(self, phase):
        await self.heard.wait()
        stream = self.link.heartbeat()
        await asyncio.sleep(phase * self._heartbeat_seconds)
        async with asyncio.TaskGroup() as background:
            background.create_task(self._answers(stream))
            while True:
                whole = self._flying < 0 and not self._untold
                beat = pb.HeartbeatRequest(
                    cluster_id=self.cluster, node_id=self.id, session_id=self._id,
                    boot_id="boot", sent_boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
                    wanted_hash=self._wanted, seen=self._order,
                    running_hash=self._running.digest if whole else b"",
                )  # fmt: skip
                await stream.send(beat)
                await asyncio.sleep(self._heartbeat_seconds)

    async def _answers(self, stream):
        async for answer in stream:
            # All orders come again: this hash was of before one of the same revision.
            self.counts.retold += answer.resend_assignments
            if answer.resend_report:
                self._complete = True
                self._wake.set()
            if answer.next_heartbeat_ms:
                self._heartbeat_seconds = answer.next_heartbeat_ms / 1000


async def crowd(address, nodes, tasks):
    """Join, attach all, say so, and go on until cancelled."""
    counts = Counts()
    agents = [Agent(_link(address), number, counts) for number in range(1, nodes + 1)]
    for agent in agents:  # one after the other: joins write the same record
        await agent.join(tasks)
    print(counts.line(), flush=True)
    attaching = asyncio.Semaphore(ATTACHING_MAX)

    async def attach(place, agent, background):
        async with attaching:
            background.create_task(_forever(agent, place / nodes))
            await agent.told.wait()
            await agent.heard.wait()
            counts.attached += 1

    async with asyncio.TaskGroup() as background:
        async with asyncio.TaskGroup() as all_of_them:
            for place, agent in enumerate(agents):
                all_of_them.create_task(attach(place, agent, background))
        while True:
            print(counts.line(), flush=True)
            await asyncio.sleep(TELL_SECONDS)


async def _forever(agent, phase):
    """One session after the other, as agents do."""
    while True:
        try:
            await agent.run(phase)
        except* LinkLost as lost:
            agent.counts.lost += 1
            print(f"{agent.name}: {lost.exceptions[0]}", file=sys.stderr, flush=True)
        await asyncio.sleep(1 + phase)


def _link(address):
    return GrpcLink(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS))


class Crowd:
    """The process of the simulated agents, seen from the one that measures."""

    def __init__(self, address, nodes, tasks_per_node, *, check=lambda: None):
        """`check` is called while something is waited for, and raises when that is in vain."""
        self.lines = []
        self._check = check
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, address, str(nodes), str(tasks_per_node)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self._process.pid

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def wait_for(self, holds, what, seconds):
        """The first line of which `holds` is true."""
        deadline, place = time.monotonic() + seconds, 0
        while True:
            while place < len(self.lines):
                if holds(self.lines[place]):
                    return self.lines[place]
                place += 1
            last = self.lines[-1] if self.lines else "nothing"
            self._check()
            assert self._process.poll() is None, f"the agents ended before {what}; they said {last}"
            assert time.monotonic() < deadline, f"no {what} in {seconds} s; the agents said {last}"
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def main():
    address, nodes, tasks = sys.argv[1:]
    asyncio.run(crowd(address, int(nodes), int(tasks)))


if __name__ == "__main__":
    main()
