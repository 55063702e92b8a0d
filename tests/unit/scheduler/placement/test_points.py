"""What shares, counts and wishes are worth: each part of a score, in numbers."""

import pytest

from homeport.model import Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Preference,
    Strategy,
    TaintEffect,
    Toleration,
)
from scheduler.placement import points, taints
from scheduler.placement.requirements import Requirements
from tests.builders import GIB, node
from tests.placement.building import DB, WEB, fleet, parts, put

UNIT, TASK, SERVICE = 1 << 20, 1 << 14, 1 << 26
WISH = SERVICE // 10


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
    needs, a = Requirements(cpu_millis=500, memory_bytes=GIB), there.candidates["node-a"]
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
