"""A machine with an engine and an agent: put together as `agent.app` does it.

What lies below the seams is simulated: the engine, the disk, the clocks, the network.
"""

import asyncio
import contextlib
import copy
from pathlib import Path

from agent import joining
from agent.bulk import BulkDesk
from agent.guarding import Guarding
from agent.images import Images as AgentImages
from agent.inventory import Load
from agent.journal import Journal, MemorySecrets
from agent.keylog import JournalDamaged
from agent.lease import Lease
from agent.observer import Observer, Tasks
from agent.reporter import Reporter
from agent.runtime.simulated import SimulatedRuntime
from agent.session import Desk, Goodbye, Sessions
from agent.worker import Worker
from homeport.model import Inventory
from homeport.spec import Driver, Resources
from tests.simulation.disk import Disk, Identities
from tests.simulation.engine import GIB, WatchedEngine
from tests.simulation.guard_machine import Guards, SimulatedBoard
from tests.simulation.links import Transport
from tests.simulation.machine import Machine


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
        self._lapsed_at = []  # true times
        self.worker = None
        self.journal = None
        self.reporter = None
        self.sessions = None
        self.board = SimulatedBoard()
        self.guards = Guards(self)
        for number, cluster in enumerate(("", "another"), start=1):
            self.engine.add_foreign(f"foreign-{number}", cluster)

    def _gone(self):
        journal, self.journal = self.journal, None
        if journal is not None:
            # What was told may be ahead of what is written, as long as the disk is full.
            written = Journal(copy.copy(self.medium), self.secrets)
            if written.records != journal.records:
                self._lapsed_at.append(self.world.loop.now)
        super()._gone()

    def cut_power(self):
        """The machine is off: nothing runs, and what was not synced may be gone."""
        self.kill()
        self.guards.kill()
        self.board = SimulatedBoard()
        self.medium.cut_power(self.world.loop.rng)
        self.secrets.data.clear()
        self.engine.reboot()
        self.clock.reboot()
        self.boot += 1
        self._lapsed_at.append(self.world.loop.now)

    def lapses(self, at):
        """How often its agent had forgotten until that true time: by a power cut, or an end before
        it could write."""
        return sum(each < at for each in self._lapsed_at)

    async def _main(self):
        world, clock = self.world, self.clock
        randomness = world.randomness(f"{self.name}/{self.incarnation}")
        transport = Transport(world.network, self.name)
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
        guarding = Guarding(self.board, self.guards, clock)
        guarding.keep_lease(lease)
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
            guarding=guarding,
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
                remind=worker.remind,
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
                background.create_task(guarding.run(), name="guard")
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
