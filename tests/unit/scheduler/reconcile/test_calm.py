"""Calm means that no concern has anything to say: compared with what the concerns do say."""

import random
from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Move, NodeState, Outcome, Taint
from homeport.spec import Mode, TaintEffect
from scheduler.reconcile import calm, services
from tests.builders import World, spec

NODES = ("a", "b", "c")


def at_rest(replicas=3):
    world = World()
    for number, name in enumerate(NODES, 1):
        world.add_node(name, number)
    service = world.apply(spec("web", replicas=replicas))
    world.rest()
    world.run_all()
    world.rest()
    return world, service


def a_task(world, service, dice):
    return dice.choice(world.tables.tasks_of_service(service))


def a_node(world, dice):
    return dice.choice(world.tables.nodes())


def silent(world, service, dice):
    world.set_state(a_node(world, dice).id, dice.choice((NodeState.SUSPECT, NodeState.DOWN)))


def unknown(world, service, dice):
    world.set_state(a_node(world, dice).id, NodeState.UNKNOWN)


def drained(world, service, dice):
    world.set_availability(a_node(world, dice).id, dice.choice(list(Availability)))


def tainted(world, service, dice):
    taint = Taint(key="dusty", effect=dice.choice(list(TaintEffect)))
    world.put(replace(a_node(world, dice), taints=(taint,)))


def removed(world, service, dice):
    world.drop(f"nodes/{a_node(world, dice).id}")


def reported(world, service, dice):
    task = a_task(world, service, dice)
    world.observed.forget(task.id)
    world.report(task, dice.choice(list(TaskState)))


def ended(world, service, dice):
    task = a_task(world, service, dice)
    state = dice.choice((TaskState.FAILED, TaskState.COMPLETE, TaskState.SHUTDOWN))
    world.put(replace(task, outcome=Outcome(state=state)))


def stopped(world, service, dice):
    task = a_task(world, service, dice)
    world.put(replace(task, desired=dice.choice((Desired.SHUTDOWN, Desired.REMOVED))))


def moved(world, service, dice):
    task = a_task(world, service, dice)
    world.put(replace(task, n=task.n + 1, node=a_node(world, dice).id, moved_ms=1))


def to_be_moved(world, service, dice):
    world.put(replace(a_task(world, service, dice), move=Move(node=a_node(world, dice).id, n=2)))


def gone(world, service, dice):
    world.drop(f"tasks/{a_task(world, service, dice).id}")


def scaled(world, service, dice):
    world.scale(service, dice.randrange(5))


def changed(world, service, dice):
    image = dice.choice(("web", "web:2"))
    world.apply(spec("web", replicas=3, labels=(("image", image),)))


def removing(world, service, dice):
    world.remove(service)


TROUBLES = (silent, unknown, drained, tainted, removed, reported, ended, stopped, moved,
            to_be_moved, gone, scaled, changed, removing)  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_of_a_calm_service_no_concern_says_anything(seed, monkeypatch):
    dice = random.Random(seed)
    world, service = at_rest()
    for trouble in dice.sample(TROUBLES, dice.randrange(3)):
        if world.tables.nodes() and world.tables.tasks_of_service(service):
            trouble(world, service, dice)
        if trouble is not gone and dice.random() < 0.5:
            world.look()
    snapshot = world.snapshot()
    head = world.tables.service(service)
    is_calm = head is not None and calm.is_calm(snapshot, head)
    monkeypatch.setattr(calm, "is_calm", lambda *_: False)
    said = services.decide(snapshot, world.fleet, service)
    if is_calm:
        assert said == services.Decision()


def test_a_service_at_rest_is_calm_also_before_its_agents_have_reported():
    world, service = at_rest()
    head = world.tables.service(service)
    assert calm.is_calm(world.snapshot(), head)
    for task in world.tables.tasks_of_service(service):
        world.observed.forget(task.id)
    assert calm.is_calm(world.snapshot(), head)


@pytest.mark.parametrize(
    "trouble", [silent, removed, ended, stopped, moved, to_be_moved, gone, removing]
)
def test_what_a_concern_has_to_look_at_is_not_calm(trouble):
    world, service = at_rest()
    trouble(world, service, random.Random(1))
    # On which node or of which task is up to the dice: all three have one task each.
    assert not calm.is_calm(world.snapshot(), world.tables.service(service))


def test_jobs_and_global_services_are_never_calm():
    for mode in Mode:
        world = World()
        world.add_node("a", 1)
        service = world.apply(spec("web", mode=mode, replicas=1))
        world.rest()
        is_calm = calm.is_calm(world.snapshot(), world.tables.service(service))
        assert is_calm == (mode is Mode.REPLICATED), mode
