"""A record is proposed once, and what is known of a proposal is known by its key."""

from dataclasses import replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, Task, Volume
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Put
from scheduler.reconcile.filling import Filled
from scheduler.reconcile.look import Look
from scheduler.reconcile.pace import AT_ONCE_MAX, WINDOW_SECONDS, Pace
from tests.builders import World, spec


def put(value, reason="because"):
    return Put(value, ABSENT, reason)


def ending(service, slot):
    return Task(
        service=service,
        slot=slot,
        n=1,
        node="node-a",
        generation=1,
        desired=Desired.REMOVED,
        cause=Cause.RECONCILER,
    )


def test_the_first_that_speaks_of_a_record_is_heard():
    look = Look()
    volume = Volume(stack="shop", name="data", node="node-a")
    look.add([put(volume, "first")], "one")
    look.add([put(volume, "second"), put(replace(volume, name="more"), "second")], "two")
    assert [change.reason for change in look.changes.values()] == ["first", "second"]
    assert list(look.owners.values()) == ["one", "two"]


def test_what_belongs_to_no_service_has_no_owner():
    look = Look()
    look.add([put(Volume(stack="shop", name="data", node="node-a"))])
    assert len(look.changes) == 1
    assert look.owners == {}


def test_what_somebody_else_has_ended_does_not_end_to_make_room():
    first, second = ending("low", 1), ending("low", 2)
    look = Look()
    look.add([put(first, "it is scaled down")], "low")
    changes = {"chief": [put(first, "room"), put(second, "room")]}
    look.add_filled(
        Filled(changes=changes, preempted={keys.task(each.id) for each in (first, second)})
    )
    assert look.preempted == {keys.task(second.id)}


def test_tasks_that_are_to_move_belong_to_their_service():
    look = Look()
    look.add_moves([put(ending("web", 1))])
    assert look.owners == {keys.task("web/1/1"): "web"}


def test_no_more_ends_are_proposed_than_agents_obey_and_their_services_are_looked_at_later():
    world = World()
    world.add_node("a", 1)
    service = world.apply(spec("web", replicas=5))
    tasks = [ending(service, slot) for slot in range(1, 6)]
    for task in tasks:
        world.put(replace(task, desired=Desired.RUNNING, cause=Cause.OPERATOR))
        world.report(task.id, TaskState.RUNNING)
    look = Look()
    look.add([put(task) for task in tasks], service)
    pace = Pace(world.now - WINDOW_SECONDS)
    later = look.slow_down(world.snapshot(), pace)
    assert later == ([service, service], world.now + WINDOW_SECONDS)
    assert list(look.changes) == [keys.task(task.id) for task in tasks[:AT_ONCE_MAX]]
