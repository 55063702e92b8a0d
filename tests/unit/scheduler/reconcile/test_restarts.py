"""Which ended tasks get a successor, when and where: stories of one service."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.spec import RestartCondition, RestartPolicy, pairs
from tests.builders import spec, world_of
from tests.unit.scheduler.reconcile.stories import newest, running

S = TaskState


@pytest.mark.parametrize(
    ("policy", "state", "fields", "again"),
    [
        pytest.param(RestartPolicy(), S.FAILED, {}, True, id="a failure without a limit"),
        pytest.param(
            RestartPolicy(max_attempts=3), S.FAILED, {}, False, id="the user's limit is reached"
        ),
        pytest.param(
            RestartPolicy(condition=RestartCondition.NONE),
            S.FAILED,
            {},
            False,
            id="the user wants no restart",
        ),
        pytest.param(
            RestartPolicy(max_attempts=3),
            S.FAILED,
            {"node_is_cause": True},
            True,
            id="the limit does not count for the node's fault",
        ),
        pytest.param(
            RestartPolicy(condition=RestartCondition.ON_FAILURE),
            S.COMPLETE,
            {},
            False,
            id="it completed and is only restarted on failure",
        ),
        pytest.param(RestartPolicy(), S.COMPLETE, {}, True, id="it is to run for ever"),
        pytest.param(RestartPolicy(max_attempts=1), S.REJECTED, {}, True, id="the node refused"),
        pytest.param(RestartPolicy(), S.SHUTDOWN, {}, True, id="somebody else stopped it"),
        pytest.param(RestartPolicy(), S.REMOVED, {}, True, id="somebody else removed it"),
    ],
)
def test_whether_an_ended_task_gets_a_successor(policy, state, fields, again):
    world = world_of("a", "b")
    service = running(world, spec("web", restart=policy))
    first = newest(world, service)
    # A REJECTED task never ran.
    if state is S.REJECTED:
        world.observed.forget(first.id)
    world.report(first.id, state, **fields)
    world.settle(20, 5)
    assert newest(world, service).n == (2 if again else 1)


def test_a_service_that_ended_for_good_starts_again_with_a_new_generation():
    world = world_of("a")
    limited = spec("web", restart=RestartPolicy(max_attempts=1))
    service = running(world, limited)
    world.report(newest(world, service).id, S.FAILED)
    world.settle(20, 5)
    assert world.live(service) == []
    world.apply(replace(limited, labels=pairs({"a": "b"})))
    world.rest()
    assert newest(world, service).generation == 2


def test_a_task_that_failed_because_of_its_node_goes_elsewhere():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.report(newest(world, service).id, S.FAILED, node_is_cause=True)
    world.settle(10, 1)
    assert newest(world, service).node == "node-b"


def test_a_new_generation_is_tried_again_where_the_old_one_was_rejected():
    world = world_of("a")
    service = running(world, spec("web"))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED)
    world.rest()
    world.apply(spec("web", labels=pairs({"fixed": "yes"})))
    world.rest()
    assert [task.generation for task in world.live(service)] == [2]


def test_a_task_that_somebody_else_stops_again_and_again_is_backed_off():
    world = world_of("a")
    service = running(world, spec("web"))
    for _ in range(3):
        world.report(newest(world, service).id, S.SHUTDOWN)
        world.settle(20, 10)
    assert newest(world, service).failures == 3


def test_no_outcome_is_written_of_a_task_that_is_being_removed():
    world = world_of("a")
    service = running(world, spec("web", replicas=2))
    world.scale(service, 1)
    world.rest()
    world.log.clear()
    world.report(newest(world, service, 2).id, S.SHUTDOWN)
    world.rest()
    world.report(newest(world, service, 2).id, S.REMOVED)
    world.rest()
    # One more, once: the slot's count is kept when its last task is forgotten.
    assert [type(change).__name__ for change in world.log] == ["Put", "Delete"]


def test_back_off_doubles_and_survives_a_new_leader():
    world = world_of("a")
    service = running(world, spec("web"))
    waits = []
    for _ in range(10):
        world.report(newest(world, service).id, S.FAILED)
        n, before = newest(world, service).n, world.now
        world.observed.waiting.clear()
        world.rest()
        while newest(world, service).n == n:
            world.pass_time(1)
            world.rest()
        waits.append(world.now - before)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_rejected_task_goes_elsewhere_and_comes_back_when_everybody_refused():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED, message="no such image")
    world.settle(10, 1)
    second = newest(world, service)
    assert second.node == "node-b"
    world.observed.forget(second.id)
    world.report(second.id, S.REJECTED, message="no such image")
    world.rest()
    world.pass_time(60)
    world.rest()
    refusals = world.observed.waiting[service][1].refusals
    assert [each.rule for each in refusals] == ["excluded", "excluded"]
    world.settle(300)
    assert len(world.live(service)) == 1


def test_a_slot_avoids_the_node_that_rejected_another_slot():
    world = world_of("a", "b", "c")
    service = running(world, spec("web", replicas=2))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED)
    world.rest()
    world.scale(service, 3)
    world.pass_time(5)
    world.rest()
    assert "node-a" not in [task.node for task in world.live(service)]
