"""Rules about groups of nodes: what they refuse, in which words, and what they are worth."""

from dataclasses import replace

import pytest

from homeport.spec import Neighbour, SpreadRule
from scheduler.placement import engine, reference
from scheduler.placement.asks import Placed
from scheduler.placement.points import WISH
from scheduler.placement.requirements import Requirements
from tests.builders import GIB, node
from tests.placement.building import DB, WEB, ZONE, answers, parts, put, zones
from tests.placement.drawing import ask_of


def groups_of(there, where, **needs):
    return parts(there, where, **needs).get("groups", 0)


def test_a_soft_spread_rule_costs_by_the_difference_to_the_emptiest():
    there = zones("a1", "b1", "c1", "-1")
    put(there, "a1", times=5)
    put(there, "b1", times=2, slot=10)
    put(there, "c1", times=1, slot=20)
    rule = (SpreadRule(key="node.labels.zone", weight=3),)
    costs = {where: groups_of(there, where, spread_rules=rule) for where in ("a1", "b1", "c1")}
    assert costs == {"a1": -12 * WISH, "b1": -3 * WISH, "c1": 0}
    assert groups_of(there, "-1", spread_rules=rule) == -300 * WISH


def test_a_hard_spread_rule_gives_no_points():
    there = zones("a1", "b1")
    put(there, "a1", times=2)
    assert groups_of(there, "a1", spread_rules=(SpreadRule(key="node.labels.zone"),)) == 0


def test_differences_of_more_than_a_hundred_weigh_the_same():
    there = zones("a1", "b1")
    put(there, "a1", times=140)
    rule = (SpreadRule(key="node.labels.zone", weight=2),)
    assert groups_of(there, "a1", spread_rules=rule) == -200 * WISH


def test_domains_that_take_nothing_new_are_not_compared():
    there = zones("a1", "b1")
    there.node_changed(node("c1", labels={"zone": "c"}), ready=False)
    put(there, "a1", times=3)
    put(there, "b1", times=2, slot=10)
    rule = (SpreadRule(key="node.labels.zone", weight=1),)
    assert groups_of(there, "a1", spread_rules=rule) == -1 * WISH
    # Fewer than the emptiest that counts is no gain.
    assert groups_of(there, "c1", spread_rules=rule) == 0


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        pytest.param(False, {"a1": 7, "a2": 7, "b1": 0, "-1": 0}, id="near: once"),
        pytest.param(True, {"a1": -21, "a2": -21, "b1": 0, "-1": 0}, id="apart: for each"),
    ],
)
def test_neighbours_are_liked_or_not(apart, expected):
    there = zones("a1", "a2", "b1", "-1")
    put(there, "a1", DB, times=2)
    put(there, "a2", DB, slot=10)
    put(there, "-1", DB, slot=20)
    rule = (Neighbour(service="shop/db", key="node.labels.zone", apart=apart, weight=7),)
    found = {where: groups_of(there, where, neighbours=rule) for where in expected}
    assert found == {where: weight * WISH for where, weight in expected.items()}


def test_more_than_a_hundred_neighbours_weigh_the_same():
    there = zones("a1")
    put(there, "a1", DB, times=130)
    rule = (Neighbour(service="shop/db", key="node.labels.zone", apart=True, weight=1),)
    assert groups_of(there, "a1", neighbours=rule) == -100 * WISH


def test_neighbours_can_be_told_by_a_label():
    there = zones("a1", "b1")
    put(there, "a1", DB, labels=(("tier", "back"),))
    put(there, "b1", DB, slot=10)
    rule = (Neighbour(label="tier=back", key="node.labels.zone", weight=7),)
    assert groups_of(there, "a1", neighbours=rule) == 7 * WISH
    assert groups_of(there, "b1", neighbours=rule) == 0


def test_near_and_apart_say_what_there_is():
    there = zones("a1", "b1", "-1")
    put(there, "a1", DB)
    near, apart = (Neighbour(service="shop/db", key=ZONE, apart=apart) for apart in (False, True))
    assert answers("neighbour", there, "a1", "b1", "-1", neighbours=(near,)) == [
        None,
        ("near shop/db", f"{ZONE} b"),
        ("near shop/db", f"{ZONE} "),
    ]
    assert answers("neighbour", there, "a1", "b1", "-1", neighbours=(apart,)) == [
        ("apart shop/db", f"{ZONE} a"),
        None,
        None,
    ]
    label = Neighbour(label="tier=back", key=ZONE)
    assert answers("neighbour", there, "a1", neighbours=(label,)) == [
        ("near tier=back", f"{ZONE} a")
    ]


def test_the_first_of_those_that_must_be_together_may_be_anywhere_with_the_label():
    there = zones("a1", "b1", "-1")
    itself = (Neighbour(service="shop/web", key=ZONE),)
    assert answers("neighbour", there, "a1", "-1", neighbours=itself) == [
        None,
        ("near shop/web", f"{ZONE} "),
    ]
    put(there, "b1")
    assert answers("neighbour", there, "a1", "b1", neighbours=itself) == [
        ("near shop/web", f"{ZONE} a"),
        None,
    ]


def test_who_came_first_keeps_the_other_away():
    there = zones("a1", "b1", "-1")
    rule = Neighbour(service="shop/web", key=ZONE, apart=True)
    put(there, "a1", DB, neighbours=(rule,))
    put(there, "-1", DB, slot=10, neighbours=(rule,))
    assert answers("neighbour", there, "a1", "b1", "-1") == [
        ("opposed shop/web", f"{ZONE} a"),
        None,
        None,
    ]
    soft = zones("a1")
    put(soft, "a1", DB, neighbours=(replace(rule, weight=5),))
    assert answers("neighbour", soft, "a1") == [None]


def test_a_hard_spread_rule_says_by_how_much():
    there = zones("a1", "b1", "-1")
    put(there, "a1", times=2)
    rule = SpreadRule(key=ZONE, max_skew=2)
    assert answers("spread", there, "a1", "b1", "-1", spread_rules=(rule,)) == [
        (f"{ZONE} 2", "a 2 0"),
        None,
        (ZONE, ""),
    ]
    assert answers("spread", there, "a1", spread_rules=(replace(rule, max_skew=3),)) == [None]
    assert answers("spread", there, "a1", spread_rules=(replace(rule, weight=5),)) == [None]


@pytest.mark.parametrize("place", [engine.place, reference.place])
def test_who_waits_for_another_is_asked_again_in_the_same_batch(place):
    there = zones("a1", "b1")
    near = Neighbour(service="shop/db", key=ZONE)
    web = Requirements(memory_bytes=GIB, neighbours=(near,))
    asks = [
        ask_of("shop-huge-1", Requirements(memory_bytes=99 * GIB), 1),
        ask_of(WEB, web, 1),
        ask_of(WEB, web, 2),
        ask_of(DB, Requirements(cpu_millis=5), 1),
        ask_of("shop-moon-1", Requirements(node="moon"), 1),
    ]
    answered = place(there, asks)
    assert [each.ask.service for each in answered] == [each.service for each in asks]
    assert [isinstance(each, Placed) for each in answered] == [False, True, True, True, False]
    assert {each.node[5] for each in answered[1:4]} == {"a"}
