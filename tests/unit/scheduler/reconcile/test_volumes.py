"""Data that ties a service to a node: when its volume stays, and when it finds another home."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import VolumeState
from homeport.spec import Mode, pairs
from scheduler.reconcile import reaper
from tests.builders import GIB, spec, volume_mount, world_of
from tests.unit.scheduler.reconcile.stories import BIND, newest, running

S = TaskState


def test_a_volume_whose_first_task_was_rejected_finds_another_home():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    first = newest(world, service)
    assert first.node == "node-a"
    world.report(first.id, S.REJECTED, message="no space")
    world.settle(20, 1)
    assert newest(world, service).node == "node-b"
    assert [volume.node for volume in world.tables.volumes()] == ["node-b"]


def test_a_volume_of_a_task_that_was_rejected_on_a_later_attempt_stays():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    first = newest(world, service)
    world.report(first.id, S.BACKOFF)
    world.report(first.id, S.REJECTED, attempt=2)
    world.settle(40)
    assert newest(world, service).n > 1
    assert {task.node for task in world.tables.tasks_of_service(service)} == {"node-a"}
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]


def test_a_volume_that_another_service_uses_stays_when_the_first_was_rejected():
    world = world_of("a", "b")
    first = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    other = running(world, spec("backup", mounts=(volume_mount("data"),)))
    world.observed.forget(newest(world, first).id)
    world.report(newest(world, first).id, S.REJECTED)
    world.rest()
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]
    assert newest(world, other).node == "node-a"


def test_a_task_that_can_only_run_where_its_data_is_tries_there_again_soon():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.report(newest(world, service).id, S.FAILED, node_is_cause=True)
    world.settle(10, 1)
    assert newest(world, service).n == 2


def test_a_global_service_has_its_own_volume_on_each_node():
    world = world_of("a", "b")
    service = running(world, spec("mon", mode=Mode.GLOBAL, mounts=(volume_mount("data"),)))
    assert world.nodes_of(service) == ["a", "b"]
    assert [volume.node for volume in world.tables.volumes()] == ["node-a", "node-b"]
    world.add_node("c", 3)
    world.rest()
    assert world.nodes_of(service) == ["a", "b", "c"]


def test_a_volume_that_was_used_stays_whatever_happens_to_its_tasks():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.report(newest(world, service).id, S.FAILED)
    world.settle(20, 1)
    task = newest(world, service)
    world.observed.forget(task.id)
    world.report(task.id, S.REJECTED)
    world.settle(400)
    assert newest(world, service).node == "node-a"
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]


def test_a_single_replica_with_a_writable_bind_goes_back_to_its_node():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(BIND,)))
    running(world, spec("other", memory=GIB))
    world.put(replace(world.tables.node("node-a"), labels=pairs({"busy": "yes"})))
    running(world, *(spec(f"s{number}", memory=GIB) for number in range(3)))
    assert newest(world, service).pinned
    world.apply(spec("db", mounts=(BIND,), labels=pairs({"new": "1"})))
    world.settle(30, 1)
    assert newest(world, service).generation == 2
    assert newest(world, service).node == "node-a"


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param(replace(BIND, read_only=True), id="read only"),
        pytest.param(replace(BIND, source="/var/run/docker.sock"), id="the engine's socket"),
        pytest.param(replace(BIND, source="/dev/ttyUSB0"), id="a device"),
    ],
)
def test_a_bind_without_data_pins_nothing(mount):
    world = world_of("a")
    service = running(world, spec("web", mounts=(mount,)))
    assert not newest(world, service).pinned


def test_a_stack_that_is_applied_again_finds_its_data():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.put(replace(world.tables.stack("shop"), removing=True))
    world.remove(service)
    world.settle(40)
    assert reaper.stack(world.snapshot(), "shop") == []
    assert [volume.state for volume in world.tables.volumes()] == [VolumeState.RETAINED]
    world.put(replace(world.tables.node("node-a"), labels=pairs({"x": "y"})))
    running(world, *(spec(f"s{number}") for number in range(3)), stack="other")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    assert world.nodes_of(service) == ["a"]
    assert [volume.state for volume in world.tables.volumes()] == [VolumeState.ACTIVE]
