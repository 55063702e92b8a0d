"""What an operator says of a node that is believed only where it can do no harm."""

import asyncio

from homeport.model import NodeState
from homeport.seams import identifier
from homeport.v1 import control_pb2
from tests.simulation.trouble.kinds import plot
from tests.simulation.trouble.plots import cut_off, holders, state_of, until
from tests.simulation.workload import Caller

MAY_FAIL = ("FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT")


@plot("an operator forgets a node that has just fallen silent")
async def _an_operator_forgets_a_node(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    cuts = cut_off(nemesis, machine)
    if await until(nemesis, lambda: state_of(world, machine) is NodeState.SUSPECT, 12):
        request = control_pb2.RemoveNodeRequest(
            node=machine.name, force=True, request_id=f"operator-{identifier(rng, 40)}"
        )
        await Caller(world, "operator").call("RemoveNode", request, may_fail=MAY_FAIL)
        await asyncio.sleep(15)
    world.network.cuts -= cuts


@plot("an operator takes a node that is up for lost")
async def _an_operator_takes_a_node_for_lost(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    request = control_pb2.UpdateNodeRequest(
        node=machine.name, lost=True, request_id=f"operator-{identifier(rng, 40)}"
    )
    await Caller(world, "operator").call("UpdateNode", request, may_fail=MAY_FAIL)


@plot("a node is off, taken for lost, and comes back")
async def _a_node_is_off_and_comes_back(nemesis):
    rng, world = nemesis.rng, nemesis.world
    machine = rng.choice(world.agents)
    machine.cut_power()
    await until(nemesis, lambda: state_of(world, machine) is NodeState.SUSPECT, 12)
    request = control_pb2.UpdateNodeRequest(
        node=machine.name, lost=True, request_id=f"operator-{identifier(rng, 40)}"
    )
    await Caller(world, "operator").call("UpdateNode", request, may_fail=MAY_FAIL)
    machine.start_later(rng.uniform(1, 20))
    await asyncio.sleep(20)
