"""What the reconcilers do about one service, told as stories on a cluster of values.

How many tasks it has, what it waits for, and what is kept of it; its restarts, rollouts, data and
nodes are in files of their own.
"""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, Health
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Dependency,
    DependencyCondition,
    Mode,
    PlacementSpec,
    RestartCondition,
    RestartPolicy,
)
from tests.builders import spec, world_of
from tests.unit.scheduler.reconcile.stories import newest, running

S = TaskState


# ---------------------------------------------------------------- replicas and globals


def test_scaling_down_ends_the_highest_slots_by_the_operators_word():
    world = world_of("a")
    service = running(world, spec("web", replicas=3))
    world.scale(service, 1)
    world.rest()
    tasks = world.tables.tasks_of_service(service)
    assert [task.desired for task in tasks] == [Desired.RUNNING, Desired.REMOVED, Desired.REMOVED]
    assert tasks[2].cause is Cause.OPERATOR


def test_an_operators_word_is_written_over_a_reconcilers_which_its_node_may_hold():
    world = world_of("a")
    service = running(world, spec("web"))
    (task,) = world.live(service)
    world.put(replace(task, desired=Desired.REMOVED, cause=Cause.RECONCILER))
    world.scale(service, 0)
    world.rest()
    assert world.tables.task(task.id).cause is Cause.OPERATOR


def test_a_slot_that_was_scaled_away_and_back_never_reuses_an_id():
    world = world_of("a")
    service = running(world, spec("web", replicas=2))
    for _ in range(3):
        world.scale(service, 1)
        world.settle(40)
        assert [task.slot for task in world.tables.tasks_of_service(service)] == [1]
        world.scale(service, 2)
        world.settle(40)
    # World.commit refuses an id that was used before.
    assert newest(world, service, 2).n == 4


def test_a_global_service_has_a_task_on_each_node_with_the_nodes_number():
    world = world_of("a", "b")
    service = running(world, spec("mon", mode=Mode.GLOBAL))
    world.add_node("z", 26)
    world.rest()
    assert {task.slot: task.node for task in world.live(service)} == {
        1: "node-a",
        2: "node-b",
        26: "node-z",
    }


def test_a_global_task_stays_when_its_engine_is_away_for_a_moment():
    world = world_of("a")
    service = running(world, spec("mon", mode=Mode.GLOBAL))
    record = world.tables.node("node-a")
    world.put(replace(record, inventory=replace(record.inventory, drivers=(), engine="")))
    world.rest()
    assert len(world.live(service)) == 1


def test_a_global_task_ends_when_the_operator_takes_the_label_away():
    rule = Constraint(key="node.labels.gpu", operator=ConstraintOperator.EQ, value="yes")
    world = world_of("a", labels={"gpu": "yes"})
    service = running(
        world, spec("mon", mode=Mode.GLOBAL, placement=PlacementSpec(constraints=(rule,)))
    )
    assert len(world.live(service)) == 1
    world.put(replace(world.tables.node("node-a"), labels=()))
    world.rest()
    assert world.live(service) == []


def test_removing_a_service_leaves_no_record_of_it():
    world = world_of("a")
    service = running(world, spec("web", replicas=2))
    world.remove(service)
    world.settle(40)
    assert [key for key in world.tables.stored_keys() if service in key] == []


def test_nothing_is_forgotten_before_its_agent_says_that_it_is_gone():
    world = world_of("a")
    service = running(world, spec("web"))
    world.remove(service)
    world.rest()
    world.pass_time(100_000)
    world.rest()
    assert len(world.tables.tasks_of_service(service)) == 1


def test_a_service_applied_again_waits_until_the_removed_one_is_gone():
    world = world_of("a")
    old = running(world, spec("web"))
    world.remove(old)
    new = world.apply(spec("web"))
    world.rest()
    assert world.live(new) == []
    assert "removed service" in world.observed.waiting[new][1].reason
    world.settle(40)
    assert len(world.live(new)) == 1


# ---------------------------------------------------------------- dependencies and jobs


@pytest.mark.parametrize(
    ("condition", "state", "health", "met"),
    [
        (DependencyCondition.STARTED, S.STARTING, Health.NONE, False),
        (DependencyCondition.STARTED, S.RUNNING, Health.STARTING, True),
        (DependencyCondition.HEALTHY, S.RUNNING, Health.STARTING, False),
        (DependencyCondition.HEALTHY, S.RUNNING, Health.HEALTHY, True),
        (DependencyCondition.COMPLETED, S.RUNNING, Health.HEALTHY, False),
        (DependencyCondition.COMPLETED, S.COMPLETE, Health.NONE, True),
    ],
)
def test_the_first_start_waits_for_what_the_service_depends_on(condition, state, health, met):
    world = world_of("a")
    once = RestartPolicy(condition=RestartCondition.NONE)
    db = world.apply(spec("db", restart=once))
    web = world.apply(spec("web", depends_on=(Dependency(service="db", condition=condition),)))
    world.rest()
    assert world.live(web) == []
    assert "waits until db" in world.observed.waiting[web][1].reason
    world.report(newest(world, db).id, state, health=health)
    world.rest()
    assert bool(world.live(web)) is met


def test_a_service_that_has_run_before_waits_for_nobody_when_it_is_scaled_up_again():
    world = world_of("a")
    db = world.apply(spec("db"))
    web = world.apply(spec("web", depends_on=(Dependency(service="db"),)))
    world.settle(20, 5)
    world.scale(web, 0)
    world.settle(20, 5)
    world.scale(db, 0)
    world.settle(20, 5)
    world.scale(web, 1)
    world.rest()
    assert len(world.live(web)) == 1


def test_a_dependency_that_is_not_required_holds_nothing_back():
    world = world_of("a")
    world.apply(spec("db"))
    optional = (Dependency(service="db", required=False), Dependency(service="x", required=False))
    web = world.apply(spec("web", depends_on=optional))
    world.rest()
    assert len(world.live(web)) == 1


def test_a_dependency_that_fails_later_holds_nothing_back():
    world = world_of("a")
    db = world.apply(spec("db"))
    web = world.apply(spec("web", depends_on=(Dependency(service="db"),)))
    world.settle(20, 5)
    world.report(newest(world, db).id, S.FAILED)
    world.report(newest(world, web).id, S.FAILED)
    world.rest()
    world.pass_time(1)
    world.rest()
    assert len(world.live(web)) == 1


def test_a_job_runs_as_many_at_once_as_it_may_and_each_slot_once():
    world = world_of("a")
    job = world.apply(spec("job", mode=Mode.REPLICATED_JOB, replicas=3, max_concurrent=2))
    world.rest()
    assert [task.slot for task in world.live(job)] == [1, 2]
    assert "its turn" in world.observed.waiting[job][3].reason
    for task in world.live(job):
        world.report(task.id, S.COMPLETE)
    world.rest()
    assert [task.slot for task in world.live(job)] == [3]
    world.report(newest(world, job, 3).id, S.COMPLETE)
    world.settle(400)
    assert [task.n for task in world.tables.tasks_of_service(job)] == [1, 1, 1]


# ---------------------------------------------------------------- the reaper


def test_the_newest_ended_task_of_each_slot_is_kept():
    world = world_of("a")
    service = running(world, spec("web", restart=RestartPolicy(max_attempts=1)))
    world.report(newest(world, service).id, S.FAILED, exit_code=3)
    world.settle(400)
    (task,) = world.tables.tasks_of_service(service)
    assert (task.outcome.exit_code, task.desired) == (3, Desired.RUNNING)
