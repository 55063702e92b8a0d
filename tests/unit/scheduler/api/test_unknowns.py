"""Adopting and forgetting containers that no record speaks of."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, NodeStatus, TaskId, UnknownContainer
from scheduler.api import unknowns
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT
from tests import builders
from tests.builders import World


def told(*tasks, generation=1):
    return NodeStatus(
        unknown_containers=tuple(tasks),
        unknown=tuple(
            UnknownContainer(
                task=TaskId(task), container_id=f"{number:064x}", generation=generation, alive=True
            )
            for number, task in enumerate(tasks, start=1)
        ),
    )


@pytest.fixture
def world():
    made = World()
    made.add_node("a", 1)
    made.add_node("b", 2)
    return made


def lost(world, **fields):
    """A service of two whose first task has lost its record; (service, task)."""
    service = world.apply(builders.spec("web", **fields), replicas=2)
    world.settle()
    (task,) = world.live(service, 1)
    world.drop(keys.task(task.id))
    return service, task


def adopt(world, status, *names, node="a", everything=False):
    return unknowns.adopt(
        world.tables,
        world.tables.node_named(node),
        status,
        names,
        all_of_them=everything,
        status_of=world.observed.status,
        now_ms=world.now_ms,
    )


def forget(world, status, *names, node="a", everything=False):
    return unknowns.forget(
        world.tables,
        world.tables.node_named(node),
        status,
        names,
        all_of_them=everything,
        status_of=world.observed.status,
        now_ms=world.now_ms,
    )


@pytest.mark.parametrize("name", ["task", "container", "id"])
def test_a_container_is_adopted_into_its_slot_as_it_is(world, name):
    service, task = lost(world)
    names = {"task": task.id, "container": task.id.replace("/", "."), "id": f"{1:064x}"}
    verdicts = adopt(world, told(task.id), names[name])
    assert (verdicts.tasks, verdicts.refused) == ((task.id,), ())
    (put,) = verdicts.puts
    assert put.expect == ABSENT
    assert put.value.node == world.tables.node_named("a").id
    assert (put.value.desired, put.value.cause) == (Desired.RUNNING, Cause.OPERATOR)
    world.put(put.value)
    world.settle()
    assert [each.id for each in world.live(service, 1)] == [task.id], "nothing replaces it"


def test_an_edition_that_is_not_stored_counts_as_the_present_one(world):
    service, task = lost(world)
    (put,) = adopt(world, told(task.id, generation=7), everything=True).puts
    assert put.value.generation == world.tables.service(service).generation
    assert "not stored" in put.value.reason


def test_an_exclusive_service_is_exclusive_again(world):
    _, task = lost(world, exclusive=True)
    (put,) = adopt(world, told(task.id), everything=True).puts
    assert put.value.exclusive


def refusal(verdicts):
    assert not verdicts.puts
    ((_, sentence),) = verdicts.refused
    return sentence


def test_what_nobody_reports_is_refused(world):
    assert "no such container" in refusal(adopt(world, told(), "web.1.1"))


def test_a_service_that_is_not_stored_is_refused(world):
    assert "restore a backup" in refusal(adopt(world, told("s-gone-1/1/1"), everything=True))


def test_a_slot_that_has_a_task_is_refused(world):
    service = world.apply(builders.spec("web"), replicas=2)
    world.settle()
    (newer,) = world.live(service, 1)
    second = TaskId(f"{service}/1/{newer.n + 1}")
    assert "end that one first" in refusal(adopt(world, told(second), everything=True))
    assert "has a record again" in refusal(adopt(world, told(newer.id), everything=True, node="a"))


def test_an_older_task_that_waits_for_the_container_makes_room_for_it(world):
    # A restored store: it has the slot's task of yesterday, which is not started beside this.
    service = world.apply(builders.spec("web"), replicas=1)
    world.rest()
    (older,) = world.live(service)
    where = world.tables.node(older.node).name
    later = TaskId(f"{service}/1/{older.n + 1}")
    world.report(older.id, TaskState.READY)
    other = "b" if where == "a" else "a"
    assert "end that one" in refusal(adopt(world, told(later), everything=True, node=other))
    verdicts = adopt(world, told(later), everything=True, node=where)
    assert verdicts.tasks == (later,)
    world.commit(verdicts.puts)
    world.rest()
    assert [each.id for each in world.live(service)] == [later]
    assert world.tables.task(older.id).desired is Desired.REMOVED
    world.report(older.id, TaskState.REMOVED)
    world.report(later, TaskState.RUNNING)
    world.rest()
    assert [each.id for each in world.tables.tasks_of_service(service)] == [later]


def test_a_slot_beyond_the_replicas_is_refused(world):
    service, _ = lost(world)
    assert "scale it" in refusal(adopt(world, told(f"{service}/3/1"), everything=True))


def test_two_containers_of_one_slot_are_not_both_adopted(world):
    service, task = lost(world)
    verdicts = adopt(world, told(task.id, f"{service}/1/9"), everything=True)
    assert len(verdicts.tasks) == 1
    ((_, sentence),) = verdicts.refused
    assert "same slot" in sentence


def test_a_global_task_of_another_node_is_refused(world):
    service = world.apply(builders.simple_global("probe"))
    world.settle()
    (task,) = world.live(service, 2)
    world.drop(keys.task(task.id))
    assert "global" in refusal(adopt(world, told(task.id), everything=True))
    assert adopt(world, told(task.id), everything=True, node="b").tasks == (task.id,)


def test_a_container_is_forgotten_by_a_record_that_is_to_go(world):
    verdicts = forget(world, told("s-gone-1/1/1"), everything=True)
    (put,) = verdicts.puts
    assert (put.value.desired, put.value.cause) == (Desired.REMOVED, Cause.OPERATOR)
    world.commit(verdicts.puts)
    world.look([put.value.service])
    assert world.tables.task(put.value.id) is not None, "until its agent says that it is gone"
    world.report(put.value.id, TaskState.REMOVED)
    world.look([put.value.service])
    assert world.tables.task(put.value.id) is None


def test_what_has_a_record_is_not_forgotten(world):
    service = world.apply(builders.spec("web"), replicas=1)
    world.settle()
    (task,) = world.live(service)
    where = world.tables.node(task.node).name
    assert "record" in refusal(forget(world, told(task.id), everything=True, node=where))
    other = "b" if where == "a" else "a"
    assert f"on node {where}" in refusal(forget(world, told(task.id), everything=True, node=other))


def test_an_older_agent_names_no_more_than_tasks(world):
    _, task = lost(world)
    status = replace(told(task.id), unknown=())
    assert adopt(world, status, everything=True).tasks == (task.id,)
