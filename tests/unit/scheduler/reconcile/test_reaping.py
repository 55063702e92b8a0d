"""Stacks are reaped when something of theirs changed, until nothing is left; the rest hourly."""

from dataclasses import replace

from homeport.model import StackFile
from homeport.spec import FileKind, FileSpec
from scheduler.cluster import keys
from scheduler.reconcile.orphans import KEPT_SECONDS
from scheduler.reconcile.reaping import HOUR_SECONDS, Reaping
from tests.builders import World, spec


def reaped(world, reaping):
    changes = reaping.decide(world.snapshot())
    world.commit(changes)
    return [change.key for change in changes]


def file(digest="d1"):
    content = FileSpec(kind=FileKind.CONFIG, name="conf", data=b"one")
    return StackFile(stack="shop", digest=digest, spec=content)


def removed():
    """A stack that is to go, with a file, and a service that has just gone."""
    world = World()
    service = world.apply(spec("web"))
    world.put(file())
    world.put(replace(world.tables.stack("shop"), removing=True))
    old = world.tables.service(service)
    world.drop(keys.spec(service, 1))
    world.drop(keys.service(service))
    return world, old


def test_a_new_leader_looks_at_all_stacks():
    world, _ = removed()
    reaping = Reaping()
    reaping.begin(world.tables)
    assert reaped(world, reaping) == [keys.file("shop", "d1")]


def test_a_stack_is_looked_at_until_nothing_is_left_of_it():
    world, service = removed()
    reaping = Reaping()
    assert reaped(world, reaping) == [], "nobody marked it"
    reaping.changed(keys.service(service.id), service, None)
    assert reaped(world, reaping) == [keys.file("shop", "d1")]
    assert reaping.due_at <= world.now, "something is left"
    assert reaped(world, reaping) == [keys.stack("shop")]
    assert reaped(world, reaping) == []
    assert reaping.due_at > world.now


def test_a_service_that_stays_marks_nothing():
    world, service = removed()
    reaping = Reaping()
    reaping.changed(keys.service(service.id), service, replace(service, replicas=2))
    assert reaped(world, reaping) == []
    reaping.changed(keys.stack("shop"), None, world.tables.stack("shop"))
    assert reaped(world, reaping) != []


def test_what_was_not_written_is_tried_again_and_not_at_once():
    world, service = removed()
    reaping = Reaping()
    reaping.changed(keys.service(service.id), service, None)
    (change,) = reaping.decide(world.snapshot())
    reaping.failed(change, world.now + 1.0)
    assert reaping.decide(world.snapshot()) == []
    world.pass_time(1.0)
    assert reaped(world, reaping) == [change.key]


def test_a_file_of_a_stack_whose_mark_was_lost_marks_it_when_it_is_not_written():
    world, service = removed()
    reaping = Reaping()
    reaping.changed(keys.service(service.id), service, None)
    (change,) = reaping.decide(world.snapshot())
    other = Reaping()
    other.failed(change, 0.0)
    assert reaped(world, other) == [change.key]


def test_orphans_are_looked_for_once_an_hour():
    world = World()
    world.put(file())
    reaping = Reaping()
    assert reaped(world, reaping) == []
    assert reaping.due_at == world.now + HOUR_SECONDS
    world.pass_time(KEPT_SECONDS)
    assert reaped(world, reaping) == []
    world.pass_time(HOUR_SECONDS - KEPT_SECONDS)
    assert reaped(world, reaping) == [keys.file("shop", "d1")]
