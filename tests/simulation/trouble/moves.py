"""Nodes that give their tasks away: several that fall silent, and one that takes tasks again."""

import asyncio

from homeport.model import Availability
from homeport.seams import identifier
from homeport.v1 import control_pb2
from tests.simulation.trouble.kinds import plot
from tests.simulation.trouble.plots import cut_off
from tests.simulation.workload import Caller


@plot("two nodes are silent for longer than replicas are held")
async def _two_nodes_are_silent_for_long(nemesis):
    """The brake holds their replicas for a minute; then they move, a node at a time."""
    rng, world = nemesis.rng, nemesis.world
    cuts = set()
    for machine in rng.sample(world.agents, 2):
        cuts |= cut_off(nemesis, machine)
        await asyncio.sleep(rng.uniform(0, 3))
    await asyncio.sleep(rng.uniform(80, 90))
    world.network.cuts -= cuts


@plot("nodes take tasks again, and some are to move there")
async def _nodes_take_tasks_again(nemesis):
    rng, world = nemesis.rng, nemesis.world
    machines = rng.sample(world.agents, rng.choice((1, 2)))
    operator = Caller(world, "operator")

    async def wish(availability):
        for machine in machines:
            request = control_pb2.UpdateNodeRequest(
                node=machine.name,
                availability=availability.value,
                request_id=f"operator-{identifier(rng, 40)}",
            )
            await operator.call("UpdateNode", request, may_fail=("NOT_FOUND",))

    await wish(Availability.DRAIN)
    await asyncio.sleep(rng.uniform(8, 14))
    await wish(Availability.ACTIVE)
    await asyncio.sleep(rng.uniform(0, 3))
    request = control_pb2.RebalanceRequest(
        with_exclusive=True, request_id=f"operator-{identifier(rng, 40)}"
    )
    await operator.call("Rebalance", request, may_fail=("FAILED_PRECONDITION",))
    await asyncio.sleep(15)
