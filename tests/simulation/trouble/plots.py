"""Several faults, one after the other, each at the moment at which it hurts.

A rule that keeps one order of events from doing harm is needed only where things happen in that
order, which trouble at random times comes to once in thousands of runs. Here the order is given,
and when within it things happen is drawn. A newcomer's mistake: trouble that no real machine,
network or store makes; all of these are made of the kinds beside this one, but for a write that
takes place after its connection broke.
"""

import asyncio
from dataclasses import replace

from agent.runtime.base import Phase
from homeport.model import NodeState
from scheduler.config import Timers
from tests.simulation.trouble.kinds import plot

POLL_SECONDS = 0.05
KNOWN_SECONDS = 95.0
"""By then it is known how fast a clock runs, and a lease that was granted before is over."""


async def until(nemesis, is_so, within):
    """Wait until that is so; whether it came to that in time."""
    loop = nemesis.world.loop
    end = loop.now + within
    while not is_so():
        if loop.now >= end:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def holders(world):
    """(machine, container) of each exclusive movable task that runs."""
    return [
        (machine, container)
        for machine in world.agents
        for container in machine.engine.ours()
        if container.phase is Phase.RUNNING
        and world.checks.copies.may_stop_for_a_lease(container.task)
    ]


def state_of(world, machine):
    """What the leader thinks of the machine's node; None while nobody leads."""
    leader = world.leading()
    if leader is None:
        return None
    return leader.core.control.lead.authority.observed.node(machine.identities.node_id).state


def seconds_until_down(world, machine):
    """In how many seconds the leader takes the silent machine for down, as things stand."""
    if (leader := world.leading()) is None:
        return 0.0
    liveness = leader.core.control.lead.authority.observed.node(machine.identities.node_id)
    return Timers().down_seconds - (leader.clock.boottime() - liveness.last_seen)


def cut_off(nemesis, machine, schedulers=None):
    """Cut the machine off from these schedulers, or all; returns the cuts."""
    world = nemesis.world
    cuts = set()
    for each in schedulers or world.schedulers:
        cuts |= {(machine.name, each.name), (each.name, machine.name)}
    for one, other in sorted(cuts):
        world.network.cut(one, other)
    return cuts


@plot("a leader sleeps and is not given up")
async def _a_leader_sleeps_and_is_not_given_up(nemesis):
    """What agents have said waits for it, and that they have given it up has not come yet."""
    rng, world = nemesis.rng, nemesis.world
    leader = world.leading()
    if leader is None:
        return
    leader.pause(rng.uniform(4.2, 7.5))
    await asyncio.sleep(rng.uniform(0.2, 2.0))
    cuts = {(agent.name, leader.name) for agent in world.agents}
    world.network.cuts |= cuts
    await asyncio.sleep(9)
    world.network.cuts -= cuts


@plot("a follower misses events and leads")
async def _a_follower_misses_events_and_leads(nemesis):
    rng, world = nemesis.rng, nemesis.world
    leader = world.leading()
    if leader is None:
        return
    for machine in world.schedulers:
        if machine is not leader:
            machine.store.events_to_lose = rng.randint(1, 8)
    await asyncio.sleep(rng.uniform(2, 10))
    leader.kill()
    leader.start_later(rng.uniform(10, 25))
    for machine in world.schedulers:
        machine.store.events_to_lose = 0


@plot("an agent sleeps between a heartbeat and its answer")
async def _an_agent_sleeps_between_a_heartbeat_and_its_answer(nemesis):
    """And wakes cut off."""
    rng, world = nemesis.rng, nemesis.world
    network = world.network
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    network.weather = replace(network.weather, slow=0.9, slow_seconds=1.0)
    await asyncio.sleep(rng.uniform(1, 3))
    machine.pause(rng.uniform(5, 13))
    await asyncio.sleep(2.5)
    cuts = cut_off(nemesis, machine)
    network.weather = replace(network.weather, slow=0.0)
    await asyncio.sleep(35)
    network.cuts -= cuts


@plot("the holder of a task sleeps for longer than its lease")
async def _the_holder_of_a_task_sleeps(nemesis):
    if found := holders(nemesis.world):
        machine, _ = nemesis.rng.choice(found)
        machine.pause(seconds := nemesis.rng.uniform(19, 30))
        await asyncio.sleep(seconds - 1)
        await _lanes_overtake_each_other(nemesis)


@plot("the holder of a task is away for longer than its lease")
async def _the_holder_of_a_task_is_away(nemesis):
    rng, network = nemesis.rng, nemesis.world.network
    if found := holders(nemesis.world):
        machine, _ = rng.choice(found)
        cuts = cut_off(nemesis, machine)
        await asyncio.sleep(rng.uniform(19, 25))
        network.cuts -= cuts
        await _lanes_overtake_each_other(nemesis)


async def _lanes_overtake_each_other(nemesis):
    """Within a lane messages keep their order; of two lanes either may be the faster."""
    network = nemesis.world.network
    network.weather = replace(network.weather, slow=0.6, slow_seconds=2.0)
    await asyncio.sleep(8)
    network.weather = replace(network.weather, slow=0.0)


@plot("an engine starts an exclusive task late, when it runs elsewhere")
async def _an_engine_starts_an_exclusive_task_late(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, container = rng.choice(found)
    machine.engine.late_seconds = rng.uniform(23, 30)
    machine.engine.end(container.task, 1)
    await asyncio.sleep(rng.uniform(1, 3))
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(35)
    machine.engine.recover()
    world.network.cuts -= cuts


@plot("an engine is asked for a start at the end of a lease, and is late")
async def _an_engine_is_asked_at_the_end_of_a_lease(nemesis):
    """It starts the task before it gives the call up, and after the task has moved."""
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, container = rng.choice(found)
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(rng.uniform(9, 11.5))
    machine.engine.late_seconds = rng.uniform(7, 9.5)
    machine.engine.end(container.task, 1)
    await asyncio.sleep(20)
    machine.engine.recover()
    world.network.cuts -= cuts


@plot("an agent sleeps while it makes a task anew")
async def _an_agent_sleeps_while_it_makes_a_task_anew(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, container = rng.choice(found)
    machine.engine.remove_by_hand(container)
    await asyncio.sleep(rng.uniform(0.9, 3.1))
    machine.pause(seconds := rng.uniform(25, 30))
    await asyncio.sleep(seconds + 2)


@plot("a node returns while its tasks move")
async def _a_node_returns_while_its_tasks_move(nemesis):
    """The store is slow to carry the move out, and the node is quick to be back."""
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    cuts = cut_off(nemesis, machine)
    if await until(nemesis, lambda: state_of(world, machine) is NodeState.SUSPECT, 12):
        await asyncio.sleep(seconds_until_down(world, machine) - 0.15)
        if leader := world.leading():
            leader.store.cut_requests = True
            await until(nemesis, lambda: state_of(world, machine) is NodeState.DOWN, 0.5)
            world.network.cuts -= cuts
            await asyncio.sleep(rng.uniform(0.8, 2.2))
            leader.store.cut_requests = False
    world.network.cuts -= cuts


@plot("a node returns while nobody knows whether its tasks moved")
async def _a_node_returns_while_nobody_knows(nemesis):
    rng, world = nemesis.rng, nemesis.world
    if not (found := holders(world)):
        return
    machine, _ = rng.choice(found)
    cuts = cut_off(nemesis, machine)
    if await until(nemesis, lambda: state_of(world, machine) is NodeState.SUSPECT, 12):
        await asyncio.sleep(rng.uniform(8, 11))
        leader = world.leading()
        if leader is not None:
            leader.store.late_writes = [rng.uniform(3, 12) for _ in range(6)]
            await until(nemesis, lambda: state_of(world, machine) is NodeState.DOWN, 6)
            world.network.cuts -= cuts
            await asyncio.sleep(rng.uniform(3, 6))
            leader.store.late_writes = []
    world.network.cuts -= cuts


@plot("messages come twice")
async def _messages_come_twice(nemesis):
    network = nemesis.world.network
    network.weather = replace(network.weather, repeat=nemesis.rng.choice((0.2, 0.5)))
    await asyncio.sleep(60)


@plot("a node falls silent under a young leader")
async def _a_node_falls_silent_under_a_young_leader(nemesis):
    rng, world = nemesis.rng, nemesis.world
    old = world.leading()
    if old is None:
        return
    old.kill()
    old.start_later(rng.uniform(1, 5))
    if await until(nemesis, world.leading, 20):
        machine = rng.choice(world.agents)
        await until(nemesis, lambda: state_of(world, machine) is NodeState.READY, 5)
        cuts = cut_off(nemesis, machine)
        await asyncio.sleep(rng.uniform(6, 14))
        world.network.cuts -= cuts


@plot("an old hello comes late")
async def _an_old_hello_comes_late(nemesis):
    """To a leader that has not heard of the machine, which lost its power and said hello again."""
    rng, world = nemesis.rng, nemesis.world
    machine, old = rng.choice(world.agents), world.leading()
    if old is None:
        return
    cuts = cut_off(nemesis, machine)
    old.kill()
    old.start_later(1.0)
    await until(nemesis, world.leading, 20)
    if leader := world.leading():
        machine.kill()
        world.network.cuts -= cuts
        world.network.late[machine.name, leader.name] = rng.uniform(2, 7)
        machine.start()
        await until(nemesis, lambda: not world.network.late, 3)
        machine.cut_power()
        machine.start_later(rng.uniform(0.05, 0.5))
    world.network.cuts -= cuts
    await asyncio.sleep(45)  # who is refused says it again after half a minute


@plot("a leader sleeps")
async def _a_leader_sleeps(nemesis):
    if leader := nemesis.world.leading():
        leader.pause(nemesis.rng.uniform(6, 20))
        await asyncio.sleep(12)


@plot("a leader comes whose wall clock is a day ahead")
async def _a_leader_comes_whose_wall_clock_is_ahead(nemesis):
    world = nemesis.world
    if leader := world.leading():
        for machine in world.schedulers:
            if machine is not leader:
                machine.clock.wall_offset_ms += 2 * 86_400_000
        leader.kill()
        leader.start_later(nemesis.rng.uniform(1, 5))


@plot("a leader is held up while a node is silent")
async def _a_leader_is_held_up(nemesis):
    rng, world = nemesis.rng, nemesis.world
    machine, leader = rng.choice(world.agents), world.leading()
    if leader is None:
        return
    world.network.reading_seconds = 0.05
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(rng.uniform(2.6, 3.6))
    leader.pause(rng.uniform(3.3, 3.9))
    world.network.cuts -= cuts
    await asyncio.sleep(4)
    world.network.reading_seconds = 0.0


@plot("a node is cut off when its clock is known")
async def _a_node_is_cut_off_when_its_clock_is_known(nemesis):
    rng, world = nemesis.rng, nemesis.world
    await asyncio.sleep(max(0.0, KNOWN_SECONDS - world.loop.now))
    cuts = cut_off(nemesis, rng.choice(world.agents))
    await asyncio.sleep(25)
    world.network.cuts -= cuts


@plot("the power of a node blinks")
async def _the_power_of_a_node_blinks(nemesis):
    machine = nemesis.rng.choice(nemesis.world.agents)
    machine.cut_power()
    machine.start_later(nemesis.rng.uniform(0.2, 2))


@plot("the leader goes with the node of a task that has ended")
async def _the_leader_goes_with_a_node(nemesis):
    rng, world = nemesis.rng, nemesis.world
    leader = world.leading()
    ended = [task for task in world.checks.tasks() if task.outcome is not None]
    if leader is None or not ended:
        return
    machine = world.machine_of(rng.choice(ended).node)
    leader.kill()
    leader.start_later(rng.uniform(1, 5))
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(rng.uniform(10, 20))
    world.network.cuts -= cuts


@plot("a copy breaks while its node is away")
async def _a_copy_breaks_while_its_node_is_away(nemesis):
    """Its successor runs; the old one does not and never will."""
    rng, world = nemesis.rng, nemesis.world
    found = [(machine, each) for machine in world.agents for each in machine.engine.ours()]
    if not found:
        return
    machine, container = rng.choice(found)
    cuts = cut_off(nemesis, machine)
    await asyncio.sleep(rng.uniform(8, 14))
    container.script = replace(container.script, fail_start="the disk is broken")
    machine.engine.end(container.task, 1)
    await asyncio.sleep(rng.uniform(21, 28))
    world.network.cuts -= cuts
