"""Events speak of nodes by the names that people gave them, whatever the records say."""

from dataclasses import replace

from homeport.lifecycle import Desired
from homeport.model import Cause, Event, Move, NodeId, Volume
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


def _events(count: int, service: str) -> list[Event]:
    return [
        Event(kind="task", object=f"{service}/{slot}/1", reason="Placed", message=f"because {slot}")
        for slot in range(1, count + 1)
    ]


def test_the_log_names_each_of_a_few_decisions() -> None:
    said = telling.lines(_events(telling.LINES_MAX, "shop-web-1"))
    assert len(said) == telling.LINES_MAX
    assert said[1] == telling.Line("Placed", "shop-web-1/2/1", "because 2")


def test_of_many_decisions_the_log_has_a_line_for_each_service_and_reason() -> None:
    stack = Event(kind="stack", object="old", reason="Removed", message="empty")
    events = [*_events(telling.LINES_MAX, "shop-web-1"), stack, *_events(2, "shop-db-1")]
    assert telling.lines(events) == [
        telling.Line("Placed", "shop-web-1", "because 1", telling.LINES_MAX),
        telling.Line("Removed", "old", "empty"),
        telling.Line("Placed", "shop-db-1", "because 1", 2),
    ]


def test_a_task_that_is_to_move_and_one_that_stays_after_all_are_told() -> None:
    world, (change,) = placed()
    still = change.value
    marked = replace(
        still, move=Move(node=NodeId("node-pi5"), n=2, reason="node pi5 has more room")
    )
    for old, new, reason in ((still, marked, "Moving"), (marked, still, "MoveDropped")):
        event = telling.event_of(Put(new, 1, "why"), old, world.tables, 5)
        assert event is not None
        assert (event.reason, event.object, event.message) == (reason, still.id, "why")
    assert telling.event_of(Put(marked, 1, "why"), marked, world.tables, 5) is None


def test_a_task_that_ends_to_make_room_is_told_as_that_and_no_other_change_is() -> None:
    world, (change,) = placed()
    first = change.value
    ended = [
        replace(first, slot=slot, desired=Desired.REMOVED, cause=Cause.RECONCILER)
        for slot in (1, 2)
    ]
    before = {keys.key_of(each): replace(each, desired=Desired.RUNNING) for each in ended}
    kept = Volume(stack="shop", name="data", node=first.node)
    before[keys.key_of(kept)] = kept
    changes = [Put(each, 1, "because") for each in (*ended, kept)]
    events = telling.events_of(changes, before, {keys.key_of(ended[0])}, world.tables, 5)
    assert [(each.reason, each.object) for each in events] == [
        (telling.PREEMPTED, ended[0].id),
        ("Removing", ended[1].id),
    ]
