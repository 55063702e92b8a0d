"""Slots that may preempt get room: who ends for them, when nobody does, and who gets the room."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Cause, Move, NodeState
from homeport.spec import Dependency, Mode, RestartPolicy
from scheduler.cluster.observed import Brake
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import planning, preemption, scheduling
from scheduler.reconcile.pace import WINDOW_SECONDS, Pace
from scheduler.reconcile.slots import Vacancy
from tests.builders import GIB, spec, volume_mount, world_of

S = TaskState


def filled(*names, replicas=None, **fields):
    """Nodes whose memory is taken by `low.1`, `low.2` and so on, two on each."""
    world = world_of(*names)
    fields = {"memory": 4 * GIB} | fields
    low = world.apply(spec("low", **fields), replicas=replicas or 2 * len(names))
    world.rest()
    world.run_all()
    world.rest()
    return world, low


def chief(name="chief", memory=4 * GIB, priority=100, **fields):
    return spec(name, memory=memory, priority=priority, **({"preempts": True} | fields))


def ending(world, service):
    return [
        task
        for task in world.tables.tasks_of_service(service)
        if task.outcome is None and task.desired is not Desired.RUNNING
    ]


def why(world, service, slot=1):
    return world.observed.waiting[service][slot].reason


def test_a_task_of_lower_priority_ends_and_the_slot_gets_its_room():
    world, low = filled("a", "b")
    service = world.apply(chief())
    world.rest()
    (victim,) = ending(world, low)
    assert (victim.desired, victim.cause) == (Desired.SHUTDOWN, Cause.RECONCILER)
    assert victim.reason == "it makes room for shop/chief.1 of priority 100"
    where = world.tables.node(victim.node).name
    assert f"shop/low.{victim.slot} ends on {where} to make room for it" in why(world, service)
    assert world.live(service) == []
    world.run_all()
    world.rest()
    assert [task.node for task in world.live(service)] == [victim.node]
    assert "makes room for shop/chief.1" in why(world, low, victim.slot)
    assert len(world.live(low)) == 3
    assert world.fleet == Fleet.from_snapshot(world.snapshot())


def test_nobody_else_ends_while_the_first_is_still_stopping():
    world, low = filled("a", "b")
    world.apply(chief())
    for _ in range(5):
        world.rest()
        world.pass_time(60)
    assert len(ending(world, low)) == 1


def test_another_leader_ends_nobody_more():
    world, low = filled("a", "b")
    service = world.apply(chief())
    world.rest()
    world.nominations = type(world.nominations)()
    world.rest()
    assert len(ending(world, low)) == 1
    assert "what is ending there" in why(world, service)
    world.run_all()
    world.rest()
    assert len(world.live(service)) == 1


def test_without_the_word_nobody_ends():
    world, low = filled("a")
    service = world.apply(chief(preempts=False))
    world.rest()
    assert ending(world, low) == []
    assert "to make room" not in why(world, service)


@pytest.mark.parametrize(
    ("kept", "is_ended"),
    [
        pytest.param({"priority": 100}, False, id="of equal priority"),
        pytest.param({"priority": 99}, True, id="of lower priority"),
        pytest.param({"preemptible": False}, False, id="not preemptible"),
        pytest.param({"exclusive": True}, False, id="exclusive"),
        pytest.param({"exclusive": True, "preemptible": True}, True, id="exclusive and asked for"),
        pytest.param({"mounts": (volume_mount("data"),)}, False, id="pinned"),
        pytest.param(
            {"mounts": (volume_mount("data"),), "preemptible": True}, True, id="pinned, asked for"
        ),
    ],
)
def test_who_may_be_ended(kept, is_ended):
    world, low = filled("a", replicas=1, memory=8 * GIB, **kept)
    service = world.apply(chief())
    world.rest()
    assert bool(ending(world, low)) is is_ended
    if not is_ended:
        assert "no tasks of lower priority could make room for it" in why(world, service)


@pytest.mark.parametrize(("least", "ended"), [(0, 2), (3, 1), (4, 0)])
def test_a_service_keeps_its_minimum(least, ended):
    world, low = filled("a", "b", min_replicas=least)
    world.apply(chief(), replicas=2)
    for _ in range(3):
        world.rest()
    assert len(ending(world, low)) == ended
    world.settle(60)
    assert len(world.live(low)) == 4 - ended


def test_only_what_is_seen_to_run_counts_towards_the_minimum():
    world, low = filled("a", "b", min_replicas=3)
    sick = world.live(low)[0]
    world.report(sick.id, S.BACKOFF)
    world.apply(chief())
    world.rest()
    assert ending(world, low) == []


def test_the_room_is_kept_until_all_of_it_is_there():
    world, low = filled("a")
    service = world.apply(chief(memory=8 * GIB))
    world.rest()
    first, second = ending(world, low)
    world.report(first.id, S.SHUTDOWN)
    other = world.apply(spec("other", memory=GIB))
    world.rest()
    assert world.live(service) == []
    # Neither the slot that gave way nor a newcomer gets what was freed so far.
    assert world.live(low) == []
    assert world.live(other) == []
    world.report(second.id, S.SHUTDOWN)
    world.rest()
    assert len(world.live(service)) == 1


def test_a_slot_of_higher_priority_may_take_the_room():
    world, low = filled("a")
    world.apply(chief(memory=8 * GIB))
    world.rest()
    world.report(ending(world, low)[0].id, S.SHUTDOWN)
    urgent = world.apply(chief("urgent", priority=200, preempts=False))
    world.rest()
    assert len(world.live(urgent)) == 1


def test_room_that_comes_up_elsewhere_is_taken():
    world, low = filled("a")
    service = world.apply(chief())
    world.rest()
    (victim,) = ending(world, low)
    world.add_node("b", 2)
    world.rest()
    assert [task.node for task in world.live(service)] == ["node-b"]
    world.settle(60)
    assert len(world.live(low)) == 2
    assert world.tables.task(victim.id) is None or world.tables.task(victim.id).outcome


def test_several_slots_make_room_each_for_itself():
    world, low = filled("a", "b")
    service = world.apply(chief(), replicas=3)
    world.rest()
    assert len(ending(world, low)) == 3
    world.run_all()
    world.rest()
    assert len(world.live(service)) == 3
    assert len(world.live(low)) == 1


@pytest.mark.parametrize("limit", ["LOOKED_MAX", "TRIED_MAX"])
def test_what_was_begun_takes_no_turn_from_those_that_come_next(monkeypatch, limit):
    monkeypatch.setattr(preemption, "DECISIONS_MIN", 1 if limit == "LOOKED_MAX" else 9)
    monkeypatch.setattr(preemption, limit, 1)
    world, low = filled("a", "b")
    service = world.apply(chief(replicas=3))
    looks = [world.look() for _ in range(4)]
    # One in each look, while those of before still stop; and what was begun stays begun.
    assert [len(each) for each in looks] == [1, 1, 1, 0]
    assert len(ending(world, low)) == 3
    assert len(world.nominations.standing([], [])) == 3
    world.run_all()
    world.rest()
    assert len(world.live(service)) == 3


def test_priorities_give_way_one_after_the_other_and_it_ends():
    world, low = filled("a", "b")
    middle = world.apply(chief("middle", priority=50), replicas=4)
    world.settle(60)
    top = world.apply(chief("top", priority=90), replicas=3)
    world.settle(60)
    counts = [len(world.live(each)) for each in (top, middle, low)]
    assert counts == [3, 1, 0]
    world.rest()


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.READY])
def test_nobody_ends_before_every_node_has_reported(state):
    world, low = filled("a")
    world.add_node("b", 2)
    world.set_state("node-b", state, reported=False)
    world.set_availability("node-a", Availability.ACTIVE)
    service = world.apply(chief(memory=4 * GIB, container=None, exclusive=True), replicas=2)
    if state is NodeState.UNKNOWN:
        world.rest()
        assert ending(world, low) == []
        assert "before node b has reported or is down" in why(world, service)
        world.set_state("node-b", NodeState.DOWN)
        world.rest()
        assert len(ending(world, low)) == 2
    else:
        world.scale(service, 3)
        world.rest()
        assert ending(world, low) == []


def test_nobody_ends_while_the_brake_is_on_but_what_was_begun_is_kept():
    world, low = filled("a", "b")
    service = world.apply(chief())
    world.rest()
    assert len(ending(world, low)) == 1
    late = world.apply(chief("late"))
    world.observed.brake = Brake(since=0.0, since_ms=0, silent=(), counted=(), cause="a cut")
    world.rest()
    assert len(ending(world, low)) == 1
    assert "while the brake is on" in why(world, late)
    world.run_all()
    world.rest()
    assert len(world.live(service)) == 1
    world.observed.brake = None
    world.rest()
    assert len(ending(world, low)) == 1


def test_a_stand_in_for_a_task_on_a_silent_node_ends_nobody_before_that_is_down():
    world = world_of("a", "b")
    service = world.apply(chief(memory=8 * GIB))
    world.rest()
    low = world.apply(spec("low", memory=8 * GIB))
    world.settle(20)
    (task,) = world.live(service)
    world.set_state(task.node, NodeState.SUSPECT)
    world.rest()
    assert ending(world, low) == []
    assert "is down" in why(world, service)
    world.set_state(task.node, NodeState.DOWN)
    world.rest()
    assert len(ending(world, low)) == 1


def test_a_slot_that_fails_again_and_again_ends_nobody_more():
    world, low = filled("a", "b", "c")
    service = world.apply(chief(memory=8 * GIB, restart=RestartPolicy()))
    world.rest()
    for _ in range(3):
        world.run_all()
        world.rest()
        for task in world.live(service):
            world.observed.forget(task.id)
            world.report(task.id, S.REJECTED)
        world.rest()
        world.pass_time(10)
    world.rest()
    assert "tasks of it ended badly" in why(world, service)
    assert len({task.node for task in world.tables.tasks_of_service(service)}) == 2
    world.settle(60)
    assert len(world.live(low)) >= 2


def test_what_it_depends_on_stays():
    world, low = filled("a", replicas=1, memory=8 * GIB)
    service = world.apply(chief(depends_on=(Dependency(service="low"),)))
    world.rest()
    assert ending(world, low) == []
    assert "no tasks of lower priority" in why(world, service)


def test_a_global_service_makes_room_on_its_node():
    world, low = filled("a", "b")
    world.apply(chief("mon", mode=Mode.GLOBAL))
    world.rest()
    assert sorted(task.node for task in ending(world, low)) == ["node-a", "node-b"]


def test_of_a_removed_service_nobody_else_has_to_end():
    world, low = filled("a", replicas=1)
    gone = world.apply(spec("gone", memory=4 * GIB))
    world.settle(20)
    world.remove(gone)
    service = world.apply(chief())
    world.rest()
    assert ending(world, low) == []
    assert "what is ending there" in why(world, service)


def test_nobody_ends_for_a_better_place_nor_while_it_moves():
    world, low = filled("a", replicas=1)
    service = world.apply(chief(memory=8 * GIB))
    vacancy = Vacancy(service=service, slot=1, n=1, generation=1, reason="the slot is empty")
    asked = scheduling.ask_for(world.snapshot(), world.fleet, vacancy)
    assert asked.preempts
    moving = replace(vacancy, move=Cause.OPERATOR)
    assert not scheduling.ask_for(world.snapshot(), world.fleet, moving).preempts
    (task,) = world.live(low)
    world.add_node("b", 2, memory=4 * GIB)
    world.put(replace(task, move=Move(node="node-b", n=2, cause=Cause.OPERATOR, reason="r")))
    made = scheduling.decide(world.snapshot(), world.fleet, [vacancy])
    assert made.preempted == set()


def test_a_draft_keeps_its_services_tasks():
    world, low = filled("a")
    service = world.apply(chief(), stack="other")
    stack = world.tables.stack("shop")
    world.put(replace(stack, draft="d1"))
    world.rest()
    assert ending(world, low) == []
    world.put(stack)
    world.rest()
    assert len(ending(world, low)) == 1
    assert world.live(service) == []


def test_only_so_many_end_at_once_as_the_node_obeys():
    """An agent holds a reconciler's stops of more than three, or a quarter, at once."""
    world, low = filled("a", replicas=8, memory=GIB)
    world.apply(chief(memory=5 * GIB))
    changes, _ = world.decide()
    keys = {change.key for change in changes if change.key.startswith("tasks/")}
    assert len(keys) == 5
    pace = Pace(world.now)
    world.pass_time(WINDOW_SECONDS + 1)
    now, late, again = pace.postpone(world.snapshot(), changes, keys)
    assert (len(now), len(late)) == (3, 2)
    assert again > world.now
    world.commit(now)
    # What is late comes to the same two: what was begun is finished.
    changes, _ = world.decide()
    assert {change.key for change in changes} == {change.key for change in late}
    now, late, _ = pace.postpone(world.snapshot(), changes, keys)
    assert (len(now), len(late)) == (0, 2)
    for task in ending(world, low):
        world.report(task.id, S.SHUTDOWN)
        pace.changed(task, None, world.now)
    world.commit(world.decide()[0][:3])
    _, late, _ = pace.postpone(world.snapshot(), changes, keys)
    assert len(late) == 2
    world.pass_time(WINDOW_SECONDS + 1)
    now, late, _ = pace.postpone(world.snapshot(), changes, keys)
    assert (len(now), len(late)) == (2, 0)


def test_plan_says_who_would_end_and_changes_nothing():
    world, low = filled("a", "b")
    service = world.apply(chief(), replicas=2)
    planned = planning.plan(world.snapshot(), [service])
    assert all(each.node and len(each.ends) == 1 for each in planned)
    assert "ends on" in planned[0].reason
    assert len({task for each in planned for task in each.ends}) == 2
    assert ending(world, low) == []
    assert world.fleet == Fleet.from_snapshot(world.snapshot())


def test_two_slots_do_not_count_on_the_end_of_the_same_task():
    world, _ = filled("a")
    service = world.apply(chief(), replicas=2)
    planned = planning.plan(world.snapshot(), [service])
    assert [len(each.ends) for each in planned] == [1, 1]
    assert planned[0].ends != planned[1].ends


def test_what_was_begun_is_finished_though_another_node_would_do_with_less_by_now():
    world, low = filled("a", replicas=8, memory=GIB)
    world.add_node("b", 2)
    huge = world.apply(spec("huge", memory=8 * GIB, preemptible=False))
    world.settle(20)
    service = world.apply(chief(memory=5 * GIB))
    changes, _ = world.decide()
    stops = [change for change in changes if change.key.startswith(f"tasks/{low}")]
    assert len(stops) == 5
    world.commit(stops[:3])
    world.apply(spec("huge", memory=8 * GIB), same_template=True)
    world.rest()
    assert (len(ending(world, low)), len(ending(world, huge))) == (5, 0)
    world.run_all()
    world.rest()
    assert [task.node for task in world.live(service)] == ["node-a"]


def test_explain_says_it_of_both():
    world, low = filled("a")
    service = world.apply(chief())
    world.rest()
    (victim,) = ending(world, low)
    assert "to make room for it" in planning.explain(world.snapshot(), service, [1])[0].reason
    said = planning.explain(world.snapshot(), low, [victim.slot])[0].reason
    assert said == "it makes room for shop/chief.1 of priority 100"
    world.run_all()
    world.rest()
    said = planning.explain(world.snapshot(), low, [victim.slot])[0].reason
    assert said.startswith("its task was stopped: it makes room for shop/chief.1 of priority 100;")
