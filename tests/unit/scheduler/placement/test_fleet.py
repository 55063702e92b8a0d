"""What a fleet makes of events: records, what is observed of nodes, and tasks that nobody knows."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import (
    Availability,
    Cluster,
    Condition,
    Grant,
    NodeId,
    NodeState,
    NodeStatus,
    Outcome,
    Overcommit,
    ServiceId,
    Taint,
    Task,
    TaskId,
    Volume,
)
from homeport.spec import Mode, Strategy, VolumeSpec, pairs
from scheduler.cluster import keys
from scheduler.placement.candidates import Held, blank
from scheduler.placement.fleet import Fleet, held, is_ready, requirements_of, unfit
from scheduler.placement.requirements import NOTHING, Requirements
from tests.builders import World, node, spec, volume_mount
from tests.placement.drawing import ask_of

A, B = NodeId("node-a"), NodeId("node-b")


def described(record, **said):
    """A node of which that was said."""
    found = blank(record.id)
    found.describe(record, **({"ready": True, "unfit": "", "unfenced": ""} | said))
    return found


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), ""),
        ((Condition(name="disk", ok=True),), ""),
        ((Condition(name="disk", ok=False, message="it is full"),), "it is full"),
        ((Condition(name="disk", ok=False),), "its disk is not well"),
        ((Condition(name="clock", ok=False),), ""),
        ((Condition(name="clock", ok=False), Condition(name="engine", ok=False)), "its engine is"),
    ],
)
def test_what_is_wrong_with_a_node(conditions, expected):
    world = World()
    world.add_node("a")
    world.observed.put_node_status(A, NodeStatus(conditions=conditions))
    said = unfit(world.snapshot(), A)
    assert said.startswith(expected)
    assert bool(said) == bool(expected)


@pytest.mark.parametrize("state", NodeState)
def test_only_nodes_that_reported_are_ready(state):
    world = World()
    world.add_node("a", state=state)
    assert is_ready(world.snapshot(), A) == (state is NodeState.READY)


@pytest.mark.parametrize(
    ("availability", "said", "expected"),
    [
        (Availability.ACTIVE, {}, True),
        (Availability.ACTIVE, {"ready": False}, False),
        (Availability.ACTIVE, {"unfit": "its disk is full"}, False),
        (Availability.PAUSE, {}, False),
        (Availability.DRAIN, {}, False),
    ],
)
def test_a_node_is_open(availability, said, expected):
    assert described(replace(node("a"), availability=availability), **said).is_open is expected


def test_what_may_be_reserved_is_what_the_operator_makes_of_it():
    record = node(
        "a",
        cpu=4001,
        memory=1000,
        overcommit=Overcommit(cpu_percent=250, memory_percent=80),
        generic=pairs({"stick": "2", "odd": "x"}),
    )
    has = replace(record.inventory.capacity, pids=7, disk_bytes=9, generic=pairs({"stick": "3"}))
    found = described(replace(record, inventory=replace(record.inventory, capacity=has)))
    assert (found.cpu_capacity, found.memory_capacity) == (10_002, 800)
    assert (found.pids_capacity, found.disk_capacity) == (7, 9)
    assert found.generic_capacity == {"stick": 2}


def test_a_lease_that_means_nothing_is_told_by_the_agent_or_by_us():
    record = node("a")
    of_agent = replace(record, inventory=replace(record.inventory, unfenced="it sees none"))
    assert described(of_agent).unfenced == "it sees none"
    assert described(of_agent, unfenced="two have its key").unfenced == "two have its key"
    assert described(record).unfenced == ""


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, False),
        ({"availability": Availability.DRAIN}, False),
        ({"overcommit": Overcommit(cpu_percent=200)}, False),
        ({"name": "z"}, True),
        ({"labels": pairs({"zone": "east"})}, True),
        ({"taints": (Taint(key="g"),)}, True),
    ],
)
def test_a_node_becomes_another_one_by_what_it_is(changed, expected):
    found = described(node("a"))
    assert found.describe(replace(node("a"), **changed), ready=False, unfit="x", unfenced="") is (
        expected
    )


def test_operators_labels_win_and_all_facts_have_names():
    inventory = replace(
        node("a").inventory,
        labels=pairs({"disk": "hdd", "room": "attic"}),
        engine_labels=pairs({"tier": "old"}),
    )
    found = described(node("a", inventory=inventory, labels={"disk": "ssd"}))
    assert found.facts == {
        "engine.labels.tier": "old",
        "node.labels.disk": "ssd",
        "node.labels.room": "attic",
        "node.id": "node-a",
        "node.hostname": "a",
        "hostname": "a",
        "node.role": "worker",
        "node.platform.os": "linux",
        "node.platform.arch": "x86_64",
    }


# ---------------------------------------------------------------- tasks


def entry(where=A, *, fixes_volumes=True, **needs):
    return Held(ServiceId("s"), where, Requirements(**needs), fixes_volumes, "shop/s")


def test_a_task_on_a_node_without_a_record_counts_when_that_comes():
    there = Fleet()
    grants = (Grant(device="GPU-0", share_millis=300),)
    there.task_added(TaskId("s/1/1"), entry(cpu_millis=100), grants)
    there.task_added(TaskId("s/2/1"), entry(cpu_millis=100))
    there.task_removed(TaskId("s/2/1"))
    assert there.candidates == {}
    there.node_changed(node("a"), ready=True)
    found = there.candidates[A]
    assert (found.cpu_reserved, found.tasks, found.granted) == (100, 1, {"GPU-0": 300})


def test_nothing_is_remembered_of_a_node_that_went_without_tasks():
    there = Fleet()
    there.node_changed(node("a"), ready=True)
    there.task_added(TaskId("s/1/1"), entry(cpu_millis=100))
    there.task_removed(TaskId("s/1/1"))
    there.node_removed(A)
    there.task_added(TaskId("s/1/2"), entry())
    there.task_removed(TaskId("s/1/2"))
    assert there._strays == {}
    there.node_removed(B)
    assert there == Fleet()


def test_what_a_node_without_a_record_has_taken_is_kept():
    there = Fleet()
    there.node_changed(node("a", cpu=4000), ready=True)
    needs = {"cpu_millis": 100, "memory_bytes": 5, "pids": 2, "disk_bytes": 3}
    there.task_added(TaskId("s/1/1"), entry(generic=(("stick", 1),), **needs))
    before = there.candidates[A].copy()
    there.node_removed(A)
    there.node_changed(node("a", cpu=4000), ready=True)
    assert there.candidates[A] == before


def test_a_task_that_is_told_again_with_other_grants_is_another():
    there = Fleet()
    there.node_changed(node("a"), ready=True)
    task = TaskId("s/1/1")
    there.task_added(task, entry(), (Grant(device="GPU-0", share_millis=300),))
    there.task_added(task, entry(), (Grant(device="GPU-0", share_millis=300),))
    assert there.candidates[A].granted == {"GPU-0": 300}
    there.task_added(task, entry(), (Grant(device="GPU-1"),))
    assert there.candidates[A].granted == {"GPU-1": 1000}
    there.task_added(task, entry())
    assert there.candidates[A].granted == {}
    assert there.grants == {}


def test_a_grant_of_nothing_takes_nothing():
    there = Fleet()
    there.node_changed(node("a"), ready=True)
    there.task_added(TaskId("s/1/1"), entry(), (Grant(device="/dev/dri", share_millis=0),))
    assert there.candidates[A].granted == {}


def test_volumes_are_where_records_and_tasks_say():
    there, data = Fleet(), ("shop", "data")
    there.volume_added(data, A)
    there.task_added(TaskId("s/1/1"), entry(volumes=(data,)))
    there.task_added(TaskId("s/2/1"), entry(B, volumes=(data,)))
    there.task_added(TaskId("s/3/1"), entry(B, volumes=(data,), fixes_volumes=False))
    assert there.homes == {data: {A: 2, B: 1}}
    there.task_removed(TaskId("s/2/1"))
    there.task_removed(TaskId("s/3/1"))
    there.volume_removed(data, A)
    assert there.homes == {data: {A: 1}}
    there.task_removed(TaskId("s/1/1"))
    assert there.homes == {}


def test_a_presence_that_was_made_for_nothing_is_forgotten():
    there, service = Fleet(), ServiceId("s")
    there.absent(service)
    there.presence(service)
    assert there.present(service) is not None
    there.absent(service)
    assert there.present(service) is None
    there.task_added(TaskId("s/1/1"), entry())
    there.absent(service)
    assert there.nodes_of(service) == {A: 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda fleet: fleet.node_changed(node("a"), ready=False),
        lambda fleet: fleet.node_removed(A),
        lambda fleet: fleet.task_removed(TaskId("s/1/1")),
        lambda fleet: fleet.volume_added(("shop", "data"), B),
        lambda fleet: fleet.grants.clear(),
        lambda fleet: fleet.strategy_changed(Strategy.BINPACK),
        lambda fleet: fleet.held.clear(),
    ],
)
def test_fleets_that_differ_in_one_thing_are_not_equal(change):
    there = Fleet()
    there.node_changed(node("a"), ready=True)
    there.task_added(TaskId("s/1/1"), entry(), (Grant(device="GPU-0", share_millis=0),))
    other = there.copy()
    assert other == there
    change(other)
    assert other != there
    assert there != "a fleet"


# ---------------------------------------------------------------- records


def test_records_become_events():
    world = World()
    world.add_node("a")
    service = world.apply(spec("db", cpu=100, mounts=(volume_mount("data"),)))
    task = Task(service=service, slot=1, n=1, node=A, generation=1)
    world.put(task)
    kept = world.fleet.held[task.id]
    assert (kept.name, kept.fixes_volumes, kept.needs.cpu_millis) == ("shop/db", True, 100)
    assert world.fleet.homes == {("shop", "data"): {A: 1}}

    world.put(replace(world.tables.service(service), mode=Mode.GLOBAL))
    assert not world.fleet.held[task.id].fixes_volumes
    world.put(replace(world.tables.service(service), mode=Mode.REPLICATED))

    shared = VolumeSpec(name="data", driver="rclone")
    world.put(replace(world.tables.stack("shop"), volumes=(shared,)))
    assert world.fleet.homes == {}

    world.put(Volume(stack="shop", name="data", node=A))
    assert world.fleet.homes == {("shop", "data"): {A: 1}}
    world.put(Volume(stack="shop", name="data", node=A, created_ms=5))
    assert world.fleet.homes == {("shop", "data"): {A: 1}}
    world.drop(keys.key_of(Volume(stack="shop", name="data", node=A)))
    assert world.fleet.homes == {}

    world.put(Cluster(id="c", strategy=Strategy.BINPACK))
    assert world.fleet.strategy is Strategy.BINPACK
    assert Fleet.from_snapshot(world.snapshot()) == world.fleet

    world.put(replace(task, outcome=Outcome(state=TaskState.FAILED)))
    assert world.fleet.held == {}
    world.drop(keys.node(A))
    assert world.fleet.candidates == {}


def test_a_spec_that_comes_later_tells_what_tasks_need():
    world = World()
    world.add_node("a")
    service = world.apply(spec("db", cpu=100))
    record = world.tables.spec(service, 1)
    task = Task(service=service, slot=1, n=1, node=A, generation=1)
    world.drop(keys.key_of(record))
    world.put(task)
    assert world.fleet.held[task.id].needs == NOTHING
    world.put(record)
    assert world.fleet.held[task.id].needs.cpu_millis == 100
    assert requirements_of(world.tables, ServiceId("none"), 1) is NOTHING


def test_a_task_whose_service_is_gone_still_counts():
    world = World()
    task = Task(service=ServiceId("gone"), slot=1, n=1, node=A, generation=1)
    found = held(world.tables, task)
    assert (found.name, found.fixes_volumes, found.needs) == ("", True, NOTHING)
    known = Requirements(cpu_millis=3)
    assert held(world.tables, task, known).needs is known


def test_a_fleet_from_records_hears_what_is_said_of_nodes():
    world = World()
    world.add_node("a")
    world.add_node("b", state=NodeState.DOWN)
    full = (Condition(name="disk", ok=False, message="it is full"),)
    world.observed.put_node_status(A, NodeStatus(conditions=full))
    there = Fleet.from_snapshot(world.snapshot())
    assert [there.candidates[each].ready for each in (A, B)] == [True, False]
    assert [there.candidates[each].unfit for each in (A, B)] == ["it is full", ""]
    world.put(replace(world.tables.node(A), labels=pairs({"x": "y"})))
    assert world.fleet.candidates[A].unfit == "it is full"


def test_asks_know_their_task_and_kind():
    asked = ask_of("shop-web-1", Requirements(), 3, n=2)
    assert (asked.name, asked.task) == ("shop/web", TaskId("shop-web-1/3/2"))
    assert replace(asked, slot=4, priority=1).kind == asked.kind
    for other in (
        {"needs": Requirements(cpu_millis=1)},
        {"service": ServiceId("x")},
        {"only": A},
        {"excluded": (A,)},
        {"fixes_volumes": False},
        {"needs_lease": True},
    ):
        assert replace(asked, **other).kind != asked.kind


def test_resources_that_are_given_back_leave_nothing():
    found = described(node("a"))
    needs = Requirements(cpu_millis=5, memory_bytes=6, pids=7, disk_bytes=8, generic=(("x", 2),))
    found.take(needs, 3)
    assert (found.cpu_reserved, found.memory_reserved, found.tasks) == (15, 18, 3)
    assert (found.pids_reserved, found.disk_reserved) == (21, 24)
    assert found.generic_reserved == {"x": 6}
    found.take(needs, -3)
    assert found == described(node("a"))


def test_a_fleet_is_nobodys_key_because_it_changes():
    with pytest.raises(TypeError, match="changes"):
        hash(Fleet())
