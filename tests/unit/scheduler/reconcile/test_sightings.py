"""A node is looked at again when something of it changed that anybody goes by."""

from dataclasses import replace

import pytest

from homeport.model import Condition, NodeState, NodeStatus
from scheduler.reconcile.sightings import Sightings, has_come
from tests.builders import World


@pytest.fixture
def world():
    world = World()
    world.add_node("a", 1)
    return world


@pytest.fixture
def sightings(world):
    sightings = Sightings()
    sightings.begin(world.snapshot())
    return sightings


def change(world, **fields):
    world.observed.put_liveness("node-a", replace(world.observed.node("node-a"), **fields))


def test_a_heartbeat_makes_no_difference(world, sightings):
    change(world, last_seen=world.now + 1, last_seen_ms=5, session="another", boot_id="b")
    assert sightings.look(world.snapshot(), "node-a") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"state": NodeState.SUSPECT},
        {"reported": False},
        {"unfenced": "its clock is off"},
        {"status": NodeStatus(conditions=(Condition(name="engine", ok=False, message="gone"),))},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_difference_is_told_once(world, sightings, fields):
    change(world, **fields)
    before, now = sightings.look(world.snapshot(), "node-a")
    assert before.is_ready
    assert not has_come(before, now)
    assert sightings.look(world.snapshot(), "node-a") is None


def test_a_node_comes_when_it_is_seen_ready_and_was_not_before(world, sightings):
    change(world, state=NodeState.DOWN)
    sightings.look(world.snapshot(), "node-a")
    change(world, state=NodeState.READY)
    assert has_come(*sightings.look(world.snapshot(), "node-a"))
    world.add_node("b", 2)
    assert has_come(*sightings.look(world.snapshot(), "node-b")), "nobody has seen it before"
    world.add_node("c", 3, state=NodeState.SUSPECT)
    assert not has_come(*sightings.look(world.snapshot(), "node-c"))
