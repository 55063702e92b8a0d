"""Where it does not suffice that one task makes way: sets, chains and drains."""

from dataclasses import replace
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from homeport.model import Availability, NodeId
from homeport.spec import Constraint, ConstraintOperator
from scheduler.placement import reference, remedies
from scheduler.placement.asks import Placed
from scheduler.placement.remedy import Drain, Kind, Leave, Surroundings
from tests.unit.scheduler.placement.test_remedies import (
    CASES,
    MIB,
    ask_for,
    cluster,
    node,
    occupants_of,
    small,
    tried,
)


def on(name, **needs):
    """What must be on this node."""
    here = Constraint(key="node.hostname", operator=ConstraintOperator.EQ, value=name)
    return {"constraints": (here,), **needs}


def lab(*records, **holders):
    """A cluster with one service for each name: (node, MiB), or (node, MiB, priority)."""
    fleet, known = cluster(*records)
    asks = []
    for name, (where, size, *priority) in holders.items():
        ask = ask_for(name, memory_bytes=size * MIB)
        ask = replace(ask, priority=priority[0] if priority else 0)
        fleet.task_added(ask.task, ask.on(NodeId(where)))
        asks.append(ask)
    return fleet, known, asks


def said(fleet, known, ask, asks, *, rivals=(), leaving=None):
    """What is found, and that nothing is left of it."""
    before = fleet.copy()
    around = Surroundings(
        nodes=known,
        occupants=occupants_of(fleet, asks),
        leaving=leaving or (lambda _: ()),
        rivals=rivals,
    )
    found = remedies.find(fleet, ask, around)
    assert fleet == before
    return found


def leaving_of(fleet, asks):
    """Everybody leaves a node that is drained."""
    return lambda where: [
        (ask.task, replace(ask, n=ask.n + 1))
        for ask in asks
        if ask.task in fleet.held and fleet.held[ask.task].node == where
    ]


def test_two_move_where_one_does_not_suffice():
    fleet, known, asks = lab(
        node("a", memory=500), node("b", memory=450), x=("a", 200), y=("a", 200), z=("a", 90)
    )
    ask = ask_for(**on("a", memory_bytes=400 * MIB))
    first, *_ = said(fleet, known, ask, asks)
    assert (first.kind, first.node) == (Kind.MOVE, "a")
    assert first.message == "move shop/x.1 from a to b, and move shop/y.1 from a to b"
    assert first.commands == (
        "homeport scale shop/x=0",
        "homeport scale shop/y=0",
        "homeport wait shop/web --timeout 60",
        "homeport scale shop/x=1",
        "homeport wait shop/x --timeout 60",
        "homeport scale shop/y=1",
    )


def test_nobody_leaves_who_can_be_spared():
    fleet, known, asks = lab(
        node("a", memory=500),
        node("b", memory=500),
        big=("a", 250),
        **{f"s{number}": ("a", 50) for number in range(5)},
    )
    found = said(fleet, known, ask_for(**on("a", memory_bytes=350 * MIB)), asks)
    moved = [each for each in found if all(isinstance(step, Leave) for step in each.steps)]
    assert moved
    # The big one and two of the small ones; no three small ones are enough.
    for each in moved:
        assert len(each.steps) == 3
        assert f"shop-big-1/1/{1}" in [step.task for step in each.steps]


def test_of_those_that_cannot_all_move_one_is_stopped_and_the_least_important_one():
    fleet, known, asks = lab(
        node("a", memory=500), node("b", memory=240), x=("a", 230, 5), y=("a", 230), z=("b", 10)
    )
    found = said(fleet, known, ask_for(**on("a", memory_bytes=460 * MIB)), asks)
    together = [
        each.message
        for each in found
        if len(each.steps) > 1 and all(isinstance(step, Leave) for step in each.steps)
    ]
    assert together[0] == "stop shop/y.1 on a, and move shop/x.1 from a to b"


def test_what_others_that_wait_would_take_first_is_no_remedy():
    fleet, known, asks = lab(
        node("a", memory=500), node("b", memory=450), x=("a", 200), y=("a", 200), z=("b", 10)
    )
    ask = ask_for(**on("a", memory_bytes=400 * MIB))
    rival = ask_for("small", **on("a", memory_bytes=250 * MIB))
    assert len(said(fleet, known, ask, asks)[0].steps) == 2
    # It is decided later, and takes what the first of the two leaves behind.
    for each in said(fleet, known, ask, asks, rivals=(rival,)):
        assert not any(isinstance(step, Leave) for step in each.steps)


def test_one_moves_to_where_another_makes_room_by_moving_on():
    fleet, known, asks = lab(
        node("a", memory=400),
        node("b", memory=300),
        node("c", memory=150),
        x=("a", 250),
        y=("b", 120),
        z=("b", 10),
    )
    ask = ask_for(**on("a", memory_bytes=380 * MIB))
    first, *_ = said(fleet, known, ask, asks)
    assert first.message == "move shop/x.1 from a to b, and move shop/y.1 from b to c"
    assert first.commands[:4] == (
        "homeport scale shop/x=0",
        "homeport scale shop/y=0",
        "homeport wait shop/web --timeout 60",
        "homeport scale shop/x=1",
    )


def full(**sizes):
    """Node a with as many tasks as there are, and b with room for them all."""
    holders = {name: ("a", size) for name, size in sizes.items()}
    return lab(node("a", memory=500), node("b", memory=450), **holders)


MANY = {f"s{number}": 110 for number in range(4)}
WANTED = ask_for(**on("a", memory_bytes=450 * MIB))


def test_a_node_is_drained_where_more_than_three_stand_in_the_way():
    fleet, known, asks = full(**MANY)
    found = said(fleet, known, WANTED, asks, leaving=leaving_of(fleet, asks))
    (drain,) = (each for each in found if "drain" in each.message)
    assert (drain.kind, drain.node) == (Kind.MOVE, "a")
    assert drain.message == (
        "drain a, which moves shop/s0.1 to b, shop/s1.1 to b, shop/s2.1 to b, shop/s3.1 to b,"
        " and let it take tasks again"
    )
    assert drain.commands == ("homeport drain a --wait", "homeport uncordon a")


@pytest.mark.parametrize(
    "why",
    ["nobody leaves", "its own service's", "paused", "no room elsewhere", "a smaller change does"],
)
def test_a_node_is_not_drained(why):
    sizes = MANY | ({"s4": 20} if why == "no room elsewhere" else {})
    fleet, known, asks = full(**sizes)
    leaving, ask = leaving_of(fleet, asks), WANTED
    if why == "nobody leaves":
        leaving = None
    elif why == "its own service's":
        ask = replace(ask, service=asks[0].service, slot=2)
    elif why == "paused":
        record = replace(known[NodeId("a")], availability=Availability.PAUSE)
        known[NodeId("a")] = record
        fleet.node_changed(record, ready=True)
    elif why == "a smaller change does":
        ask = ask_for(**on("a", memory_bytes=200 * MIB))
    found = said(fleet, known, ask, asks, leaving=leaving)
    assert not any(isinstance(step, Drain) for each in found for step in each.steps)


def test_a_drain_that_comes_off_only_if_the_largest_is_placed_first_is_not_told():
    sizes = {"x": 150, "y": 100, "z": 100, "v": 100}
    holders = {name: ("a", size) for name, size in sizes.items()}

    def drained(*others):
        fleet, known, asks = lab(node("a", memory=500), *others, **holders)
        found = said(fleet, known, WANTED, asks, leaving=leaving_of(fleet, asks))
        return [step for each in found for step in each.steps if isinstance(step, Drain)]

    assert drained(node("b", memory=500))
    # The small ones go to where there is most room, and one of them would take it from the large.
    assert not drained(*(node(name, memory=155) for name in "bcd"), node("e", memory=100))


def test_in_a_drain_one_task_of_a_service_goes_after_the_other():
    fleet, known, _ = lab(node("a", memory=500), node("b", memory=450))
    replicas = [replace(ask_for("web2", memory_bytes=100 * MIB), slot=slot) for slot in range(1, 5)]
    for each in replicas:
        fleet.task_added(each.task, each.on(NodeId("a")))
    found = said(fleet, known, WANTED, [], leaving=leaving_of(fleet, replicas))
    (drain,) = (each for each in found if "drain" in each.message)
    assert "shop/web2.4 to b" in drain.message


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    capacities=st.lists(st.sampled_from((300, 450, 600)), min_size=2, max_size=4),
    wanted=st.lists(small, min_size=4, max_size=8),
    wants=small.map(lambda needs: replace(needs, memory_bytes=needs.memory_bytes + 150 * MIB)),
)
def test_every_remedy_of_several_tasks_makes_the_task_fit(capacities, wanted, wants):
    records = [node(f"n{which}", memory=size) for which, size in enumerate(capacities)]
    fleet, known = cluster(*records)
    batch = [replace(ask_for("abcdefgh"[which]), needs=needs) for which, needs in enumerate(wanted)]
    tried(fleet, known, batch, wants)


def test_a_drain_that_is_told_lets_everybody_go_whoever_stops_first():
    drained = 0
    for seed in range(CASES * 4):
        random = Random(seed)
        names = iter("abcdefghijklmnop")
        records = [node(f"n{which}", memory=600) for which in range(random.randint(2, 4))]
        fleet, known = cluster(*records)
        holders = []
        for each in records:
            left = 600
            while left > 200 and len(holders) < 16:
                size = random.choice((70, 90, 110, 130))
                left -= size
                holders.append(ask_for(next(names), memory_bytes=size * MIB))
                fleet.task_added(holders[-1].task, holders[-1].on(each.id))
        ask = ask_for(memory_bytes=600 * MIB)
        for remedy in said(fleet, known, ask, [], leaving=leaving_of(fleet, holders)):
            for step in (each for each in remedy.steps if isinstance(each, Drain)):
                drained += 1
                assert remedy.node == known[step.node].name
                orders = [*permutations(step.leaving)][:24]
                for order in (*orders, step.leaving[::-1]):
                    is_drained(fleet.copy(), known[step.node], order, ask)
    assert drained > CASES // 10, "too tame"


def is_drained(fleet, record, order, ask):
    """Drain a node by hand, and open it again."""
    fleet.node_changed(replace(record, availability=Availability.DRAIN), ready=True)
    for task, again in order:
        fleet.task_removed(task)
        (answer,) = reference.place(fleet, [again])
        assert isinstance(answer, Placed)
        assert answer.node != record.id
    fleet.node_changed(record, ready=True)
    (answer,) = reference.place(fleet, [ask])
    assert isinstance(answer, Placed)
    assert answer.node == record.id
