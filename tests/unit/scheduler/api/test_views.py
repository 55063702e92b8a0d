"""What users are shown of a snapshot."""

import pytest

from homeport.model import Availability, NodeState
from scheduler.api.views import Views
from tests.builders import World, simple_global, spec


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
