"""Single stories: what once went wrong, what seeds reach too rarely, and how long things take.

A story says what happens when; everything else (who leads, who gets what, the order of
processes at one instant) follows from the seed. Bounds are in virtual time.
"""

import asyncio
from dataclasses import replace

import pytest

from agent.runtime.base import Phase
from scheduler.reconcile.pace import Pace
from tests.simulation.checks import Checks
from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import play, settles
from tests.simulation.workload import User, Wanted


async def _a_node_comes_back(world):
    """It has eight replicas, whose successors on the other two are too many by then."""
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(5)
    await user.put({"many": Wanted("many", 24, 1)})
    await asyncio.sleep(10)
    away = world.agents[0].name
    for machine in world.schedulers:
        world.network.cut(away, machine.name)
        world.network.cut(machine.name, away)
    await asyncio.sleep(30)
    assert len(world.agents[0].engine.ours()) == 8, "they run on while it is cut off"
    world.heal()
    await settles(world, user)


def test_a_node_that_comes_back_loses_its_surplus_without_an_operators_word():
    verdict = play(1, acts=_a_node_comes_back)
    assert not verdict.violations, verdict.words()


async def _a_sleeping_leader_is_asked_for_what_was(world):
    """It wakes, and believes that there is what a user has changed and now wants again."""
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(5)
    await user.put({"web": Wanted("web", 1, 1)})
    old = world.leading()
    old.pause(30)
    await asyncio.sleep(10)
    await user.scale_to("web", 3)
    await asyncio.sleep(old.paused_until - world.loop.now - 2)
    await user.scale_to("web", 1, first=old)
    await settles(world, user)


@pytest.mark.parametrize("seed", range(4))
def test_who_leads_no_more_does_not_say_that_all_is_as_wanted(seed):
    verdict = play(seed, acts=_a_sleeping_leader_is_asked_for_what_was)
    assert not verdict.violations, verdict.words()


async def _a_broken_copy_comes_back(world):
    """A node is cut off, its task gets a successor, and then its container breaks for good."""
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(5)
    await user.put({"web": Wanted("web", 1, 1)})
    await asyncio.sleep(5)
    away = next(machine for machine in world.agents if machine.engine.ours())
    for machine in world.schedulers:
        world.network.cut(away.name, machine.name)
        world.network.cut(machine.name, away.name)
    await asyncio.sleep(25)
    old = away.engine.ours()[0]
    old.script = replace(old.script, fail_start="the disk is broken")
    away.engine.end(old.task, 1)
    successor = next(
        machine.engine.ours()[0]
        for machine in world.agents
        if machine is not away and machine.engine.ours()
    )
    started = successor.started_at
    world.network.heal()
    await settles(world, user)
    if (successor.phase, successor.started_at) != (Phase.RUNNING, started):
        world.checks.violate("the copy that ran well was stopped for one that does not run")


@pytest.mark.parametrize("seed", range(4))
def test_a_successor_that_runs_stays_when_what_it_replaced_comes_back_broken(seed):
    verdict = play(seed, acts=_a_broken_copy_comes_back)
    assert not verdict.violations, verdict.words()


async def _an_old_leader_is_asked_again(world):
    """It is cut off from the store; an agent hears its successor, and comes back to it."""
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(5)
    await user.put({"web": Wanted("web", 3, 1)})
    old = world.leading()
    new = next(machine for machine in world.schedulers if machine is not old)
    old.store.cut_requests = True
    for agent in world.agents:
        world.network.cut(agent.name, old.name)
    await asyncio.sleep(15)
    await user.put({"web": Wanted("web", 3, 2)})
    await asyncio.sleep(5)
    world.network.heal()
    for agent in world.agents:
        world.network.cut(agent.name, new.name)
    await asyncio.sleep(20)
    world.heal()
    await settles(world, user)


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_that_is_none_any_more_is_not_obeyed(seed):
    verdict = play(seed, acts=_an_old_leader_is_asked_again)
    assert not verdict.violations, verdict.words()


async def _an_agent_sleeps(world):
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(5)
    await user.put({"web": Wanted("web", 3, 1)})
    for seconds in (1, 3, 10, 60):
        for agent in world.agents:
            agent.pause(seconds)
        await asyncio.sleep(seconds / 2)
        if leader := world.leading():
            leader.kill()  # so that answers and the end of the lane wait for who wakes
        await asyncio.sleep(seconds / 2 + 15)
        for machine in world.schedulers:
            machine.start()
    await settles(world, user)


@pytest.mark.parametrize("seed", range(4))
def test_an_agent_that_was_stopped_for_a_while_goes_on_without_an_error(seed):
    verdict = play(seed, acts=_an_agent_sleeps)
    assert not verdict.violations, verdict.words()


async def _a_start_comes_late(world):
    """A node is cut off while its engine is asked for a start, which it makes 25 s later."""
    user = await _up(world, only=1)
    away = _runs_on(world, "shop-only")[0]
    away.engine.late_seconds = 25.0
    away.engine.end(away.engine.ours()[0].task, 1)
    await asyncio.sleep(2)
    _cut_off(world, away)
    await asyncio.sleep(60)
    world.heal()
    await settles(world, user)


@pytest.mark.parametrize("seed", range(2))
def test_what_an_engine_starts_late_does_not_run_beside_its_successor(seed):
    verdict = play(seed, acts=_a_start_comes_late)
    assert not verdict.violations, verdict.words()
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS["takes_an_unanswered_start_for_none"].switch_off(patch)
        verdict = play(seed, acts=_a_start_comes_late)
    assert any("S1:" in each for each in verdict.violations), verdict.words()


# ---------------------------------------------------------------- how long things take


async def _until(world, is_so, within):
    """How long it takes until that is so, in virtual seconds; a violation when longer."""
    began = world.loop.now
    while not is_so():
        if world.loop.now - began > within or world.checks.violations:
            world.checks.violate(f"it takes longer than {within:g} s")
            return
        await asyncio.sleep(0.05)


def _runs_on(world, template):
    """The machines on which a process of this kind of service lives."""
    return [
        machine
        for machine in world.agents
        for container in machine.engine.ours()
        if template in container.task and container.phase is Phase.RUNNING
    ]


def _cut_off(world, machine):
    for each in world.schedulers:
        world.network.cut(machine.name, each.name)
        world.network.cut(each.name, machine.name)


async def _up(world, **services):
    user = User(world, "shop", [])
    world.start()
    await asyncio.sleep(20)  # a leader that is older than a node's lease
    await user.put({name: Wanted(name, replicas, 1) for name, replicas in services.items()})
    await asyncio.sleep(10)
    return user


async def _the_leader_dies(world):
    """L3: a new leader dispatches within 10 s, and nothing stops."""
    user = await _up(world, web=3, only=1)
    starts = len(world.checks.starts_at)
    world.leading().kill()
    killed = world.loop.now
    await _until(world, lambda: world.leading() is not None, within=10)
    assert len(world.checks.starts_at) == starts, "no container restarts"
    change = asyncio.create_task(
        user.put({"web": Wanted("web", 3, 2), "only": Wanted("only", 1, 1)})
    )
    left = 10 - (world.loop.now - killed)
    await _until(world, lambda: len(world.checks.starts_at) > starts, within=left)
    await change
    world.heal()
    await settles(world, user)


async def _a_node_is_cut_off(world):
    """L2: its replicas run elsewhere within 10 s, its exclusive task within 22 s, never twice."""
    user = await _up(world, web=3, only=1)
    away = _runs_on(world, "shop-only")[0]
    others = [machine for machine in world.agents if machine is not away]
    _cut_off(world, away)
    began = world.loop.now
    await _until(
        world,
        lambda: sum(_runs_on(world, "shop-web").count(each) for each in others) >= 3,
        within=10,
    )
    left = 22 - (world.loop.now - began)
    await _until(
        world, lambda: any(each in others for each in _runs_on(world, "shop-only")), within=left
    )
    await asyncio.sleep(20)
    world.heal()
    await _until(world, lambda: len(_runs_on(world, "shop-web")) == 3, within=30)
    await settles(world, user)


async def _everything_that_decides_is_off_for_long(world):
    """S9: what is not exclusive and movable runs on untouched; what is stops, and comes back."""
    user = await _up(world, web=3, data=1, only=1, each=1)
    before = {
        container.task: container.started_at
        for machine in world.agents
        for container in machine.engine.ours()
        if "shop-only" not in container.task
    }
    for machine in world.schedulers:
        machine.kill()
    await asyncio.sleep(300)  # twenty times a node's lease
    after = {
        container.task: container.started_at
        for machine in world.agents
        for container in machine.engine.ours()
        if container.phase is Phase.RUNNING
    }
    assert after == before
    world.heal()
    await settles(world, user)


async def _most_nodes_fall_silent(world):
    """S21: the exclusive task waits for the operator, and nothing restarts when they are back."""
    user = await _up(world, web=3, only=1)
    for machine in world.agents[:2]:
        _cut_off(world, machine)
    tasks = {task.id for task in world.checks.tasks()}
    await asyncio.sleep(45)
    assert {task.id for task in world.checks.tasks()} == tasks, "the brake is on"
    world.heal()
    await settles(world, user)


async def _the_store_takes_the_key_of_a_leader_that_goes_on(world):
    """S1 also while a leader that was wronged answers a node that its successor cannot hear."""
    user = await _up(world, only=1)
    old = world.leading()
    new = next(machine for machine in world.schedulers if machine is not old)
    away = _runs_on(world, "shop-only")[0]
    world.network.cut(away.name, new.name)
    world.network.cut(new.name, away.name)
    await asyncio.sleep(1.21)
    old.store.cut_requests = old.store.cut_answers = True
    world.store.revoke_all()
    await asyncio.sleep(45)
    world.heal()
    await settles(world, user)


BOUNDS = [
    _the_store_takes_the_key_of_a_leader_that_goes_on,
    _the_leader_dies,
    _a_node_is_cut_off,
    _everything_that_decides_is_off_for_long,
    _most_nodes_fall_silent,
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("story", BOUNDS, ids=[each.__name__.strip("_") for each in BOUNDS])
def test_what_takes_how_long(story, seed):
    verdict = play(seed, acts=story)
    assert not verdict.violations, verdict.words()


# ---------------------------------------------------------------- it can fail


class OneCheckLess(Checks):
    """Without the check that would find a second leader before he does harm."""

    def one_leader(self):
        pass


def test_an_agent_that_obeys_lower_orders_is_found():
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS["obeys_lower_orders"].switch_off(patch)
        MUTATIONS["leads_for_ever"].switch_off(patch)
        verdict = play(1, make_checks=OneCheckLess, acts=_an_old_leader_is_asked_again)
    assert any("S4:" in each for each in verdict.violations), verdict.words()


def test_surplus_that_is_stopped_all_at_once_is_never_gone():
    """As before the reconciler kept the pace that agents' brakes ask for."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Pace, "postpone", lambda self, snapshot, changes, preempted: (changes, [], 0.0)
        )
        verdict = play(1, acts=_a_node_comes_back)
    assert any("L1:" in each and "not removed" in each for each in verdict.violations)
