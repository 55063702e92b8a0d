"""What shares, counts and wishes are worth: each part of a score, in numbers."""

from dataclasses import replace

import pytest

from homeport.model import NodeId, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Neighbour,
    Preference,
    SpreadRule,
    Strategy,
    TaintEffect,
    Toleration,
    pairs,
)
from scheduler.placement import filters, points, scores, taints
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements
from tests.builders import GIB, node
from tests.placement.drawing import ask_of

UNIT, TASK, SERVICE = 1 << 20, 1 << 14, 1 << 26
WISH = SERVICE // 10
WEB, DB = "shop-web-1", "shop-db-1"


def fleet(*nodes, strategy=Strategy.SPREAD):
    result = Fleet()
    for each in nodes:
        result.node_changed(each, ready=True)
    result.strategy_changed(strategy)
    return result


def put(there, where, service=WEB, *, times=1, slot=1, **needs):
    """So many tasks of a service are on a node already."""
    for number in range(slot, slot + times):
        asked = ask_of(service, Requirements(**needs), number)
        there.task_added(asked.task, asked.on(NodeId(f"node-{where}")))


def parts(there, where, **needs):
    """Of a new task of `web` on a node."""
    asked = ask_of(WEB, Requirements(**needs), 99)
    return dict(scores.parts(there, asked, there.candidates[NodeId(f"node-{where}")]))


def test_few_is_better_up_to_a_count():
    assert [points.few(count) for count in (0, 1, 1022, 1023, 5000)] == [1023, 1022, 1, 0, 0]
    assert points.FULLNESS == UNIT + 1023 * TASK


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        pytest.param(0, 0, (UNIT + UNIT) // 2, id="all is free"),
        pytest.param(1000, 0, (UNIT * 3 // 4 + UNIT) // 2, id="cpu"),
        pytest.param(0, 2 * GIB, (UNIT + UNIT * 3 // 4) // 2, id="memory"),
        pytest.param(4000, 8 * GIB, 0, id="nothing is left"),
        pytest.param(5000, 0, UNIT // 2, id="more than there is"),
    ],
)
def test_room_is_the_mean_of_what_is_free_with_the_task(cpu, memory, expected):
    there = fleet(node("a"))
    assert parts(there, "a", cpu_millis=cpu, memory_bytes=memory)["room"] == expected


def test_room_counts_what_is_reserved():
    there = fleet(node("a"))
    put(there, "a", DB, cpu_millis=1000, memory_bytes=2 * GIB)
    needs, a = Requirements(cpu_millis=500, memory_bytes=GIB), there.candidates[NodeId("node-a")]
    assert points.room(needs, a) == (UNIT * 5 // 8 + UNIT * 5 // 8) // 2


def test_a_node_of_which_nothing_is_known_has_no_room():
    there = fleet(node("a", cpu=0, memory=0))
    assert parts(there, "a")["room"] == 0


def test_tasks_on_the_node_count_and_those_of_the_service_more():
    there = fleet(node("a"))
    put(there, "a", DB, times=3)
    put(there, "a", WEB, times=2)
    assert parts(there, "a") == {
        "same-service": 1021 * SERVICE,
        "room": UNIT,
        "tasks": 1018 * TASK,
    }


def test_packing_turns_room_and_tasks_round_and_leaves_the_service_out():
    there = fleet(node("a"))
    put(there, "a", DB, times=3)
    put(there, "a", WEB, times=2)
    expected = UNIT + 1023 * TASK - UNIT - 1018 * TASK
    assert parts(there, "a", strategy=Strategy.BINPACK) == {"packed": expected}
    there.strategy_changed(Strategy.BINPACK)
    assert parts(there, "a") == {"packed": expected}
    assert "room" in parts(there, "a", strategy=Strategy.SPREAD)


def test_spread_preferences_count_the_service_by_the_value_of_a_label():
    nodes = [node(name, labels={"zone": name[0], "rack": name[1]}) for name in ("ax", "ay", "bx")]
    there = fleet(*nodes, node("cc", labels={"rack": "x"}))
    put(there, "ax", times=2)
    put(there, "bx", times=3, slot=10)
    put(there, "bx", DB)
    put(there, "gone", times=4, slot=20)
    spread = ("node.labels.zone", "node.labels.rack", "node.hostname")

    def preferences(where):
        said = parts(there, where, spread=spread)
        return [said.get(f"spread:{key}") for key in spread]

    assert preferences("ay") == [1021 << 50, 1023 << 40, None]
    assert preferences("bx") == [1020 << 50, 1018 << 40, None]
    assert preferences("cc") == [1023 << 50, 1018 << 40, None]


def test_a_wish_is_worth_its_weight_where_it_holds():
    there = fleet(node("a", labels={"disk": "ssd", "zone": "x"}), node("b"))

    def likes(key, weight):
        return Preference(
            constraint=Constraint(key=f"node.labels.{key}", operator=ConstraintOperator.EXISTS),
            weight=weight,
        )

    liked = (likes("disk", 30), likes("zone", -10))
    assert parts(there, "a", preferences=liked)["preferences"] == 20 * WISH
    assert "preferences" not in parts(there, "b", preferences=liked)


def test_a_taint_to_avoid_costs_and_a_toleration_saves_it():
    kinds = [TaintEffect.AVOID, TaintEffect.AVOID, TaintEffect.REFUSE]
    there = fleet(
        node("a", taints=tuple(Taint(key=key, effect=kind) for key, kind in zip("ghi", kinds)))  # noqa: B905
    )
    assert parts(there, "a")["avoided"] == -200 * WISH
    tolerates = (Toleration(key="g"),)
    assert parts(there, "a", tolerations=tolerates)["avoided"] == -100 * WISH
    assert "avoided" not in parts(there, "a", tolerations=(Toleration(),))


@pytest.mark.parametrize(
    ("there", "tolerations", "expected"),
    [
        ((), (), 0),
        ((TaintEffect.AVOID,), (), 1),
        ((TaintEffect.REFUSE, TaintEffect.EVICT), (), 0),
        ((TaintEffect.AVOID,), (Toleration(effect=TaintEffect.AVOID),), 0),
        ((TaintEffect.AVOID,), (Toleration(effect=TaintEffect.EVICT),), 1),
    ],
)
def test_taints_to_avoid_are_counted(there, tolerations, expected):
    found = [Taint(key="g", effect=effect) for effect in there]
    assert taints.avoided(found, tolerations) == expected


def test_evicting_taints_are_those_that_say_so():
    refuse = Taint(key="g", effect=TaintEffect.REFUSE)
    evict = Taint(key="h", value="1", effect=TaintEffect.EVICT)
    assert taints.evicting((refuse, evict), ()) == evict
    assert taints.evicting((refuse, evict), (Toleration(key="h"),)) is None
    assert taints.evicting((refuse,), ()) is None
    assert [taints.shown(each) for each in (refuse, evict)] == ["g:refuse", "h=1:evict"]


# ---------------------------------------------------------------- groups


def zones(*names):
    """Nodes called like their zone and number; those of zone `-` have none."""
    return fleet(
        *(node(name, labels=pairs({"zone": name[0]} if name[0] != "-" else {})) for name in names)
    )


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


ZONE = "node.labels.zone"


def answers(rule, there, *where, **needs):
    """What a rule says of a new task of `web` on each of these nodes."""
    asked = ask_of(WEB, Requirements(**needs), 99)
    return [
        filters.ALL[rule](there, asked, there.candidates[NodeId(f"node-{name}")]) for name in where
    ]


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
