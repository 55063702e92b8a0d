"""A node is drained, tainted or paused: which tasks leave it, how many at a time, which stay."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired
from homeport.model import Availability, Cause, Taint
from homeport.spec import Mode, PlacementSpec, TaintEffect, Toleration
from scheduler.reconcile import planning
from tests.builders import GIB, spec, volume_mount, world_of
from tests.unit.scheduler.reconcile.stories import newest, running


def test_a_drained_node_gives_up_one_slot_of_a_service_at_a_time():
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=4))
    world.set_availability("node-a", Availability.DRAIN)
    steps = []
    for _ in range(12):
        world.rest()
        steps.append(len(world.live(service)))
        world.run_all()
    assert min(steps) == 3
    assert {task.node for task in world.live(service)} == {"node-b"}


def test_a_task_that_no_other_node_takes_stays_on_the_drained_one():
    world = world_of("a")
    world.add_node("b", 2, memory=GIB)
    service = running(world, spec("web", memory=2 * GIB))
    world.set_availability("node-a", Availability.DRAIN)
    world.settle(40)
    assert newest(world, service).n == 1
    assert newest(world, service).desired is Desired.RUNNING


def test_a_pinned_task_stays_on_the_drained_node():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.set_availability("node-a", Availability.DRAIN)
    world.settle(40)
    assert newest(world, service).n == 1


def tainted(world, name, effect):
    """Give a node a taint."""
    record = world.tables.node(f"node-{name}")
    world.put(replace(record, taints=(Taint(key="gpu", effect=effect),)))


def test_an_evicting_taint_sends_tasks_away_one_slot_of_a_service_at_a_time():
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=4))
    tainted(world, "a", TaintEffect.EVICT)
    steps = []
    for _ in range(12):
        world.rest()
        steps.append(len(world.live(service)))
        world.run_all()
    assert min(steps) == 3
    assert {task.node for task in world.live(service)} == {"node-b"}
    sent_away = [change.value for change in world.log if "the taint gpu:evict" in change.reason]
    assert {task.cause for task in sent_away} == {Cause.OPERATOR}


@pytest.mark.parametrize("effect", [TaintEffect.AVOID, TaintEffect.REFUSE])
def test_other_taints_leave_tasks_where_they_are(effect):
    world = world_of("a", "b")
    services = running(world, spec("web", replicas=2), spec("mon", mode=Mode.GLOBAL))
    before = [world.live(service) for service in services]
    tainted(world, "a", effect)
    world.settle(60)
    assert [world.live(service) for service in services] == before


def test_what_tolerates_a_taint_stays_and_what_no_other_node_takes_does_too():
    world = world_of("a")
    tolerant = PlacementSpec(tolerations=(Toleration(key="gpu"),))
    services = running(world, spec("web", placement=tolerant), spec("api"))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert [newest(world, service).n for service in services] == [1, 1]
    world.add_node("b", 2)
    world.settle(60)
    assert [world.nodes_of(service) for service in services] == [["a"], ["b"]]


def test_a_global_service_leaves_a_node_that_evicts_it_and_comes_back():
    world = world_of("a", "b")
    service = running(world, spec("mon", mode=Mode.GLOBAL))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert world.nodes_of(service) == ["b"]
    assert not world.observed.waiting.get(service)
    world.put(replace(world.tables.node("node-a"), taints=()))
    world.settle(60)
    assert sorted(world.nodes_of(service)) == ["a", "b"]


def test_a_pinned_task_stays_and_says_why():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert newest(world, service).n == 1
    explained = planning.explain(world.snapshot(), service, [1])[0]
    assert explained.reason == (
        "it stays, though node a has the taint gpu:evict, which it does not tolerate: its data is"
        " there, and a pinned task does not move"
    )


def test_a_paused_node_keeps_what_it_has():
    world = world_of("a", "b")
    services = running(world, spec("web"), spec("mon", mode=Mode.GLOBAL))
    world.set_availability("node-a", Availability.PAUSE)
    world.settle(40)
    assert [len(world.live(service)) for service in services] == [1, 2]
