"""Stories that the simulation told first: each failed once, under a seed that found it."""

from dataclasses import replace

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, NodeState, OrderId, Outcome, RolloutState
from homeport.spec import pairs
from scheduler.cluster import keys
from scheduler.dispatch import assignments
from scheduler.reconcile import replicas, slots
from scheduler.reconcile.pace import WINDOW_SECONDS, Pace
from tests.builders import World, spec


def edition(number):
    each = spec("web")
    return replace(each, container=replace(each.container, env=pairs({"VERSION": str(number)})))


def test_a_slot_counts_on_though_its_newest_record_is_gone_and_an_older_one_is_left():
    """The older task's node is down: its record stays, and the newest was forgotten."""
    world = World()
    for number, name in enumerate(("a", "b"), start=1):
        world.add_node(name, number)
    service = world.apply(spec("web"))
    world.rest()
    world.run_all()
    first = world.live(service)[0]
    world.set_state(first.node, NodeState.DOWN)
    world.rest()
    world.run_all()
    second = world.live(service)[-1]
    assert (first.n, second.n) == (1, 2)
    world.put(replace(world.tables.service(service), last_n=2))
    world.drop(keys.task(second.id))
    slot = slots.of_service(world.snapshot(), service)[1]
    assert [task.n for task in slot.tasks] == [1]
    assert slots.next_n(world.tables.service(service), slot) == 3


def test_a_rollout_that_a_newer_generation_overtakes_comes_to_an_end():
    """The last old task was being stopped when the next generation came."""
    world = World()
    world.add_node("a", 1)
    service = world.apply(edition(1))
    world.settle(60)
    world.apply(edition(2))
    world.rest()
    assert world.tables.rollout(service).state is RolloutState.UPDATING
    world.apply(edition(3))
    world.settle(60)
    assert [task.generation for task in world.live(service)] == [3]
    rollout = world.tables.rollout(service)
    assert (rollout.generation, rollout.state) == (3, RolloutState.COMPLETED)


class Surplus:
    """A node with eight running tasks that a reconciler does not want there any more."""

    def __init__(self):
        self.world = World()
        self.world.add_node("a", 1)
        self.service = self.world.apply(spec("web"), replicas=8)
        self.world.settle(60)
        self.pace = Pace(self.world.now)

    def ask(self, cause=Cause.RECONCILER):
        """Which of its removals may be written now: (how many, how many later)."""
        snapshot = self.world.snapshot()
        tasks = self.world.live(self.service)
        now, late, _ = self.pace.postpone(
            snapshot, replicas.remove(snapshot, tasks, cause, "surplus")
        )
        self.world.commit(now)
        return len(now), len(late)

    def gone(self):
        """The node has reported those that were to go, and their records are deleted."""
        for task in self.world.tables.tasks_of_service(self.service):
            if task.desired is Desired.REMOVED:
                self.world.drop(keys.task(task.id))
                self.pace.changed(task, None, self.world.now)


def test_surplus_goes_three_at_a_time_counted_from_when_the_last_were_gone():
    surplus = Surplus()
    assert surplus.ask() == (0, 8), "a new leader does not know what was stopped just before"
    surplus.world.pass_time(WINDOW_SECONDS)
    assert surplus.ask() == (3, 5)
    surplus.world.pass_time(10 * WINDOW_SECONDS)
    assert surplus.ask() == (0, 5), "the node may not have heard of them yet"
    surplus.gone()
    assert surplus.ask() == (0, 5), "its brake counts those that were just stopped"
    surplus.world.pass_time(WINDOW_SECONDS)
    assert surplus.ask() == (3, 2)


def test_an_operators_word_keeps_no_pace():
    assert Surplus().ask(Cause.OPERATOR) == (8, 0)


def test_a_new_session_is_told_not_to_run_what_has_ended_for_good():
    """A power cut may have taken the agent's memory of the end, and the container starts anew."""
    world = World()
    node = world.add_node("a", 1)
    service = world.apply(spec("web"))
    world.settle(60)
    task = world.live(service)[0]
    failed = replace(task, outcome=Outcome(state=TaskState.FAILED))
    world.put(failed)
    order = OrderId(cluster="c", incarnation=1, epoch=1, revision=9)
    view = world.snapshot().stored
    orders = assignments.plan(assignments.Told(), view, view.tasks_of_node(node), order, changed=())
    assert [each.desired for each in orders[0].tasks] == [Desired.SHUTDOWN]
