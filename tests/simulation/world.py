"""A simulated cluster of real schedulers and real agents on machines that can be troubled.

Only what lies below the seams is simulated: time, randomness, network, store, engine and
the agent's disk. A newcomer's mistake: making a fault here that no real machine has. What a
`kill -9` leaves is what was written; what a power cut leaves is what was synced, and perhaps
a part of the rest.
"""

import asyncio
import contextlib
import contextvars
import random
from functools import partial
from pathlib import Path

from agent import joining
from agent.bulk import BulkDesk
from agent.images import Images as AgentImages
from agent.inventory import Load
from agent.journal import Journal, MemorySecrets
from agent.keylog import JournalDamaged, MemoryMedium
from agent.lease import Lease
from agent.observer import Observer, Tasks
from agent.reporter import Reporter
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedContainer, SimulatedEngine, script_of
from agent.session import Desk, Goodbye, Sessions
from agent.worker import Worker
from homeport.model import Inventory, Leader, TaskId
from homeport.seams import LinkLost, Refused
from homeport.spec import ContainerSpec, Driver, Resources
from scheduler.api.errors import failure
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.base import StoreError
from scheduler.store.images import Images
from tests.simulation.loop import PROCESS, SimulatedClock
from tests.simulation.network import Network
from tests.simulation.store import ObservedStore, StoreView
from tests.simulation.trace import Trace

GIB = 1 << 30
UNARY_SECONDS = 4.5
RESTART_SECONDS = 1.0
"""A service manager starts what ended by itself again after so long."""
STOP_SECONDS = 5.0
"""And kills what does not end by then when told to."""


class CallFailed(Exception):
    """A user's call came back with a status."""

    def __init__(self, code, sentence, leader=""):
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.leader = leader


class World:
    """All machines, the network between them and what watches them."""

    def __init__(self, loop, seed, make_checks, *, schedulers=2, agents=3):
        self.loop = loop
        self.seed = seed
        self.checks = make_checks(self)
        self.trace = Trace(loop, lambda text: self.checks.violate("a bug was logged", text))
        self.network = Network(loop)
        self.network.on_delivered = self._delivered
        self.counts = {}
        self.leaders = 0
        store_context = contextvars.copy_context()
        store_context.run(PROCESS.set, ("store", 1))
        self.store = store_context.run(
            ObservedStore, SimulatedClock(loop, offset=50.0), self.checks.committed
        )
        self.schedulers = [
            SchedulerMachine(self, f"s{number}", StoreView(self.network, self.store, store_context))
            for number in range(1, schedulers + 1)
        ]
        self.addresses = tuple(machine.address for machine in self.schedulers)
        self.agents = [AgentMachine(self, f"n{number}") for number in range(1, agents + 1)]
        for machine in self.schedulers:
            self.network.servers[machine.address] = machine

    def randomness(self, name):
        """A source of its own, which no other one's use disturbs."""
        return random.Random(f"{self.seed}/{name}")

    def start(self):
        for machine in [*self.schedulers, *self.agents]:
            machine.start()

    def count(self, what):
        """A fault took place."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.trace.note(f"------ {what}")

    def heal(self):
        """No more trouble of any kind; what is down comes up."""
        self.network.heal()
        self.loop.resume_all()
        for machine in self.schedulers:
            machine.store.heal()
            machine.start()
        for machine in self.agents:
            for container in machine.engine.all():
                container.script = script_of(container.spec.labels)
            machine.engine.recover()
            machine.start()

    def leading(self):
        """The scheduler that leads; None while none certainly does."""
        found = self.proven()
        return found[0] if len(found) == 1 else None

    def proven(self):
        """The schedulers that take themselves for the proven leader, stopped ones too."""
        return [
            machine
            for machine in self.schedulers
            if machine.process is not None
            and (lead := machine.core.control.lead) is not None
            and lead.authority.is_proven
        ]

    def engine_of(self, node):
        """The engine of the machine that has this node's identity."""
        for machine in self.agents:
            if machine.identities.node_id == node:
                return machine.engine
        return None

    def _delivered(self, sender, receiver, what):
        size = what.ByteSize() if hasattr(what, "ByteSize") else 0
        self.trace.count(f"{sender}>{receiver} {type(what).__name__} {size}")


class Machine:
    """A machine with one process of ours, which can be killed, stopped and started."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.process = None
        self.incarnation = 0
        self.clock = SimulatedClock(
            world.loop,
            offset=world.randomness(f"{name} boot").uniform(10, 1e6),
            wall_offset_ms=1_700_000_000_000 + world.randomness(f"{name} wall").randrange(10**7),
        )
        self.paused_until = 0.0
        self._main_task = None
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, None)

    def start(self):
        """Start the process unless it runs."""
        if self.process is None:
            self.incarnation += 1
            self.process = (self.name, self.incarnation)
            self.world.trace.note(f"------ {self.name}#{self.incarnation} starts")
            loop = self.world.loop
            self._main_task = loop.spawn(self.process, self._guarded(self.process))

    def start_later(self, seconds):
        self.world.loop.call_later(seconds, self.start, context=self._context)

    def kill(self):
        """As `kill -9`."""
        if self.process is not None:
            self.world.loop.kill(self.process)
            self._gone()

    def stop(self):
        """As SIGTERM, with a SIGKILL behind it and a start after that."""
        process = self.process
        if process is not None:
            self.world.loop.spawn(process, self._leave())
            self.world.loop.call_later(STOP_SECONDS, self._kill_if, process, context=self._context)

    def pause(self, seconds):
        if self.process is not None:
            self.paused_until = self.world.loop.time() + seconds
            self.world.loop.pause(self.process, self.paused_until)

    def _kill_if(self, process):
        if self.process == process:
            self.kill()
            self.start()

    async def _guarded(self, process):
        try:
            await self._main()
        except asyncio.CancelledError:
            pass  # told to stop
        except BaseExceptionGroup as group:
            _, others = group.split(self.may_end_by)
            if others is not None:
                self._crashed(others)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            if not isinstance(error, self.may_end_by):
                self._crashed(error)
        if self.process == process:
            self.world.trace.note(f"------ {self.name}#{process[1]} has ended")
            self._gone()
            self.start_later(RESTART_SECONDS)

    def _crashed(self, error):
        self.world.checks.violate(f"{self.name} ended by itself", error)

    def _gone(self):
        self.process = None
        self.world.network.reset(self.name)


class SchedulerMachine(Machine):
    """One scheduler."""

    may_end_by = StoreError
    """A scheduler that cannot read its store at the start ends, and is started again."""

    def __init__(self, world, name, store):
        super().__init__(world, name)
        self.address = f"{name}:7070"
        self.store = store
        self.core = None

    async def _main(self):
        randomness = self.world.randomness(f"{self.name}/{self.incarnation}")
        self.core = Core(
            store=self.store,
            me=Leader(id=f"{self.name}-{self.incarnation}", address=self.address),
            timers=Timers(),
            clock=self.clock,
            randomness=randomness,
            images=Images(Path("/nowhere")),
            writer=self.name,
        )
        self.core.on_leading = self._on_leading
        await self.core.run()

    async def _on_leading(self, is_leading):
        if is_leading:
            self.world.leaders += 1
            self.world.trace.note(f"------ {self.name} leads")

    async def _leave(self):
        self._main_task.cancel()

    async def serve(self, method, end):
        """Answer one call, as the gRPC services and the interceptor do."""
        core = self.core
        error = None
        try:
            match method:
                case "heartbeat" | "session" | "bulk":
                    if method == "session":
                        end.on_receive = partial(self.world.checks.told, self)
                    await getattr(core.lanes, method)(end)
                case "join":
                    await end.send(await core.lanes.join(await anext(end)))
                case _:
                    request = await anext(end)
                    async with asyncio.timeout(UNARY_SECONDS):
                        answer = await getattr(core.control, method)(request)
                    await end.send(answer)
        except (LinkLost, StopAsyncIteration):
            pass
        except Refused as refused:
            error = refused
        except TimeoutError:
            error = CallFailed("UNAVAILABLE", "the store may be slow or away")
        except Exception as raised:  # noqa: BLE001 - every failure becomes a status
            found = failure(raised)
            if found is None:
                self.world.checks.violate(f"{method} failed by a bug", raised)
                error = CallFailed("INTERNAL", repr(raised))
            else:
                error = CallFailed(
                    found.code.name, found.sentence, found.metadata.get("leader", "")
                )
        if isinstance(error, CallFailed) and method in OF_AGENTS:
            error = LinkLost(str(error))
        end.finish(error)


OF_AGENTS = ("heartbeat", "session", "bulk", "join")


class AgentMachine(Machine):
    """One machine with an engine and an agent; engine and disk outlive the agent."""

    may_end_by = ()

    def __init__(self, world, name):
        super().__init__(world, name)
        self.engine = WatchedEngine(self)
        self.medium = Disk()
        self.secrets = MemorySecrets()
        self.identities = Identities()
        self.boot = 1
        self.worker = None
        self.journal = None
        self.reporter = None
        self.sessions = None
        for number, cluster in enumerate(("", "another"), start=1):
            self.engine.add_foreign(f"foreign-{number}", cluster)

    def cut_power(self):
        """The machine is off: nothing runs, and what was not synced may be gone."""
        self.kill()
        self.medium.cut_power(self.world.loop.rng)
        self.secrets.data.clear()
        self.engine.reboot()
        self.clock.reboot()
        self.boot += 1

    async def _main(self):
        world, clock = self.world, self.clock
        randomness = world.randomness(f"{self.name}/{self.incarnation}")
        transport = _Transport(world.network, self.name)
        machine = _SimulatedMachine()
        boot_id = f"{self.name}-boot-{self.boot}"
        identity = await joining.join(
            transport,
            self.identities,
            randomness,
            schedulers=world.addresses,
            name=self.name,
            boot_id=boot_id,
            inventory=machine.inventory(None),
        )
        runtime = SimulatedRuntime(self.engine, identity.cluster_id)
        self.engine.cluster = identity.cluster_id
        journal = self._open_journal()
        reporter, lease = Reporter(), Lease()
        images = AgentImages(
            runtime,
            Path("/nowhere"),
            link=lambda: sessions.link,
            identity=lambda: sessions.identity,
        )
        worker = Worker(
            runtime=runtime,
            driver=Driver.SIMULATED,
            clock=clock,
            randomness=randomness,
            journal=journal,
            lease=lease,
            reporter=reporter,
            ensure_image=images.ensure,
            starts_in_flight=4,
            boot_id=boot_id,
        )
        observer = Observer(
            runtime=runtime,
            machine=machine,
            clock=clock,
            randomness=randomness,
            tasks=Tasks(
                running=lambda: worker.running,
                unknown_containers=lambda: worker.unknown_containers,
                conditions=lambda: worker.conditions,
            ),
            inventory=machine.inventory(None),
        )
        worker.on_change = observer.hurry

        async def obey(orders):
            verdict = await worker.obey(orders)
            world.checks.obeyed(self, orders, verdict)
            return verdict

        sessions = Sessions(
            transport=transport,
            desk=Desk(
                obey=obey,
                wanted_hash=lambda: worker.wanted_hash,
                reporter=reporter,
                journal=journal,
                lease=lease,
                bulk=BulkDesk(runtime, journal.last_lines),
                node=observer,
            ),
            identities=self.identities,
            clock=clock,
            randomness=randomness,
            schedulers=world.addresses,
            identity=identity,
            boot_id=boot_id,
            version="simulated",
        )
        self.worker, self.journal, self.reporter, self.sessions = (
            worker,
            journal,
            reporter,
            sessions,
        )
        try:
            async with asyncio.TaskGroup() as background:
                background.create_task(journal.run(), name="journal")
                background.create_task(worker.run(), name="worker")
                background.create_task(observer.run(), name="observer")
                background.create_task(sessions.run(), name="sessions")
        finally:
            with contextlib.suppress(OSError):
                await journal.flush()

    async def _leave(self):
        if self.sessions is not None:
            self.sessions.stop(Goodbye.AGENT_RESTARTING, "the agent was told to stop")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self.sessions.stopped.wait()
        self._main_task.cancel()

    def _open_journal(self):
        try:
            return Journal(self.medium, self.secrets)
        except JournalDamaged as error:
            self.world.checks.violate(f"the journal of {self.name} is damaged", error)
            self.medium.set_aside()
            return Journal(self.medium, self.secrets)


class WatchedEngine(SimulatedEngine):
    """An engine that shows the checks each start, and each end that the agent causes."""

    def __init__(self, machine):
        super().__init__(machine.clock, capacity=Resources(cpu_millis=4_000, memory_bytes=8 * GIB))
        self.machine = machine
        self.cluster = ""

    def begin(self, container):
        self.machine.world.checks.starts(self.machine, container)
        super().begin(container)
        if container.script.health == "unhealthy":
            self.machine.world.checks.unwell(container)

    def stop(self, container, exit_code):
        self.machine.world.checks.stops(self.machine, container)
        super().stop(container, exit_code)

    def remove(self, container):
        self.machine.world.checks.stops(self.machine, container)
        super().remove(container)

    def remove_by_hand(self, container):
        super().remove(container)

    def add_foreign(self, name, cluster):
        """A container that is none of ours, running."""
        spec = ContainerSpec(image="canary")
        container = SimulatedContainer(
            cluster=cluster,
            task=TaskId(name),
            stack="",
            generation=0,
            container_id=f"foreign-{name}",
            spec=spec,
            script=script_of(()),
        )
        self.add(container)
        self._context.run(super().begin, container)

    def ours(self):
        """The containers that carry our cluster's label, in the order of their tasks."""
        return sorted(
            (each for each in self.all() if self.cluster and each.cluster == self.cluster),
            key=lambda each: each.task,
        )

    def reboot(self):
        super().reboot()
        for container in self.all():
            if not self.cluster or container.cluster != self.cluster:
                SimulatedEngine.begin(self, container)


class Disk(MemoryMedium):
    """A journal's disk: of what was not synced, a power cut leaves any first part."""

    def cut_power(self, rng):
        tail = len(self.written) - len(self.durable)
        if tail > 0 and self.written.startswith(self.durable):
            self.written = self.written[: len(self.durable) + rng.randint(0, tail)]
            self.durable = self.written
        else:
            super().cut_power()


class Identities:
    """The identity file."""

    def __init__(self):
        self._identity = None

    @property
    def node_id(self):
        return self._identity.node_id if self._identity is not None else ""

    def load(self):
        return self._identity

    def save(self, identity):
        self._identity = identity


class _SimulatedMachine:
    def inventory(self, facts):
        return Inventory(
            hostname="simulated",
            os="linux",
            architecture="amd64",
            capacity=Resources(cpu_millis=4_000, memory_bytes=8 * GIB),
            drivers=("SIMULATED",),
        )

    def load(self, data_root):
        return Load(
            cpu_seconds=0.0,
            memory_available_bytes=4 * GIB,
            memory_total_bytes=8 * GIB,
            disks=(),
        )


class _Transport:
    def __init__(self, network, machine):
        self._network = network
        self._machine = machine

    def connect(self, address):
        return _Link(self._network, self._machine, address)


class _Link:
    def __init__(self, network, machine, address):
        self._network = network
        self._machine = machine
        self._address = address
        self._ends = []

    async def join(self, request):
        end = self._open("join")
        await end.send(request)
        answer = await anext(end, None)
        if answer is None:
            raise LinkLost("no answer")
        return answer

    def heartbeat(self):
        return self._open("heartbeat")

    def session(self):
        return self._open("session")

    def bulk(self):
        return self._open("bulk")

    async def close(self):
        for end in self._ends:
            end.abort("the link was closed")

    def _open(self, method):
        end = self._network.dial(self._machine, self._address, method)
        self._ends.append(end)
        return end
