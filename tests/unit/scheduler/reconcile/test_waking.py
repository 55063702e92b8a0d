"""Each change wakes those to whom it may mean something, and nobody else."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import NodeState, Outcome, Rollout, Stack, Task
from homeport.spec import Dependency, Mode, Neighbour, PlacementSpec
from scheduler.cluster import keys
from scheduler.reconcile.agenda import Agenda
from scheduler.reconcile.scheduling import WaitingRoom, ask_for
from scheduler.reconcile.slots import Vacancy
from scheduler.reconcile.waking import PREEMPT_SECONDS, Waking
from tests.builders import GIB, World, spec


class Woken:
    """A cluster, whom its changes wake, and who waits in it."""

    def __init__(self):
        self.world = World()
        self.agenda = Agenda()
        self.room = WaitingRoom()
        self.waking = Waking(self.agenda, self.room)

    def take(self):
        """Who is due now."""
        return self.agenda.take(100)

    def put(self, value):
        """Store a value, whatever was there, and say so as the mirror does."""
        key = keys.key_of(value)
        old = self.world.tables.value(key)
        self.world.put(value)
        self.changed(key, old, value)

    def drop(self, key):
        old = self.world.tables.value(key)
        self.world.drop(key)
        self.changed(key, old, None)

    def changed(self, key, old, new):
        if key.startswith("tasks/"):
            task = key.partition("/")[2]
            self.waking.task_changed(self.world.fleet, task, old, new)
        else:
            self.waking.changed(self.world.tables, key, old, new)

    def waits(self, service, **fields):
        """Its first slot found no node."""
        snapshot = self.world.snapshot()
        vacancy = Vacancy(service=service, slot=1, n=1, generation=1, reason="it is new", **fields)
        self.room.replace(service, [ask_for(snapshot, self.world.fleet, vacancy)])

    def fits(self):
        """Who is woken for the room that came."""
        self.waking.wake_who_fits(self.world.fleet)
        return self.take()


def task_of(service, node="node-a", **fields):
    return Task(service=service, slot=1, n=1, node=node, generation=1, **fields)


@pytest.fixture
def woken():
    woken = Woken()
    woken.world.add_node("a", 1)
    woken.world.add_node("b", 2)
    return woken


def test_a_new_leader_looks_at_every_service_once(woken):
    services = [woken.world.apply(spec(name)) for name in ("one", "two")]
    woken.waking.begin(woken.world.tables)
    assert sorted(woken.take()) == sorted(services)
    assert woken.take() == []


@pytest.mark.parametrize("what", ["service", "spec", "rollout", "task"])
def test_a_record_of_a_service_wakes_that_service_alone(woken, what):
    service = woken.world.apply(spec("web"))
    woken.world.apply(spec("other"))
    tables = woken.world.tables
    record = {
        "service": tables.service(service),
        "spec": tables.spec(service, 1),
        "rollout": Rollout(service=service, generation=1),
        "task": task_of(service),
    }[what]
    woken.put(record)
    assert woken.take() == [service]
    woken.drop(keys.key_of(record))
    assert woken.take() == [service]


def test_those_wake_too_that_wait_for_the_service(woken):
    db = woken.world.apply(spec("db"))
    web = woken.world.apply(spec("web", depends_on=(Dependency(service="db"),)))
    woken.agenda.awaits(web, (db,))
    woken.put(task_of(db))
    assert woken.take() == [db, web]


def test_a_node_wakes_those_on_it_and_those_that_are_to_be_on_every_node(woken):
    world = woken.world
    here, there = world.apply(spec("here")), world.apply(spec("there"))
    every = world.apply(spec("every", mode=Mode.GLOBAL))
    woken.waking.begin(world.tables)
    world.put(task_of(here, "node-a"))
    world.put(task_of(there, "node-b"))
    woken.take()
    woken.put(world.tables.node("node-a"))
    assert woken.take() == [here, every]
    # One that is global no more, and one that is gone, are not on every node.
    woken.put(replace(world.tables.service(every), mode=Mode.REPLICATED))
    woken.take()
    woken.waking.node_changed(world.tables, "node-a")
    assert woken.take() == [here]


def test_a_global_service_that_is_gone_is_woken_by_no_node(woken):
    every = woken.world.apply(spec("every", mode=Mode.GLOBAL))
    woken.waking.begin(woken.world.tables)
    woken.drop(keys.service(every))
    woken.take()
    woken.waking.node_changed(woken.world.tables, "node-a")
    assert woken.take() == []


def test_the_end_of_a_draft_wakes_the_services_of_its_stack(woken):
    service = woken.world.apply(spec("web"))
    woken.world.apply(spec("other"), stack="home")
    woken.changed("stacks/shop", Stack(name="shop"), Stack(name="shop"))
    assert woken.take() == []
    woken.changed("stacks/shop", Stack(name="shop", draft="d"), Stack(name="shop"))
    assert woken.take() == [service]


def test_a_volume_that_goes_wakes_everybody_who_waits(woken):
    service = woken.world.apply(spec("web"))
    woken.world.apply(spec("well"))
    woken.waits(service)
    woken.changed("volumes/shop/data/node-a", None, object())
    assert woken.take() == []
    woken.changed("volumes/shop/data/node-a", object(), None)
    assert woken.take() == [service]


def test_the_end_of_a_task_wakes_who_fits_in_its_room(woken):
    world = woken.world
    held = world.apply(spec("held", memory=8 * GIB))
    small, large = (
        world.apply(spec("small", memory=GIB)),
        world.apply(spec("large", memory=1 << 40)),
    )
    for name in ("a", "b"):
        world.put(replace(task_of(held, f"node-{name}"), slot=1 + (name == "b")))
    woken.waits(small)
    woken.waits(large)
    task = world.tables.tasks_of_service(held)[0]
    woken.put(replace(task, outcome=Outcome(state=TaskState.FAILED)))
    assert woken.take() == [held]
    assert woken.fits() == [small]
    assert woken.fits() == [], "it is asked about once"


def test_a_task_that_is_placed_wakes_those_that_wait_to_be_near_it(woken):
    world = woken.world
    beside = Neighbour(service="shop/db", key="node.id")
    web = world.apply(spec("web", placement=PlacementSpec(neighbours=(beside,))))
    db = world.apply(spec("db"))
    woken.put(task_of(db))
    woken.take()
    assert woken.fits() == [], "nobody waits"
    woken.waits(web)
    woken.put(replace(task_of(db), n=2))
    woken.take()
    assert woken.fits() == [web]


def test_room_that_is_kept_for_nobody_any_more_wakes_who_fits(woken):
    service = woken.world.apply(spec("web"))
    woken.waits(service)
    woken.waking.room_came(["node-a"])
    assert woken.fits() == [service]


def test_a_report_of_progress_wakes_nobody_but_dependents_while_all_is_well(woken):
    db, web = woken.world.apply(spec("db")), woken.world.apply(spec("web"))
    woken.agenda.awaits(web, (db,))
    woken.waking.looked(db, is_calm=True)
    woken.waking.reported((), (db,), 0.0)
    assert woken.take() == [web]
    woken.waking.reported((db,), (), 0.0)
    assert woken.take() == [db, web], "but an end is something else"
    woken.waking.looked(db, is_calm=False)
    woken.waking.reported((), (db,), 0.0)
    assert woken.take() == [db, web]


def test_whoever_may_preempt_is_looked_at_a_while_after_any_change(woken):
    service = woken.world.apply(spec("chief", preempts=True, priority=10))
    other = woken.world.apply(spec("other"))
    woken.waits(service)
    woken.waking.reported((), (), 100.0)
    assert woken.agenda.next_time() is None
    woken.waking.reported((), (other,), 100.0)
    assert woken.agenda.next_time() == 100.0 + PREEMPT_SECONDS
    woken.take()
    woken.waking.node_changed(woken.world.tables, "node-a")
    assert woken.take() == [service], "a node may be what kept it"


def test_a_change_of_the_brake_wakes_once_whom_it_held_and_who_may_preempt(woken):
    held, chief = woken.world.apply(spec("held")), woken.world.apply(spec("chief", preempts=True))
    woken.waits(chief)
    woken.waking.held_by_brake([held])
    woken.waking.brake_changed()
    assert woken.take() == [held, chief]
    woken.waking.brake_changed()
    assert woken.take() == [chief]


def test_a_node_that_is_not_ready_wakes_nobody_for_room(woken):
    service = woken.world.apply(spec("web"))
    woken.waits(service)
    for name in ("node-a", "node-b"):
        woken.world.set_state(name, NodeState.DOWN)
    woken.waking.node_changed(woken.world.tables, "node-a")
    assert woken.fits() == []
