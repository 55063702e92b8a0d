"""A simulated cluster of real schedulers and real agents on machines that can be troubled.

Only what lies below the seams is simulated: time, randomness, network, store, engine and
the agent's disk. A newcomer's mistake: making a fault here that no real machine has. What a
`kill -9` leaves is what was written; what a power cut leaves is what was synced, and perhaps
a part of the rest.
"""

import contextvars
import random

from agent.runtime.simulated_engine import script_of
from tests.simulation.agent_machine import AgentMachine
from tests.simulation.loop import PROCESS, SimulatedClock
from tests.simulation.network import Network
from tests.simulation.scheduler_machine import SchedulerMachine
from tests.simulation.store import ObservedStore, StoreView
from tests.simulation.trace import Trace

RATE_ERROR_MAX = 0.0048
"""By how much a machine's clock may run too fast or too slow: any two then differ by less than
one percent, up to which the promises hold. Beyond, a node gets no exclusive task (F44), and what
is here to be exclusive would not run."""


class World:
    """All machines, the network between them and what watches them."""

    def __init__(self, loop, seed, make_checks, *, schedulers=2, agents=3):
        self.loop = loop
        self.seed = seed
        self._rates = self._choose_rates()
        self.checks = make_checks(self)
        self.trace = Trace(loop, self._logged)
        self.network = Network(loop)
        self.network.on_delivered = self._delivered
        self.counts = {}
        self.twins = []  # machines with a copy of another's state directory
        self.leaders = 0
        store_context = contextvars.copy_context()
        store_context.run(PROCESS.set, ("store", 1))
        clock = SimulatedClock(loop, offset=50.0, rate=self._rate())
        self.store = store_context.run(ObservedStore, clock, self.checks.committed)
        loop.rates["store"] = clock.rate
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

    def _choose_rates(self):
        """In half of the runs all clocks run alike; in some all are as wrong as they may be."""
        rng = self.randomness("rates")
        worst = (-RATE_ERROR_MAX, RATE_ERROR_MAX)
        kind = rng.random()
        while True:
            if kind < 0.5:
                yield 1.0
            elif kind < 0.75:
                yield 1.0 + rng.uniform(*worst)
            else:
                yield 1.0 + rng.choice(worst)

    def _rate(self):
        return next(self._rates)

    def clock(self, name):
        """The clocks of a machine."""
        return SimulatedClock(
            self.loop,
            rate=self._rate(),
            offset=self.randomness(f"{name} boot").uniform(10, 1e6),
            wall_offset_ms=1_700_000_000_000 + self.randomness(f"{name} wall").randrange(10**7),
        )

    def set_rate(self, name, rate):
        """Before the start: the clocks of this machine run so fast."""
        machine = next(each for each in [*self.schedulers, *self.agents] if each.name == name)
        machine.clock.rate = self.loop.rates[name] = rate

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
        self.store.heal()
        for machine in self.twins:
            machine.cut_power()
        for machine in self.schedulers:
            machine.store.heal()
            machine.start()
        for machine in self.agents:
            for container in machine.engine.all():
                container.script = script_of(container.spec.labels)
            machine.engine.recover()
            machine.guards.is_refusing = False
            machine.medium.is_full = False
            machine.start()

    @property
    def twinned(self):
        """The nodes that are two machines, or were."""
        return {machine.identities.node_id for machine in self.twins}

    def _logged(self, text):
        is_known = self.twins and "duplicate identity" in text
        if any(machine.guards.has_refused for machine in self.agents):
            is_known = is_known or "exclusive tasks cannot be guarded" in text
        if not is_known:
            self.checks.violate("a bug was logged", text)

    def leading(self):
        """The scheduler that leads; None while none certainly does."""
        found = self.proven()
        return found[0] if len(found) == 1 else None

    def leader_of(self, epoch):
        """The scheduler whose leadership this is; None when it is over."""
        for machine in self.schedulers:
            lead = machine.core.control.lead if machine.process is not None else None
            if lead is not None and lead.authority.epoch == epoch:
                return machine
        return None

    def proven(self):
        """The schedulers that take themselves for the proven leader, stopped ones too."""
        return [
            machine
            for machine in self.schedulers
            if machine.process is not None
            and (lead := machine.core.control.lead) is not None
            and lead.authority.is_proven
        ]

    def machine_of(self, node):
        """The machine that has this node's identity."""
        for machine in self.agents:
            if machine.identities.node_id == node:
                return machine
        return None

    def engine_of(self, node):
        """Its engine."""
        machine = self.machine_of(node)
        return machine.engine if machine is not None else None

    def _delivered(self, sender, receiver, what):
        size = what.ByteSize() if hasattr(what, "ByteSize") else 0
        self.trace.count(f"{sender}>{receiver} {type(what).__name__} {size}")
