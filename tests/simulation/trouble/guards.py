"""A machine that has no guard to give, and an agent that sleeps when it would be needed.

A guard that is away while the agent is away is more than S1 allows for. So these wait until the
agent has had the time to see to it, that no task is left which needs one.
"""

import asyncio

from tests.simulation.trouble.kinds import plot
from tests.simulation.trouble.plots import holders

SLEEPS_SECONDS = (25, 32)
"""Longer than it takes until what needs a lease moves elsewhere."""


@plot("a task ends where no guard is to be had, and the agent sleeps")
async def _a_task_ends_where_no_guard_is_to_be_had(nemesis):
    """It would be started again before the agent gives the guard up."""
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    _lose_the_guard(machine)
    for each, container in found:
        if each is machine:
            machine.engine.end(container.task, 1)
    await _sleep(nemesis, machine, rng.uniform(3, 4.5))


@plot("no guard is to be had for long, and the agent sleeps")
async def _no_guard_is_to_be_had_for_long(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    _lose_the_guard(machine)
    await _sleep(nemesis, machine, rng.uniform(10.5, 12))


def _lose_the_guard(machine):
    machine.guards.is_refusing = True
    machine.guards.kill()


async def _sleep(nemesis, machine, after):
    await asyncio.sleep(after)
    machine.pause(seconds := nemesis.rng.uniform(*SLEEPS_SECONDS))
    await asyncio.sleep(seconds + 2)
    machine.guards.is_refusing = False
