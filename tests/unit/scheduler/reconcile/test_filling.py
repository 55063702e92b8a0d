"""What one look leaves to the next: who was placed, who waits, and what is said of them once."""

from homeport.model import NodeState
from homeport.spec import Constraint, ConstraintOperator, PlacementSpec
from scheduler.cluster import keys
from scheduler.cluster.stats import SILENT
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import services
from scheduler.reconcile.filling import Filling
from scheduler.reconcile.look import Look
from scheduler.reconcile.moves import STARTING_MAX
from scheduler.reconcile.scheduling import WaitingRoom
from tests.builders import GIB, World, spec

LEASE_SECONDS = 15.0


class Filled:
    """A cluster whose vacancies are filled as the controller does it."""

    def __init__(self, *, began=0.0):
        self.world = World()
        self.room = WaitingRoom()
        self.filling = Filling(began, self.room)

    def look(self, *due):
        """One look at these services, written."""
        world, look = self.world, Look()
        snapshot = world.snapshot()
        for service in due:
            look.add_decision(service, services.decide(snapshot, world.fleet, service))
        admitted = self.filling.admit(snapshot, look.vacancies, LEASE_SECONDS)
        vacancies = admitted.vacancies
        scheduled = self.filling.place(snapshot, world.fleet, look.looked, vacancies)
        filled = self.filling.settle(snapshot, look.looked, vacancies, scheduled)
        look.add_filled(filled)
        world.commit(look.changes.values())
        return filled, look

    def said(self):
        return [event.reason for event in self.world.observed.events]


def test_who_is_placed_is_known_by_the_key_of_the_record():
    it = Filled()
    it.world.add_node("a", 1)
    service = it.world.apply(spec("web", replicas=2))
    filled, look = it.look(service)
    assert list(filled.placed) == [keys.task(f"{service}/{slot}/1") for slot in (1, 2)]
    assert look.placed.keys() <= look.changes.keys()
    assert set(look.owners.values()) == {service}
    assert (filled.moves, filled.again, it.said()) == ({}, [], [])


def test_who_waits_is_woken_by_room_and_who_was_placed_since_is_not():
    it = Filled()
    service = it.world.apply(spec("web"))
    it.look(service)
    assert it.room.everybody() == [service]
    node = it.world.add_node("a", 1)
    assert it.room.woken_by(it.world.fleet, node) == [service]
    it.look(service)
    assert it.room.everybody() == []


def test_who_waits_is_told_once_until_the_reason_is_another():
    it = Filled()
    it.world.add_node("a", 1, memory=GIB)
    service = it.world.apply(spec("web", replicas=3, memory=2 * GIB))
    it.look(service)
    it.look(service)
    assert it.said() == ["Waiting"], "three slots have one reason"
    assert sorted(it.world.observed.waiting[service]) == [1, 2, 3]
    it.world.add_node("b", 2, memory=GIB)
    it.look(service)
    assert it.said() == ["Waiting", "Waiting"]


def test_a_service_is_looked_at_once_more_when_every_node_has_just_refused_it():
    it = Filled()
    it.world.add_node("a", 1, memory=GIB)
    service = it.world.apply(spec("web", replicas=3, memory=2 * GIB))
    assert it.look(service)[0].again == [service]
    assert it.look(service)[0].again == []


def test_a_move_from_a_silent_node_is_counted_as_one_and_held_back_while_the_leader_is_young():
    it = Filled(began=1000.0)
    world = it.world
    world.add_node("a", 1)
    service = world.apply(spec("web"))
    it.look(service)
    world.run_all()
    world.add_node("b", 2)
    world.set_state("node-a", NodeState.DOWN)
    filled, _ = it.look(service)
    assert filled.placed == {}
    assert "has led for as long" in world.observed.waiting[service][1].reason
    world.pass_time(LEASE_SECONDS)
    filled, _ = it.look(service)
    assert filled.moves == {keys.task(f"{service}/1/2"): SILENT}


def test_replacements_of_a_suspected_nodes_tasks_count_as_starting_until_they_run():
    it = Filled()
    world = it.world
    world.add_node("a", 1)
    service = world.apply(spec("web", replicas=STARTING_MAX + 2))
    it.look(service)
    world.run_all()
    world.add_node("b", 2)
    world.set_state("node-a", NodeState.SUSPECT)
    assert len(it.look(service)[0].placed) == STARTING_MAX
    assert len(it.look(service)[0].placed) == 0
    world.run_all()
    assert len(it.look(service)[0].placed) == 2


def test_tasks_that_should_leave_and_find_no_node_wait_for_room_too():
    it = Filled()
    world = it.world
    on_a = Constraint(key="node.hostname", operator=ConstraintOperator.EQ, value="a")
    node = world.add_node("a", 1)
    service = world.apply(spec("web", placement=PlacementSpec(constraints=(on_a,))))
    it.look(service)
    world.run_all()
    world.set_availability(node, world.tables.node(node).availability.DRAIN)
    it.look(service)
    assert it.room.everybody() == [service]


def test_room_that_was_made_is_free_for_others_when_it_is_wanted_no_more():
    it = Filled()
    world = it.world
    node = world.add_node("a", 1, memory=4 * GIB)
    low = world.apply(spec("low", memory=4 * GIB))
    it.look(low)
    world.run_all()
    chief = world.apply(spec("chief", memory=4 * GIB, priority=10, preempts=True))
    filled, look = it.look(chief)
    (victim,) = world.tables.tasks_of_service(low)
    assert filled.preempted == look.preempted == {keys.task(victim.id)}
    assert filled.roomier == []
    world.remove(chief)
    filled, _ = it.look(chief)
    assert filled.roomier == [node]


def test_a_placement_that_is_not_written_can_be_taken_back():
    it = Filled()
    world = it.world
    world.add_node("a", 1)
    service = world.apply(spec("web"))
    snapshot = world.snapshot()
    look = Look()
    look.add_decision(service, services.decide(snapshot, world.fleet, service))
    scheduled = it.filling.place(snapshot, world.fleet, look.looked, look.vacancies)
    filled = it.filling.settle(snapshot, look.looked, look.vacancies, scheduled)
    assert world.fleet != Fleet.from_snapshot(world.snapshot())
    world.undo(filled.placed.values())
    assert world.fleet == Fleet.from_snapshot(world.snapshot())


def test_one_that_wants_nothing_any_more_waits_no_longer_while_others_do():
    it = Filled()
    world = it.world
    world.add_node("a", 1, memory=GIB)
    first = world.apply(spec("web", memory=2 * GIB))
    second = world.apply(spec("other", memory=3 * GIB))
    it.look(first, second)
    assert it.room.everybody() == [first, second]
    world.scale(first, 0)
    it.look(first)
    assert it.room.everybody() == [second]
    assert list(world.observed.waiting) == [second]
