"""S21: nothing moves while most of the cluster fell silent at once."""

import itertools

import pytest

from homeport.model import Inventory, NodeState
from scheduler.cluster.observed import Brake, Liveness
from scheduler.config import Timers
from scheduler.reconcile import brake
from scheduler.reconcile.brake import Watched
from tests.builders import World, node

NOW = 1000.0


def watched(total, silent, *, seen=NOW - 6, **fields):
    """`total` nodes of which the first `silent` fell silent, all at once."""
    return [
        Watched(
            node=f"n{number:02}",
            name=f"n{number:02}",
            last_seen=seen if number < silent else NOW - 0.5,
            is_silent=number < silent,
            **fields,
        )
        for number in range(total)
    ]


def decide(nodes, before=None, now=NOW):
    return brake.decide(before, nodes, now, 0)


@pytest.mark.parametrize(
    ("total", "silent"), [(n, k) for n in range(13) for k in range(n + 1)], ids=lambda n: f"{n}"
)
def test_s21_it_is_on_for_two_of_up_to_four_and_from_55_percent_on(total, silent):
    expected = silent >= 2 and (total <= 4 or silent / total >= 0.55)
    assert (decide(watched(total, silent)) is not None) is expected


def test_s21_what_fell_silent_more_than_half_a_minute_apart_fell_by_itself():
    nodes = watched(4, 1, seen=NOW - 40) + watched(4, 1)[:1]
    nodes[4:] = [Watched(node="x", name="x", last_seen=NOW - 6, is_silent=True)]
    assert decide(nodes) is None
    nodes[4:] = [Watched(node="x", name="x", last_seen=NOW - 11, is_silent=True)]
    nodes[1:4] = nodes[1:3]
    assert decide(nodes) is not None


def test_s21_a_node_that_has_been_silent_for_more_than_a_minute_is_not_counted():
    assert decide(watched(3, 2, seen=NOW - 61)) is None
    assert decide(watched(3, 2, seen=NOW - 59)) is not None


def test_s21_it_is_on_when_every_node_but_the_leaders_own_fell_silent_however_far_apart():
    nodes = [
        Watched(node="own", name="own", last_seen=NOW, is_silent=False, is_own_host=True),
        Watched(node="a", name="a", last_seen=NOW - 50, is_silent=True),
        Watched(node="b", name="b", last_seen=NOW - 6, is_silent=True),
    ]
    assert decide(nodes) is not None
    assert decide(nodes[:2]) is None  # there are not three
    assert (
        decide([Watched(node="own", name="own", last_seen=NOW, is_silent=False), *nodes[1:]])
        is None
    )


def test_it_stays_on_for_those_that_it_was_put_on_for_also_after_a_minute():
    on = decide(watched(4, 2))
    later = [
        Watched(node=each.node, name=each.name, last_seen=each.last_seen, is_silent=each.is_silent)
        if each.is_silent
        else Watched(node=each.node, name=each.name, last_seen=NOW + 600, is_silent=False)
        for each in watched(4, 2)
    ]
    still = decide(later, on, NOW + 600)
    assert still is on
    assert decide(later, None, NOW + 600) is None  # a new one would not begin


@pytest.mark.parametrize("gone", ["back", "lost or removed"])
def test_it_goes_off_when_enough_are_back_or_lost_by_the_operators_word(gone):
    on = decide(watched(4, 2))
    nodes = watched(4, 1) if gone == "back" else watched(4, 2)[1:]
    assert decide(nodes, on, NOW + 30) is None


def test_a_node_that_falls_silent_while_it_is_on_joins_those_that_it_is_on_for():
    on = decide(watched(4, 2))
    more = decide(watched(4, 3), on, NOW + 1)
    assert more.silent == ("n00", "n01", "n02")
    assert more.since == on.since
    assert "3 of 4 nodes" in more.cause


def test_nodes_that_this_leader_never_heard_hold_it_for_a_minute_only():
    never = watched(4, 3, seen=NOW - 17, was_heard=False)
    on = decide(never)
    assert "have not been heard of since this scheduler leads" in on.cause
    assert decide(never, on, NOW + 59) is not None
    assert decide(never, on, NOW + 61) is None


def test_replicas_are_held_for_a_minute():
    on = Brake(since=NOW, since_ms=0, silent=(), counted=(), cause="")
    assert brake.holds_replicas(on, NOW + 59.9)
    assert not brake.holds_replicas(on, NOW + 60)


def test_the_order_of_nodes_changes_nothing():
    nodes = watched(5, 3)
    first = decide(nodes)
    for order in itertools.permutations(nodes):
        assert decide(list(order)) == first


def world_of(**liveness):
    world = World()
    for name, fields in liveness.items():
        node_id = world.add_node(name)
        world.observed.put_liveness(
            node_id, Liveness(**({"last_seen": world.now, "last_seen_ms": 1} | fields))
        )
    return world


@pytest.mark.parametrize(
    ("fields", "is_silent"),
    [
        ({"state": NodeState.READY}, False),
        ({"state": NodeState.READY, "last_seen": 1000.0 - 3.6}, True),
        ({"state": NodeState.READY, "last_seen": 1000.0 - 3.6, "restarting": True}, False),
        ({"state": NodeState.UNKNOWN, "last_seen": 1000.0 - 10}, False),
        ({"state": NodeState.SUSPECT, "last_seen": 1000.0 - 6}, True),
        ({"state": NodeState.DOWN, "last_seen": 1000.0 - 20}, True),
        ({"state": NodeState.SUSPECT, "last_seen": 1000.0, "leaving": True}, None),
    ],
)
def test_who_is_silent_who_is_excused_and_who_is_not_counted(fields, is_silent):
    world = world_of(a=fields)
    found = brake.watched(world.snapshot(), Timers(), "")
    assert [each.is_silent for each in found] == ([] if is_silent is None else [is_silent])


def test_between_two_heartbeats_no_node_is_silent_however_short_suspicion_is():
    world = world_of(a={"state": NodeState.READY, "last_seen": 1000.0 - 1.2})
    timers = Timers(suspect_seconds=2.0)
    assert [each.is_silent for each in brake.watched(world.snapshot(), timers, "")] == [False]


def test_a_node_that_is_lost_by_the_operators_word_is_not_counted():
    world = World()
    world.put(node("a", lost_ms=5))
    assert brake.watched(world.snapshot(), Timers(), "") == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("pi:7070", True),
        ("pi4.lan:1", True),
        ("10.0.0.4:1", True),
        ("[fe80::1]:1", True),
        ("other:7070", False),
        ("", False),
    ],
)
def test_the_leaders_own_host_is_known_by_name_or_address(address, expected):
    inventory = Inventory(hostname="pi4.lan", addresses=("10.0.0.4", "fe80::1"))
    assert brake.is_own_host(node("pi", inventory=inventory), address) is expected


def test_a_change_of_the_brake_is_told_once_and_it_is_judged_each_second_while_it_is_on():
    silent = {"state": NodeState.DOWN, "last_seen": 1000.0 - 18}
    world = world_of(a=silent, b=silent, c={"state": NodeState.READY})
    braking = brake.Braking("")
    event = braking.judge(world.snapshot(), Timers())
    assert event.reason == "BrakeOn"
    on = world.observed.brake
    assert on.silent == ("node-a", "node-b")
    assert braking.due_at == world.now + brake.AGAIN_SECONDS
    world.pass_time(1)
    assert braking.judge(world.snapshot(), Timers()) is None
    assert world.observed.brake is on
    assert braking.due_at == world.now + brake.AGAIN_SECONDS
    for name in ("node-a", "node-b"):
        world.set_state(name, NodeState.READY)
    assert braking.judge(world.snapshot(), Timers()).reason == "BrakeOff"
    assert world.observed.brake is None
    assert braking.due_at == 0


def test_the_leader_knows_its_own_node_by_its_address():
    silent = {"state": NodeState.DOWN, "last_seen": 1000.0 - 18}
    earlier = silent | {"last_seen": 1000.0 - 50}
    world = world_of(own={"state": NodeState.READY}, a=silent, b=earlier, c=silent, d=silent)
    for name in "cd":
        world.drop(f"nodes/node-{name}")
    assert brake.Braking("").judge(world.snapshot(), Timers()) is None
    assert brake.Braking("own:7070").judge(world.snapshot(), Timers()).reason == "BrakeOn"
