"""Processes that are killed, stopped or paused, at any moment and before any of their steps."""

import asyncio

from tests.simulation.trouble.kinds import kind

STEPS_MAX = 400
"""An ambush waits for one of the next so many steps of its process."""
GUARD_AWAY_SECONDS = 0.8
"""The guard may be late or away for less than the margin, which is what S1 allows for."""


@kind("kill a scheduler", 25)
async def _kill_a_scheduler(nemesis):
    machine = nemesis.rng.choice(nemesis.world.schedulers)
    machine.kill()
    _restart(nemesis, machine)


@kind("kill the leader", 30)
async def _kill_the_leader(nemesis):
    machine = nemesis.world.leading()
    if machine is not None:
        machine.kill()
        _restart(nemesis, machine)


@kind("kill at a step", 15)
async def _kill_at_a_step(nemesis):
    world = nemesis.world
    machine = nemesis.rng.choice([*world.schedulers, *world.agents])
    machine.kill_in(nemesis.rng.randint(1, STEPS_MAX), lambda: _restart(nemesis, machine))


@kind("pause at a step", 15)
async def _pause_at_a_step(nemesis):
    world = nemesis.world
    machine = nemesis.rng.choice([*world.schedulers, *world.agents])
    machine.pause_in(nemesis.rng.randint(1, STEPS_MAX), _pause(nemesis))


@kind("stop a scheduler", 40)
async def _stop_a_scheduler(nemesis):
    nemesis.rng.choice(nemesis.world.schedulers).stop()


@kind("pause a scheduler", 25)
async def _pause_a_scheduler(nemesis):
    nemesis.rng.choice(nemesis.world.schedulers).pause(_pause(nemesis))


@kind("kill an agent", 20)
async def _kill_an_agent(nemesis):
    machine = nemesis.rng.choice(nemesis.world.agents)
    machine.kill()
    _restart(nemesis, machine)


@kind("stop an agent", 40)
async def _stop_an_agent(nemesis):
    nemesis.rng.choice(nemesis.world.agents).stop()


@kind("pause an agent", 25)
async def _pause_an_agent(nemesis):
    nemesis.rng.choice(nemesis.world.agents).pause(_pause(nemesis))


@kind("kill a guard", 15)
async def _kill_a_guard(nemesis):
    machine = nemesis.rng.choice(nemesis.world.agents)
    if machine.guards.find() is None or not machine.is_at_work:
        return  # both dead is more than S1 allows for
    machine.guards.kill()
    await asyncio.sleep(GUARD_AWAY_SECONDS / 2)
    # By now there is another, unless the agent itself was hit; its service manager sees to that.
    nemesis.world.loop.resume(machine.process)
    machine.start()


@kind("pause a guard", 15)
async def _pause_a_guard(nemesis):
    found = nemesis.rng.choice(nemesis.world.agents).guards.find()
    if found is not None:
        found.pause(nemesis.rng.uniform(0.05, GUARD_AWAY_SECONDS))


@kind("cut the power of a node", 45)
async def _cut_the_power_of_a_node(nemesis):
    machine = nemesis.rng.choice(nemesis.world.agents)
    machine.cut_power()
    _power_on(nemesis, machine)


@kind("cut the power of all nodes", 120)
async def _cut_the_power_of_all_nodes(nemesis):
    for machine in nemesis.world.agents:
        machine.cut_power()
        _power_on(nemesis, machine)


@kind("wall clock jumps", 40)
async def _wall_clock_jumps(nemesis):
    machine = nemesis.rng.choice([*nemesis.world.agents, *nemesis.world.schedulers])
    machine.clock.wall_offset_ms += nemesis.rng.choice((-86_400_000, -5_000, 5_000, 3_600_000))


def _restart(nemesis, machine):
    rng = nemesis.rng
    machine.start_later(rng.choice((0.1, 1.0, 3.0, rng.uniform(5, 25))))


def _power_on(nemesis, machine):
    machine.start_later(nemesis.rng.uniform(5, 40))


def _pause(nemesis):
    rng = nemesis.rng
    return rng.choice((rng.uniform(1, 5), rng.uniform(3, 30)))
