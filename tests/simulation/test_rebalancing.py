"""Moves to better nodes while leaders die: every slot is served, nothing runs twice, all arrives.

A story each, with everything else from the seed; the checks of every run hold as well: of an
exclusive task there are never two.
"""

import asyncio

import pytest

from agent.runtime.base import Phase
from homeport.model import Availability
from homeport.v1 import control_pb2, types_pb2
from tests.simulation.scenario import play, settles
from tests.simulation.workload import User, Wanted

REPLICAS = 9


def running(world, template, stack="shop"):
    """(slot, machine) of each process of this kind of service."""
    return [
        (container.task.split("/")[1], machine)
        for machine in world.agents
        for container in machine.engine.ours()
        if f"{stack}-{template}" in container.task and container.phase is Phase.RUNNING
    ]


async def filled_without_one(world):
    """All tasks are on two of three nodes, and the third takes tasks again."""
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(20)  # a leader that is older than a node's lease
    away = world.agents[0]
    await wish(user, away, Availability.PAUSE)
    await user.put({"many": Wanted("many", REPLICAS, 1)})
    await asyncio.sleep(15)
    await wish(user, away, Availability.ACTIVE)
    assert len(running(world, "many")) == REPLICAS
    assert away not in [machine for _, machine in running(world, "many")]
    return user, away


async def wish(user, machine, availability):
    request = control_pb2.UpdateNodeRequest(
        node=machine.name,
        availability=availability.value,
        request_id=f"{machine.name}-{availability.name}",
    )
    await user.call("UpdateNode", request)


async def watch(world, until):
    """No slot of the replicas is without a running process, at any moment."""
    while world.loop.now < until:
        slots = {slot for slot, _ in running(world, "many")}
        if len(slots) < REPLICAS:
            world.checks.violate(f"only slots {sorted(slots)} are served")
            return
        await asyncio.sleep(0.05)


def leaders_die_while(begin, killed_after):
    """A story: moves begin, and whoever leads is killed so many seconds later, and again."""

    async def acts(world):
        user, away = await filled_without_one(world)
        watching = asyncio.create_task(watch(world, world.loop.now + 70))
        await begin(user)
        for seconds in (killed_after, 21.0):
            await asyncio.sleep(seconds)
            if leader := world.leading():
                leader.kill()
        world.heal()
        await watching
        there = [machine for _, machine in running(world, "many")].count(away)
        if there != REPLICAS // 3:
            world.checks.violate(f"{there} replicas moved to the node that takes tasks again")
        await settles(world, user)

    return acts


async def told(user):
    request = control_pb2.RebalanceRequest(request_id="rebalance")
    answer = await user.call("Rebalance", request)
    assert len([each for each in answer.moves if each.service == "many"]) == REPLICAS // 3


async def by_itself(user):
    request = control_pb2.UpdateClusterRequest(
        rebalancing=types_pb2.REBALANCING_AUTOMATIC, moves_per_hour=60, request_id="automatic"
    )
    await user.call("UpdateCluster", request)


@pytest.mark.parametrize("killed_after", [0.0, 0.1, 3.0, 5.2])
def test_moves_that_were_told_arrive_though_leaders_die(killed_after):
    verdict = play(int(killed_after * 10), acts=leaders_die_while(told, killed_after))
    assert not verdict.violations, verdict.words()


@pytest.mark.parametrize("killed_after", [10.1, 13.0, 16.0])
def test_moves_that_nobody_told_arrive_though_leaders_die(killed_after):
    verdict = play(int(killed_after * 10), acts=leaders_die_while(by_itself, killed_after))
    assert not verdict.violations, verdict.words()


def exclusive_tasks_move(killed_after):
    """A story: four are on one node, and two others take tasks again; leaders die meanwhile."""
    stacks = ("one", "two", "three", "four")

    async def acts(world):
        users = [User(world, name, []) for name in stacks]
        world.start()
        await asyncio.sleep(20)
        for away in world.agents[:2]:
            await wish(users[0], away, Availability.PAUSE)
        for user in users:
            await user.put({"only": Wanted("only", 1, 1)})
        await asyncio.sleep(10)
        for away in world.agents[:2]:
            await wish(users[0], away, Availability.ACTIVE)
        request = control_pb2.RebalanceRequest(with_exclusive=True, request_id="rebalance")
        answer = await users[0].call("Rebalance", request)
        assert answer.moves, "they gain more than the pause costs"
        await asyncio.sleep(killed_after)
        world.leading().kill()
        await asyncio.sleep(40)
        world.heal()
        await settles(world, *users)
        where = [machine for name in stacks for _, machine in running(world, "only", name)]
        assert len(where) == len(stacks)
        if where.count(world.agents[2]) == len(stacks):
            world.checks.violate("no exclusive task moved")

    return acts


@pytest.mark.parametrize("killed_after", [0.05, 1.0, 4.2, 8.0])
def test_exclusive_tasks_that_move_never_run_twice(killed_after):
    verdict = play(int(killed_after * 10), acts=exclusive_tasks_move(killed_after))
    assert not verdict.violations, verdict.words()
