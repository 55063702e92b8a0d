"""What users are shown of a snapshot."""

from dataclasses import replace

import pytest

from homeport.model import Availability, NodeState
from scheduler.api.views import Views
from tests.builders import World, simple_global, spec, volume_mount


@pytest.fixture
def world() -> World:
    world = World()
    for number, name in enumerate(("a", "b", "c"), start=1):
        world.add_node(name, number)
    return world


def shown(world: World, service_id):
    return Views(world.snapshot()).service(world.tables.service(service_id))


def test_a_global_service_without_a_task_yet_is_not_complete(world: World) -> None:
    """Or `apply --wait` would return before anything ran."""
    view = shown(world, world.apply(simple_global("agent")))
    assert (view.desired, view.running) == (3, 0)


def test_a_node_that_takes_no_tasks_now_is_not_counted_for_a_global_service(world: World) -> None:
    world.set_state("node-a", NodeState.DOWN)
    world.set_availability("node-b", Availability.PAUSE)
    assert shown(world, world.apply(simple_global("agent"))).desired == 1


def test_a_replicated_service_is_meant_to_have_its_replicas(world: World) -> None:
    view = shown(world, world.apply(spec("web"), replicas=2))
    assert (view.desired, view.running) == (2, 0)


def test_a_task_on_a_node_that_is_down_is_unknown_and_does_not_count_as_running() -> None:
    world = World()
    node = world.add_node("a", 1)
    service = world.apply(spec("db", mounts=(volume_mount("data"),)), replicas=1)
    world.settle(40)
    assert shown(world, service).running == 1
    world.set_state(node, NodeState.DOWN)
    world.pass_time(75)
    (task,) = world.tables.tasks_of_service(service)
    view = Views(world.snapshot()).task(task)
    assert view.unknown
    assert "waits for node a, which is down since" in view.status.message
    assert "(75 s ago)" in view.status.message
    assert shown(world, service).running == 0


def test_a_node_that_gets_no_exclusive_task_says_so_as_a_condition(world: World) -> None:
    seen = world.observed.node("node-a")
    world.observed.put_liveness("node-a", replace(seen, unfenced="its clock is off"))
    view = Views(world.snapshot()).node(world.tables.node("node-a"))
    (condition,) = view.status.conditions
    assert (condition.name, condition.ok, condition.message) == (
        "fencing",
        False,
        "its clock is off",
    )
