"""The tasks of a service by slot: few or many, near or far, one or several in a slot."""

import random

import pytest

from homeport.model import NodeId, ServiceId, Task, TaskId, task_id
from scheduler.cluster.slots import NEAR_MAX, Slots
from scheduler.cluster.tables import Tables

WEB = ServiceId("shop-web-1")


def task(slot: int, n: int = 1) -> Task:
    return Task(service=WEB, slot=slot, n=n, node=NodeId("a"), generation=1)


@pytest.mark.parametrize("slot", [1, 1_000, NEAR_MAX - 1, NEAR_MAX, 1 << 40, 0, -1])
def test_every_number_is_a_slot(slot: int) -> None:
    slots, one = Slots(), task(slot)
    slots.put(one, 7)
    assert slots.find(slot, one.id) is one
    assert slots.version(one) == 7
    assert slots.of(slot) == slots.all() == list(slots) == [one]
    slots.drop(one)
    assert slots.count == 0
    assert slots.find(slot, one.id) is None
    assert slots.of(slot) == slots.all() == list(slots) == []


def test_each_task_of_a_slot_keeps_its_own_version() -> None:
    slots, old, new = Slots(), task(3, 1), task(3, 2)
    slots.put(new, 9)
    slots.put(old, 5)
    assert slots.of(3) == [old, new]
    assert [slots.version(each) for each in (old, new)] == [5, 9]
    slots.drop(new)
    assert slots.version(old) == 5
    assert slots.find(3, new.id) is None


def test_whatever_comes_and_goes_they_hold_what_a_dictionary_holds() -> None:
    dice = random.Random(1)
    slots, known = Slots(), dict[tuple[int, int], tuple[Task, int]]()
    for version in range(1, 2_000):
        place = (dice.choice((1, 2, 3, 7, 40, NEAR_MAX, NEAR_MAX + 5)), dice.randint(1, 3))
        if place in known:
            slots.drop(known.pop(place)[0])
        else:
            known[place] = (task(*place), version)
            slots.put(*known[place])
        assert slots.count == len(known)
        assert slots.all() == [known[each][0] for each in sorted(known)]
        assert sorted(slots, key=lambda each: (each.slot, each.n)) == slots.all()
        there = known.get(place)
        assert slots.find(place[0], task_id(WEB, *place)) is (there[0] if there else None)
        assert all(slots.version(each) == number for each, number in known.values())


@pytest.mark.parametrize(
    "name",
    ["", "web", "a/b", f"{WEB}/x/1", f"{WEB}/1/2", f"{WEB}/01/1", f"{WEB}/-1/1", "//", "///"],
)
def test_what_is_no_tasks_id_finds_none(name: str) -> None:
    tables = Tables()
    tables.put(task(1), 2)
    assert tables.task(TaskId(name)) is None
    assert tables.version(f"tasks/{name}") == 0
    assert tables.drop(f"tasks/{name}") is None
    assert tables.task(TaskId(f"{WEB}/1/1")) is not None
