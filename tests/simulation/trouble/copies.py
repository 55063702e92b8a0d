"""A second machine with the identity of a first one: its state directory was copied (F54)."""

import asyncio
import copy

from tests.simulation.agent_machine import AgentMachine
from tests.simulation.trouble.kinds import plot
from tests.simulation.trouble.plots import cut_off, holders


@plot("a copied machine comes up while the first one is cut off")
async def _a_copied_machine_comes_up(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if world.twins or not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    twin = AgentMachine(world, f"{machine.name}b")
    twin.identities = copy.copy(machine.identities)
    twin.medium = copy.copy(machine.medium)
    world.twins.append(twin)
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(rng.uniform(0, 2))
    twin.start()
    await asyncio.sleep(rng.uniform(10, 40))
    twin.cut_power()
    world.network.cuts -= cuts
