"""Runs that are longer than what the random cases of `test_equal` ask: the same answers there."""

import pytest

from homeport.model import Inventory, Node, NodeId
from homeport.spec import Neighbour, Resources, SpreadRule, Strategy, pairs
from scheduler.placement import engine, reference, runs
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements

ZONE = "node.labels.zone"


def fleet_of(*zones):
    """A node for each (zone, tasks of a tenth of a core that it has room for)."""
    fleet = Fleet()
    for which, (zone, room) in enumerate(zones):
        capacity = Resources(cpu_millis=100 * room, memory_bytes=1 << 30, generic=(("stick", "9"),))
        node = Node(
            id=NodeId(f"node-{which}"),
            name=f"node-{which}",
            number=which,
            labels=pairs({"zone": zone}),
            inventory=Inventory(
                hostname="host",
                os="linux",
                architecture="x86_64",
                capacity=capacity,
                drivers=("DOCKER",),
            ),
        )
        fleet.node_changed(node, ready=True)
    return fleet


def placed_alike(zones, needs, *lengths):
    """How many were placed, by both ways, batch after batch."""
    plain, fast = fleet_of(*zones), fleet_of(*zones)
    first, placed = 1, 0
    for length in lengths:
        batch = [
            Ask(service="shop-web-1", slot=slot, n=1, generation=1, needs=needs)
            for slot in range(first, first + length)
        ]
        answers = engine.place(fast, batch)
        assert answers == reference.place(plain, batch)
        placed += sum(isinstance(each, Placed) for each in answers)
        first += length
    assert fast == plain
    return placed


@pytest.mark.parametrize("strategy", Strategy)
def test_two_nodes_take_more_tasks_than_are_looked_at_together(strategy):
    needs = Requirements(cpu_millis=100, strategy=strategy)
    zones = (("a", runs.BLOCK - 100), ("a", 400))
    assert placed_alike(zones, needs, runs.BLOCK, 200) == runs.BLOCK + 200


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("cpu", [0, 1])
def test_counts_beyond_what_is_scored_too(strategy, cpu):
    needs = Requirements(cpu_millis=cpu, strategy=strategy)
    assert placed_alike((("a", 30), ("a", 40), ("b", 50)), needs, 3300, 100) == 3400


def test_a_domain_that_takes_most_of_a_long_run():
    needs = Requirements(cpu_millis=100, spread=(ZONE,))
    zones = (("a", 2), ("b", 1), ("c", 300), ("c", 200), ("c", 300), ("d", 1))
    assert placed_alike(zones, needs, 400, 500) == 804


@pytest.mark.parametrize("strategy", Strategy)
def test_a_skew_that_holds_a_domain_back_until_another_has_caught_up(strategy):
    rules = (SpreadRule(key=ZONE, max_skew=3),)
    needs = Requirements(cpu_millis=100, spread_rules=rules, strategy=strategy)
    zones = (("a", 500), ("b", 40), ("b", 30), ("c", 100), ("c", 7))
    assert placed_alike(zones, needs, 190, 200) == 216


def test_a_generic_resource_limits_a_run():
    needs = Requirements(cpu_millis=100, generic=(("stick", 2),))
    assert placed_alike((("a", 50), ("a", 3), ("b", 50)), needs, 9, 30) == 11


def test_tasks_of_another_class_of_the_service_count_too():
    plain, fast = fleet_of(("a", 100), ("b", 110)), fleet_of(("a", 100), ("b", 110))
    for first, cpu in ((1, 100), (31, 200), (61, 100), (91, 200)):
        batch = [
            Ask(
                service="shop-web-1",
                slot=slot,
                n=1,
                generation=cpu,
                needs=Requirements(cpu_millis=cpu, tasks_per_node_max=70),
            )
            for slot in range(first, first + 30)
        ]
        answers = engine.place(fast, batch)
        assert answers == reference.place(plain, batch)
        assert fast == plain
    undone = [each for each in answers if isinstance(each, Placed)]
    assert undone
    for each in undone:
        engine.undo(fast, each)
        engine.undo(plain, each)
    assert fast == plain == fast.copy()


def near_and_apart(rules, zones, *batches):
    """The run of a service with these rules, after the others' batches: how many were placed."""
    plain, fast = fleet_of(*zones), fleet_of(*zones)
    for service, count, neighbours in (*batches, ("web", 40, rules)):
        needs = Requirements(cpu_millis=100, neighbours=neighbours)
        batch = [
            Ask(
                service=f"shop-{service}-1",
                name=f"shop/{service}",
                slot=slot,
                n=1,
                generation=1,
                needs=needs,
            )
            for slot in range(1, count + 1)
        ]
        answers = engine.place(fast, batch)
        assert answers == reference.place(plain, batch)
        assert fast == plain
        assert fast.tallies.opposing("name:shop/db") == plain.tallies.opposing("name:shop/db")
    return sum(isinstance(each, Placed) for each in answers)


ROOMY = (("a", 30), ("a", 20), ("b", 50), ("c", 4), ("c", 60))
NODE = "node.id"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((Neighbour(service="shop/db", key=ZONE, apart=True),), 40),
        ((Neighbour(service="shop/db", key=ZONE),), 40),
        ((Neighbour(service="shop/db", key=ZONE, weight=30),), 40),
        ((Neighbour(service="shop/db", key=ZONE, weight=30, apart=True),), 40),
        ((Neighbour(service="shop/web", key=NODE, apart=True),), 5),
        ((Neighbour(service="shop/web", key=ZONE, apart=True),), 3),
        ((Neighbour(service="shop/web", key=ZONE),), 40),
        ((Neighbour(service="shop/web", key=ZONE, weight=5),), 40),
        (
            (
                Neighbour(service="shop/web", key=NODE, apart=True),
                Neighbour(service="shop/db", key=ZONE, apart=True),
            ),
            3,
        ),
    ],
)
def test_runs_near_and_apart_of_others_and_of_their_own(rules, expected):
    assert near_and_apart(rules, ROOMY, ("db", 1, ())) == expected


def test_a_run_that_others_are_apart_from():
    lonely = (Neighbour(service="shop/web", key=ZONE, apart=True),)
    assert near_and_apart((), ROOMY, ("db", 1, lonely)) == 40


def test_a_run_of_tasks_that_others_must_be_apart_from_is_remembered():
    rules = (Neighbour(service="shop/db", key=ZONE, apart=True),)
    plain, fast = fleet_of(*ROOMY), fleet_of(*ROOMY)
    for service, count, neighbours in (("web", 20, rules), ("db", 3, ())):
        needs = Requirements(cpu_millis=100, neighbours=neighbours)
        batch = [
            Ask(
                service=f"shop-{service}-1",
                name=f"shop/{service}",
                slot=slot,
                n=1,
                generation=1,
                needs=needs,
            )
            for slot in range(1, count + 1)
        ]
        assert engine.place(fast, batch) == reference.place(plain, batch)
