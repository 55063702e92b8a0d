"""A change of a service, slot after slot: the pace, what stops it, what it spares."""

import itertools

import pytest

from homeport.lifecycle import TaskState
from homeport.model import Health, RolloutState
from homeport.spec import FailureAction, RestartPolicy, UpdateConfig, pairs
from tests.builders import spec, world_of
from tests.unit.scheduler.reconcile.stories import newest, running

S = TaskState


def generation(number, **fields):
    return spec("web", replicas=4, labels=pairs({"g": str(number)}), **fields)


def drive(world, service, looks):
    """How many tasks of the old generation are live after each second."""
    counts = []
    for _ in range(looks):
        world.rest()
        counts.append(sum(task.generation == 1 for task in world.live(service)))
        world.run_all()
        world.pass_time(1)
    return counts


def test_a_rollout_replaces_one_slot_at_a_time_and_watches_each_for_five_seconds():
    world = world_of("a", "b")
    service = running(world, generation(1))
    world.apply(generation(2))
    counts = drive(world, service, 40)
    assert counts == sorted(counts, reverse=True)
    steps = [counts.index(each) for each in (3, 2, 1, 0)]
    assert all(7 <= later - earlier <= 8 for earlier, later in itertools.pairwise(steps))
    rollout = world.tables.rollout(service)
    assert (rollout.state, rollout.generation) == (RolloutState.COMPLETED, 2)


def test_parallelism_and_delay_are_kept():
    world = world_of("a", "b")
    update = UpdateConfig(parallelism=2, delay_ms=10_000, monitor_ms=0)
    service = running(world, generation(1))
    world.apply(generation(2, update=update))
    counts = drive(world, service, 40)
    assert set(counts) == {2, 0}
    assert counts.index(0) - counts.index(2) >= 10


def test_scaling_during_and_after_a_rollout_restarts_nothing():
    world = world_of("a", "b")
    service = running(world, generation(1))
    world.scale(service, 5)
    world.settle(40)
    assert [task.n for task in world.live(service)] == [1] * 5


def test_a_change_that_is_not_of_the_template_replaces_nothing():
    world = world_of("a")
    service = running(world, generation(1))
    world.apply(generation(2), same_template=True)
    world.settle(40)
    assert [task.n for task in world.live(service)] == [1] * 4
    assert world.tables.rollout(service) is None


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        pytest.param(S.FAILED, {"message": "exit 1"}, id="it fails"),
        pytest.param(S.BACKOFF, {}, id="it ends and is started again"),
        pytest.param(S.RUNNING, {"health": Health.UNHEALTHY}, id="it is unhealthy"),
    ],
)
def test_a_new_task_that_fails_stops_the_rollout_and_spares_the_other_slots(state, fields):
    world = world_of("a", "b")
    limited = RestartPolicy(max_attempts=1)
    service = running(world, generation(1, restart=limited))
    world.apply(generation(2, restart=limited))
    world.rest()
    world.run_all()
    world.rest()
    new = next(task for task in world.live(service) if task.generation == 2)
    world.report(new.id, S.RUNNING)
    world.rest()
    world.report(new.id, state, **fields)
    world.rest()
    rollout = world.tables.rollout(service)
    assert rollout.state is RolloutState.PAUSED
    assert rollout.message.startswith(f"slot {new.slot}: ")
    for _ in range(5):
        world.pass_time(100)
        world.rest()
    assert sum(task.generation == 1 for task in world.live(service)) == 3


def test_a_new_task_that_one_node_rejects_goes_elsewhere_and_a_second_rejection_stops():
    world = world_of("a", "b")
    service = running(world, generation(1))
    world.apply(generation(2))
    world.rest()
    world.run_all()
    world.rest()
    for state in (RolloutState.UPDATING, RolloutState.PAUSED):
        new = next(task for task in world.live(service) if task.generation == 2)
        world.report(new.id, S.REJECTED, message="no such image")
        world.rest()
        assert world.tables.rollout(service).state is state
        assert sum(task.generation == 1 for task in world.live(service)) == 3
        world.pass_time(5)
        world.rest()
    assert "no such image" in world.tables.rollout(service).message


def test_a_slot_that_a_stopped_rollout_did_not_reach_is_refilled_as_it_was():
    world = world_of("a", "b")
    service = running(world, generation(1))
    world.apply(generation(2))
    world.rest()
    world.run_all()
    world.rest()
    new = next(task for task in world.live(service) if task.generation == 2)
    world.report(new.id, S.BACKOFF)
    world.rest()
    old = next(task for task in world.live(service) if task.generation == 1)
    world.report(old.id, S.FAILED)
    world.rest()
    world.pass_time(5)
    world.rest()
    assert newest(world, service, old.slot).n == 2
    assert newest(world, service, old.slot).generation == 1


def test_with_the_failure_action_continue_the_rollout_goes_on():
    world = world_of("a", "b")
    update = UpdateConfig(failure_action=FailureAction.CONTINUE, monitor_ms=1000)
    service = running(world, generation(1))
    world.apply(generation(2, update=update, restart=RestartPolicy(max_attempts=1)))
    world.rest()
    world.run_all()
    world.rest()
    new = next(task for task in world.live(service) if task.generation == 2)
    world.report(new.id, S.FAILED)
    counts = drive(world, service, 30)
    assert counts[-1] == 0


def test_a_new_leader_watches_the_new_task_once_more():
    world = world_of("a", "b")
    service = running(world, generation(1))
    world.apply(generation(2))
    drive(world, service, 5)
    world.observed.running.clear()
    world.observed.proven.clear()
    start = world.now
    counts = drive(world, service, 10)
    assert counts[0] == 3
    assert world.now - start > counts.index(2) >= 5


def test_specs_that_no_task_refers_to_are_forgotten():
    world = world_of("a")
    service = running(world, generation(1))
    world.apply(generation(2))
    world.settle(200, 5)
    assert [each.generation for each in world.tables.specs_of(service)] == [2]
