"""The trouble in a simulation: each seed picks which kinds exist, and how often they come.

Swarm testing: a run in which everything fails at once hides what a single kind of fault,
often repeated, would show. A newcomer's mistake: a fault without an end. Everything here
ends by itself, and `World.heal` ends the rest.
"""

import asyncio
from dataclasses import replace

from agent.runtime.base import Phase
from agent.runtime.simulated_engine import script_of

KINDS = {
    # kind: mean seconds between two of them
    "kill a scheduler": 25,
    "kill the leader": 30,
    "stop a scheduler": 40,
    "pause a scheduler": 25,
    "kill an agent": 20,
    "stop an agent": 40,
    "pause an agent": 25,
    "cut the power of a node": 45,
    "cut a link": 20,
    "cut a node off": 40,
    "lose messages": 30,
    "slow messages": 30,
    "store refuses": 35,
    "cut a scheduler from the store": 30,
    "slow store": 40,
    "compact the store": 20,
    "engine outage": 35,
    "engine hangs": 40,
    "one container hangs": 40,
    "kill a container": 10,
    "remove a container by hand": 25,
    "a container is unwell": 25,
    "wall clock jumps": 40,
}


class Nemesis:
    """Makes trouble until told otherwise."""

    def __init__(self, world):
        self.world = world
        self._rng = world.randomness("nemesis")
        share = self._rng.choice((0.1, 0.3, 0.3, 0.5))
        calm = self._rng.choice((0.2, 0.5, 1.0, 2.0))
        chosen = [kind for kind in KINDS if self._rng.random() < share]
        self.kinds = {kind: KINDS[kind] * calm * self._rng.uniform(0.5, 2) for kind in chosen}

    async def run(self):
        """One coroutine for each kind of trouble, until cancelled."""
        async with asyncio.TaskGroup() as background:
            for kind, mean_seconds in self.kinds.items():
                background.create_task(self._repeat(kind, mean_seconds), name=kind)

    async def _repeat(self, kind, mean_seconds):
        method = getattr(self, "_" + kind.replace(" ", "_"))
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / mean_seconds))
            self.world.count(kind)
            await method()

    # ------------------------------------------------------------ processes

    def _restart(self, machine):
        machine.start_later(self._rng.choice((0.1, 1.0, 3.0, self._rng.uniform(5, 25))))

    async def _kill_a_scheduler(self):
        machine = self._rng.choice(self.world.schedulers)
        machine.kill()
        self._restart(machine)

    async def _kill_the_leader(self):
        machine = self.world.leading()
        if machine is not None:
            machine.kill()
            self._restart(machine)

    async def _stop_a_scheduler(self):
        self._rng.choice(self.world.schedulers).stop()

    async def _pause_a_scheduler(self):
        self._rng.choice(self.world.schedulers).pause(self._pause())

    async def _kill_an_agent(self):
        machine = self._rng.choice(self.world.agents)
        machine.kill()
        self._restart(machine)

    async def _stop_an_agent(self):
        self._rng.choice(self.world.agents).stop()

    async def _pause_an_agent(self):
        self._rng.choice(self.world.agents).pause(self._pause())

    async def _cut_the_power_of_a_node(self):
        machine = self._rng.choice(self.world.agents)
        machine.cut_power()
        machine.start_later(self._rng.uniform(5, 40))

    def _pause(self):
        return self._rng.choice((self._rng.uniform(1, 5), self._rng.uniform(3, 30)))

    # ------------------------------------------------------------ network

    async def _cut_a_link(self):
        agent = self._rng.choice(self.world.agents).name
        other = self._rng.choice([*(each.name for each in self.world.schedulers), "laptop"])
        await self._cut([(agent, other)] if other != "laptop" else [(other, "s1")])

    async def _cut_a_node_off(self):
        agent = self._rng.choice(self.world.agents).name
        await self._cut([(agent, each.name) for each in self.world.schedulers])

    async def _cut(self, links):
        ways = self._rng.choice(("there", "back", "both", "both"))
        cuts = set()
        for one, other in links:
            if ways != "back":
                cuts.add((one, other))
            if ways != "there":
                cuts.add((other, one))
        network = self.world.network
        for one, other in sorted(cuts):
            network.cut(one, other)
        await asyncio.sleep(self._rng.choice((1.0, 4.0, 8.0, 15.0, 25.0, 40.0)))
        network.cuts -= cuts

    async def _lose_messages(self):
        self.world.network.weather = replace(
            self.world.network.weather, lose=self._rng.choice((0.01, 0.05, 0.2))
        )
        await asyncio.sleep(self._rng.uniform(2, 20))
        self.world.network.weather = replace(self.world.network.weather, lose=0.0)

    async def _slow_messages(self):
        self.world.network.weather = replace(
            self.world.network.weather,
            slow=self._rng.choice((0.02, 0.2, 0.5)),
            slow_seconds=self._rng.choice((0.3, 3.0, 8.0)),
        )
        await asyncio.sleep(self._rng.uniform(2, 20))
        self.world.network.weather = replace(self.world.network.weather, slow=0.0)

    # ------------------------------------------------------------ store

    def _views(self):
        views = [machine.store for machine in self.world.schedulers]
        return self._rng.choice((views, views, views[:1], views[1:]))

    async def _store_refuses(self):
        views = self._views()
        for view in views:
            view.is_refusing = True
        await asyncio.sleep(self._rng.uniform(0.5, 12))
        for view in views:
            view.is_refusing = False

    async def _cut_a_scheduler_from_the_store(self):
        views = self._views()
        ways = self._rng.choice(("there", "back", "both"))
        for view in views:
            view.cut_requests = ways != "back"
            view.cut_answers = ways != "there"
        await asyncio.sleep(self._rng.uniform(0.5, 12))
        for view in views:
            view.cut_requests = view.cut_answers = False

    async def _slow_store(self):
        views = self._views()
        for view in views:
            view.slow_seconds = self._rng.choice((0.05, 0.5, 3.0))
        await asyncio.sleep(self._rng.uniform(2, 20))
        for view in views:
            view.slow_seconds = 0.0

    async def _compact_the_store(self):
        await self.world.store.compact(self.world.store._revision)

    # ------------------------------------------------------------ engines

    def _engine(self):
        return self._rng.choice(self.world.agents).engine

    async def _engine_outage(self):
        engine = self._engine()
        engine.outage = "connection refused"
        await asyncio.sleep(self._rng.uniform(0.5, 20))
        engine.recover()

    async def _engine_hangs(self):
        engine = self._engine()
        engine.is_hanging = True
        await asyncio.sleep(self._rng.uniform(0.5, 25))
        engine.recover()

    async def _one_container_hangs(self):
        engine = self._engine()
        if (container := self._container(engine)) is not None:
            engine.hanging.add(container.task)
            await asyncio.sleep(self._rng.uniform(0.5, 25))
            engine.hanging.discard(container.task)

    def _container(self, engine):
        running = [each for each in engine.ours() if each.phase is Phase.RUNNING]
        return self._rng.choice(running) if running else None

    async def _kill_a_container(self):
        engine = self._engine()
        if (container := self._container(engine)) is not None:
            code = self._rng.choice((0, 1, 137))
            self.world.trace.note(f"------ {container.task} ends with {code}")
            engine.end(container.task, code, oom=code == 137)

    async def _remove_a_container_by_hand(self):
        engine = self._engine()
        if (container := self._container(engine)) is not None:
            self.world.trace.note(f"------ {container.task} is removed by hand")
            engine.remove_by_hand(container)

    async def _a_container_is_unwell(self):
        engine = self._engine()
        if (container := self._container(engine)) is not None:
            script = script_of(container.spec.labels)
            self.world.trace.note(f"------ {container.task} is unwell")
            self.world.checks.unwell(container)
            container.script = replace(script, health="unhealthy", health_after_ms=0)
            engine.tell(container, "health_status")
            started = container.started_at
            for _ in range(40):
                await asyncio.sleep(0.25)
                if container.started_at != started or container.phase is not Phase.RUNNING:
                    break
            container.script = script
            engine.tell(container, "health_status")

    # ------------------------------------------------------------ clocks

    async def _wall_clock_jumps(self):
        machine = self._rng.choice([*self.world.agents, *self.world.schedulers])
        machine.clock.wall_offset_ms += self._rng.choice((-86_400_000, -5_000, 5_000, 3_600_000))
