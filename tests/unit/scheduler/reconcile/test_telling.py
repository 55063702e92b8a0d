"""Events speak of nodes by the names that people gave them, whatever the records say."""

from homeport.model import Volume
from scheduler.cluster import keys
from scheduler.cluster.changes import Delete, Put
from scheduler.reconcile import telling
from tests.builders import World, spec


def placed() -> tuple[World, list[Put]]:
    """A world with a task on pi4, and the changes that placed it."""
    world = World()
    world.add_node("pi4", 1)
    world.apply(spec("web", replicas=1))
    changes, _ = world.decide()
    return world, [change for change in changes if change.key.startswith("tasks/")]


def test_a_placed_task_is_told_with_the_name_of_its_node() -> None:
    world, changes = placed()
    (change,) = changes
    assert change.value.node == "node-pi4"
    event = telling.event_of(change, None, world.tables, 5)
    assert event is not None
    assert (event.reason, event.node, event.at_ms) == ("Placed", "pi4", 5)


def test_a_placed_volume_is_told_with_the_name_of_its_node() -> None:
    world, changes = placed()
    volume = Volume(stack="shop", name="data", node=changes[0].value.node)
    event = telling.event_of(Put(volume, 0, "made here"), None, world.tables, 5)
    assert event is not None
    assert (event.reason, event.node) == ("VolumePlaced", "pi4")


def test_a_removed_node_is_called_by_its_name() -> None:
    world, changes = placed()
    node = world.tables.node(changes[0].value.node)
    world.drop(keys.key_of(node))
    event = telling.event_of(Delete(keys.key_of(node), 1, "removed"), node, world.tables, 5)
    assert event is not None
    assert (event.kind, event.object, event.node) == ("node", "pi4", "pi4")


def test_a_node_that_is_gone_is_told_by_its_id() -> None:
    world, (change,) = placed()
    world.drop("nodes/node-pi4")
    event = telling.event_of(change, None, world.tables, 5)
    assert event is not None
    assert event.node == "node-pi4"
