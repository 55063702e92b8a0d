"""Refusals of many nodes: kept as numbers, and to whoever looks the tuple of them."""

from scheduler.cluster.observed import Refusal
from scheduler.placement import engine, reference, words
from scheduler.placement.asks import Ask, Unplaced
from scheduler.placement.refusals import Refusals
from scheduler.placement.requirements import Requirements
from tests.builders import GIB, World, spec

FULL = Requirements(memory_bytes=3 * GIB)


def full_world():
    world = World()
    for number, (name, memory) in enumerate((("a", GIB), ("b", 2 * GIB), ("c", 8 * GIB)), 1):
        world.add_node(name, number, memory=memory)
    world.set_state("node-c", world.observed.node("node-c").state.DOWN)
    return world


def refused(world, slots=1):
    asks = [
        Ask(service="shop-web-1", slot=slot + 1, n=1, generation=1, needs=FULL)
        for slot in range(slots)
    ]
    return [each.refusals for each in engine.place(world.fleet, asks)]


def test_they_are_the_references_tuple():
    (found,) = refused(full_world())
    ask = Ask(service="shop-web-1", slot=1, n=1, generation=1, needs=FULL)
    (expected,) = reference.place(full_world().fleet, [ask])
    assert isinstance(expected, Unplaced)
    assert isinstance(found, Refusals)
    assert found == expected.refusals
    assert expected.refusals == found
    assert hash(found) == hash(expected.refusals)
    assert repr(found) == repr(expected.refusals)
    assert list(found) == list(expected.refusals)
    assert len(found) == 3
    assert (
        found[0]
        == found[-3]
        == Refusal(node="node-a", rule="memory", needed=str(3 * GIB), had=str(GIB))
    )
    assert found[1:] == expected.refusals[1:]
    assert found != expected.refusals[1:]
    assert found != expected.refusals[::-1]
    assert found != "memory"


def test_they_are_counted_by_rule_and_said_as_those_of_a_tuple():
    (found,) = refused(full_world())
    assert found.counts == {"memory": 2, "ready": 1}
    assert words.summary(found) == words.summary(tuple(found))
    assert words.summary(found) == "none of 3 nodes will do: 2 lack memory, 1 is not ready"


def test_all_asks_of_a_kind_share_one():
    found = refused(full_world(), slots=3)
    assert all(each is found[0] for each in found)


def test_they_say_what_was_so_when_they_were_made():
    world = full_world()
    (found,) = refused(world)
    service = world.apply(spec("x", memory=GIB))
    engine.place(
        world.fleet,
        [Ask(service=service, slot=1, n=1, generation=1, needs=Requirements(memory_bytes=GIB))],
    )
    world.set_state("node-c", world.observed.node("node-a").state)
    assert [each.had for each in found] == [str(GIB), str(2 * GIB), ""]
    assert [each.rule for each in found] == ["memory", "memory", "ready"]


def test_where_there_are_no_nodes_there_are_no_refusals():
    (found,) = refused(World())
    assert not found
    assert list(found) == []
    assert words.summary(found) == words.summary(())
