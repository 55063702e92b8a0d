"""What becomes of a service's tasks when nodes are down, return, or are removed."""

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, Health, NodeState
from homeport.spec import Mode, VolumeSpec, pairs
from scheduler.cluster import keys
from tests.builders import spec, volume_mount, world_of
from tests.unit.scheduler.reconcile.stories import BIND, newest, running

S = TaskState


def test_a_replica_of_a_node_that_is_down_gets_one_named_successor():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(60)
    assert [(task.n, task.node) for task in world.live(service)] == [
        (1, "node-a"),
        (2, "node-b"),
    ]
    assert newest(world, service).reason.startswith("node a is down")


@pytest.mark.parametrize(
    ("state", "reported"),
    [(NodeState.UNKNOWN, False), (NodeState.SUSPECT, True), (NodeState.READY, False)],
    ids=["unknown", "suspect", "connected and not yet reported"],
)
def test_a_task_on_a_node_that_is_not_judged_down_is_left_alone(state, reported):
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=2))
    world.apply(spec("web", replicas=2, labels=pairs({"new": "1"})))
    world.observed.statuses.clear()
    for node in ("node-a", "node-b"):
        world.set_state(node, state, reported=reported)
    world.rest()
    assert all(task.desired is Desired.RUNNING for task in world.live(service))
    assert [task.n for task in world.live(service)] == [1, 1]


@pytest.mark.parametrize(
    ("old", "stays"),
    [
        pytest.param((S.RUNNING, Health.NONE), 1, id="the old one runs: the younger goes"),
        pytest.param((S.RUNNING, Health.UNHEALTHY), 2, id="the old one is unhealthy: it goes"),
        pytest.param((S.STARTING, Health.NONE), 2, id="the old one does not run yet: it goes"),
    ],
)
def test_which_of_two_stays_when_the_node_comes_back(old, stays):
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.rest()
    world.run_all()
    first = world.tables.task(f"{service}/1/1")
    world.observed.forget(first.id)
    world.set_state("node-a", NodeState.READY, reported=False)
    world.rest()
    assert len(world.live(service)) == 2, "it has not reported yet"
    world.report(first.id, old[0], health=old[1])
    world.set_state("node-a", NodeState.READY)
    world.rest()
    assert [task.n for task in world.live(service)] == [stays]
    gone = world.tables.task(f"{service}/1/{3 - stays}")
    assert (gone.desired, gone.cause) == (Desired.REMOVED, Cause.RECONCILER)


def test_no_third_task_is_made_before_the_first_is_given_up():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.rest()
    world.set_state("node-b", NodeState.DOWN)
    (change,) = world.decide()[0]
    assert (change.value.n, change.value.desired) == (1, Desired.REMOVED)
    assert len(world.live(service)) == 2


def test_when_both_nodes_are_down_the_slot_gets_a_third_and_gives_up_the_first():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    for node in ("node-a", "node-b"):
        world.set_state(node, NodeState.DOWN)
        world.settle(20)
    assert [(task.n, task.node) for task in world.live(service)] == [
        (2, "node-b"),
        (3, "node-c"),
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(spec("db", mounts=(volume_mount("data"),)), id="local volume"),
        pytest.param(spec("db", mounts=(BIND,)), id="writable bind"),
        pytest.param(spec("db", mode=Mode.GLOBAL), id="global"),
    ],
)
def test_what_belongs_to_a_node_waits_for_it(wanted):
    world = world_of("a", "b")
    service = running(world, wanted)
    count = len(world.live(service))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(100)
    assert [task.n for task in world.live(service)] == [1] * count
    assert service not in world.observed.waiting, "it has a task: no slot is empty"


def test_an_exclusive_task_moves_after_its_node_is_down_and_the_old_one_goes_on_return():
    share = VolumeSpec(name="data", driver_opts=pairs({"type": "nfs"}))
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)), volumes=(share,))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(20)
    assert newest(world, service).node == "node-b"
    world.set_state("node-a", NodeState.READY)
    world.rest()
    assert [task.n for task in world.live(service)] == [2]


def test_a_removed_node_orphans_its_tasks_and_they_are_replaced():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.drop(keys.node("node-a"))
    world.settle(20)
    (task,) = world.tables.tasks_of_service(service)
    assert (task.n, task.node, task.outcome) == (2, "node-b", None)


def test_a_node_whose_record_cannot_be_read_orphans_nothing():
    world = world_of("a")
    services = running(world, spec("web"), spec("mon", mode=Mode.GLOBAL))
    world.tables.put_unreadable(keys.node("node-a"), 999, "newer")
    world.rest()
    for service in services:
        assert newest(world, service).outcome is None
        assert newest(world, service).desired is Desired.RUNNING
