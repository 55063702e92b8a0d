"""Stories that the simulation told first: each failed once, under a seed that found it."""

from dataclasses import replace

from homeport.model import NodeState, RolloutState
from homeport.spec import pairs
from scheduler.cluster import keys
from scheduler.reconcile import slots
from tests.builders import World, spec


def edition(number):
    each = spec("web")
    return replace(each, container=replace(each.container, env=pairs({"VERSION": str(number)})))


def test_a_slot_counts_on_though_its_newest_record_is_gone_and_an_older_one_is_left():
    """The older task's node is down: its record stays, and the newest was forgotten."""
    world = World()
    for number, name in enumerate(("a", "b"), start=1):
        world.add_node(name, number)
    service = world.apply(spec("web"))
    world.rest()
    world.run_all()
    first = world.live(service)[0]
    world.set_state(first.node, NodeState.DOWN)
    world.rest()
    world.run_all()
    second = world.live(service)[-1]
    assert (first.n, second.n) == (1, 2)
    world.put(replace(world.tables.service(service), last_n=2))
    world.drop(keys.task(second.id))
    slot = slots.of_service(world.snapshot(), service)[1]
    assert [task.n for task in slot.tasks] == [1]
    assert slots.next_n(world.tables.service(service), slot) == 3


def test_a_rollout_that_a_newer_generation_overtakes_comes_to_an_end():
    """The last old task was being stopped when the next generation came."""
    world = World()
    world.add_node("a", 1)
    service = world.apply(edition(1))
    world.settle(60)
    world.apply(edition(2))
    world.rest()
    assert world.tables.rollout(service).state is RolloutState.UPDATING
    world.apply(edition(3))
    world.settle(60)
    assert [task.generation for task in world.live(service)] == [3]
    rollout = world.tables.rollout(service)
    assert (rollout.generation, rollout.state) == (3, RolloutState.COMPLETED)
