"""How a move is carried out: the successor first, and the old task goes when that is well."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Cause, Health, Move, NodeState, Task
from homeport.spec import UpdateConfig
from scheduler.cluster.observed import Brake
from scheduler.reconcile import planning
from scheduler.reconcile.relocating import PATIENCE_SECONDS
from scheduler.reconcile.turns import AT_ONCE_MAX, Turns
from tests.builders import World, spec

MONITOR_MS = 5_000


class Home(World):
    """Nodes a and b; a service's tasks run on a, and the test has them moved to b."""

    def __init__(self, replicas=1, **fields):
        super().__init__()
        self.add_node("a", 1)
        self.service = self.apply(spec("web", **fields), replicas=replicas)
        self.settle(40)
        self.add_node("b", 2)
        self.add_node("c", 3)

    def move(self, slot=1, to="b", cause=Cause.OPERATOR):
        (task,) = self.live(self.service, slot)
        move = Move(node=f"node-{to}", n=task.n + 1, cause=cause, reason="node b has more room")
        self.put(replace(task, move=move))
        return self

    def task(self, n, slot=1):
        return self.tables.task(f"{self.service}/{slot}/{n}")

    def new(self, state=TaskState.RUNNING, **fields):
        """The successor's agent reports."""
        self.report(f"{self.service}/1/2", state, **fields)
        self.rest()
        return self

    def watched(self):
        """As long as a rollout would watch a new task."""
        self.pass_time(MONITOR_MS / 1000)
        self.rest()
        return self

    def where(self):
        """The nodes of the tasks that are wanted."""
        return self.nodes_of(self.service)


def moving(**fields):
    home = Home(**fields).move()
    home.rest()
    return home


def test_the_successor_is_there_before_the_old_task_goes():
    home = moving()
    assert home.where() == ["a", "b"]
    assert "it moves from node a: node b has more room" in home.task(2).reason
    home.new(TaskState.PREPARING)
    home.new(TaskState.RUNNING)
    assert home.where() == ["a", "b"]
    home.watched()
    assert home.where() == ["b"]
    assert home.task(1).desired is Desired.REMOVED
    assert home.task(1).cause is Cause.OPERATOR
    assert home.task(2).moved_ms == 0


def test_explain_says_where_a_task_is_to_go():
    home = Home().move()
    (found,) = planning.explain(home.snapshot(), home.service, [1])
    assert found.reason == "it is to move to node b: node b has more room"


def test_a_successor_with_a_health_check_must_be_healthy():
    home = moving().new(TaskState.RUNNING, health=Health.STARTING).watched().watched()
    assert home.where() == ["a", "b"]
    assert home.new(TaskState.RUNNING, health=Health.HEALTHY).where() == ["b"]


def test_whose_wish_it_was_is_in_the_record():
    home = Home().move(cause=Cause.RECONCILER)
    home.rest()
    home.new().watched()
    assert home.task(2).moved_ms == home.task(2).created_ms
    assert home.task(1).cause is Cause.RECONCILER


def fails(home):
    home.new(TaskState.BACKOFF, message="exit 1")


def is_unwell(home):
    home.new(TaskState.RUNNING, health=Health.UNHEALTHY)


def ends(home):
    home.new(TaskState.REJECTED, message="no such image")


def falls_silent(home):
    home.set_state("node-b", NodeState.SUSPECT)
    home.rest()


def never_runs(home):
    home.new(TaskState.PREPARING)
    home.pass_time(PATIENCE_SECONDS + 1)
    home.rest()


@pytest.mark.parametrize("trouble", [fails, is_unwell, ends, falls_silent, never_runs])
def test_a_successor_that_does_not_come_up_goes_and_the_old_task_stays(trouble):
    home = moving()
    trouble(home)
    assert home.where() == ["a"]
    assert home.task(1).move is None
    home.rest()
    assert home.where() == ["a"]


def test_a_successor_that_came_up_is_not_given_up_for_a_restart_of_before():
    home = moving().new().watched()
    assert home.where() == ["b"]


def test_the_old_tasks_node_falls_silent_and_the_move_goes_on():
    home = moving()
    home.set_state("node-a", NodeState.SUSPECT)
    home.new().watched()
    assert home.where() == ["b"]


def test_a_node_that_would_not_take_it_any_more_ends_the_move():
    home = Home().move()
    home.set_availability("node-b", Availability.PAUSE)
    home.rest()
    assert home.where() == ["a"]
    assert home.task(1).move is None
    assert "takes no new tasks" in home.log[-1].reason


def test_a_new_generation_ends_what_has_not_begun():
    home = Home()
    home.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="2 of 3")
    home.move()
    home.apply(spec("web", cpu=100), replicas=1)
    home.rest()
    assert home.task(1).move is None


def test_a_new_generation_in_the_moment_of_its_turn_gets_no_task_beside_the_old_one():
    home = Home().move()
    home.apply(spec("web", exclusive=True), replicas=1)
    home.rest()
    assert home.task(1).desired is Desired.SHUTDOWN
    assert home.task(2) is None
    home.settle(60)
    (task,) = home.live(home.service)
    assert task.generation == 2


def test_what_has_become_exclusive_since_gets_no_second_copy():
    home = Home().move()
    home.apply(spec("web", exclusive=True), replicas=1, same_template=True)
    home.rest()
    assert home.where() == ["a"]
    assert home.task(1).move is None
    assert home.task(2) is None


def test_a_mark_that_speaks_of_another_task_than_the_slot_has_keeps_no_two_copies():
    home = moving().new()
    old = home.task(1)
    home.put(replace(old, move=replace(old.move, n=3)))
    home.settle(60)
    assert len(home.where()) == 1


@pytest.mark.parametrize("old", [NodeState.SUSPECT, NodeState.DOWN])
def test_what_may_be_the_only_copy_is_not_given_up_for_a_silence(old):
    home = moving().new()
    home.set_state("node-a", old)
    home.set_state("node-b", NodeState.SUSPECT)
    home.rest()
    assert home.task(2).desired is Desired.RUNNING
    home.set_state("node-b", NodeState.READY)
    home.watched()
    assert home.task(2).desired is Desired.RUNNING


def test_where_both_nodes_are_down_a_third_takes_its_place():
    home = moving().new()
    home.set_state("node-a", NodeState.DOWN)
    home.set_state("node-b", NodeState.DOWN)
    home.rest()
    assert home.where() == ["b", "c"]


def test_what_was_seen_of_the_successor_before_a_silence_proves_nothing():
    home = moving().new()
    for node in ("node-a", "node-b"):
        home.set_state(node, NodeState.UNKNOWN, reported=False)
    home.watched()
    assert home.where() == ["a", "b"]
    for node in ("node-a", "node-b"):
        home.set_state(node, NodeState.READY)
    home.rest()
    assert home.where() == ["b"]


def test_a_service_that_is_removed_takes_both_with_it():
    home = moving()
    home.remove(home.service)
    home.settle(60)
    assert list(home.tables.tasks()) == []


def test_an_exclusive_task_stops_first_and_starts_where_it_was_to_go():
    home = Home(exclusive=True).move(to="c")
    home.rest()
    assert home.task(1).desired is Desired.SHUTDOWN
    assert home.task(2) is None
    home.report(f"{home.service}/1/1", TaskState.SHUTDOWN)
    home.rest()
    assert home.where() == ["c"]


def test_where_its_new_node_is_gone_meanwhile_it_starts_on_another():
    home = Home(exclusive=True).move(to="c")
    home.rest()
    home.set_state("node-c", NodeState.DOWN)
    home.report(f"{home.service}/1/1", TaskState.SHUTDOWN)
    home.rest()
    assert home.where() == ["a"] or home.where() == ["b"]


def test_under_a_new_leader_it_waits_to_hear_of_its_new_node():
    home = Home(exclusive=True).move(to="c")
    home.rest()
    home.set_state("node-c", NodeState.UNKNOWN, reported=False)
    home.report(f"{home.service}/1/1", TaskState.SHUTDOWN)
    home.rest()
    assert home.where() == []
    waiting = home.observed.waiting[home.service][1]
    assert "waits for node c, where it moves to" in waiting.reason
    home.set_state("node-c", NodeState.READY)
    home.rest()
    assert home.where() == ["c"]


def test_two_replicas_of_a_rollout_watch_for_as_long_as_their_spec_says():
    home = moving(update=UpdateConfig(monitor_ms=60_000)).new().watched()
    assert home.where() == ["a", "b"]
    home.pass_time(60)
    home.rest()
    assert home.where() == ["b"]


# ---------------------------------------------------------------- turns


def crowd(**fields):
    home = Home(replicas=6, **fields)
    for slot in range(1, 7):
        home.move(slot)
    return home


def test_a_few_are_under_way_at_once():
    home = crowd()
    home.rest()
    assert home.where().count("b") == AT_ONCE_MAX
    home.run_all()
    home.rest()
    home.pass_time(MONITOR_MS / 1000)
    home.rest()
    assert home.where().count("b") == 6
    home.settle(60)
    assert home.where() == ["b"] * 6


def test_nothing_begins_under_the_brake():
    home = crowd()
    home.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="2 of 3")
    home.rest()
    assert home.where().count("b") == 0


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_turn_that_has_led_to_nothing_when_the_brake_comes_is_waited_for_again(exclusive):
    home = Home(exclusive=exclusive).move()
    assert home.turns.begin(home.snapshot(), home.fleet, 15.0).services == [home.service]
    home.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="2 of 3")
    home.rest()
    assert home.where() == ["a"]
    home.observed.brake = None
    assert home.turns.begin(home.snapshot(), home.fleet, 15.0).services == [home.service]
    home.settle(60)
    assert home.where() == ["b"]


def test_nothing_begins_while_the_leader_is_younger_than_a_nodes_lease():
    home = crowd()
    turns = Turns(home.observed, began=home.now - 14)
    for task in home.live(home.service):
        turns.changed(task.id, task)
    begun = turns.begin(home.snapshot(), home.fleet, 15.0)
    assert begun.services == []
    assert begun.wake_at == home.now + 1
    home.pass_time(1)
    assert len(turns.begin(home.snapshot(), home.fleet, 15.0).services) == AT_ONCE_MAX


def test_a_new_leader_goes_on_with_what_has_begun():
    home = crowd()
    home.rest()
    home.observed.begun.clear()
    turns = Turns(home.observed, began=0.0)
    for task in home.live(home.service):
        turns.changed(task.id, task)
    assert turns.begin(home.snapshot(), home.fleet, 15.0).services == []
    assert len(home.observed.begun) == AT_ONCE_MAX


def test_a_new_leader_gives_up_nothing_before_it_has_heard_of_the_nodes():
    home = moving()
    home.observed.statuses.clear()
    home.observed.begun.clear()
    for node in ("node-a", "node-b"):
        home.set_state(node, NodeState.UNKNOWN, reported=False)
    home.rest()
    assert home.where() == ["a", "b"]
    assert home.task(1).move is not None
    for node in ("node-a", "node-b"):
        home.set_state(node, NodeState.READY)
    home.new().watched()
    assert home.where() == ["b"]


def test_a_move_to_a_node_of_which_nothing_was_heard_yet_waits():
    home = Home()
    home.set_state("node-b", NodeState.UNKNOWN, reported=False)
    home.move()
    home.rest()
    assert home.where() == ["a"]
    assert home.task(1).move is not None
    home.set_state("node-b", NodeState.READY)
    home.rest()
    assert home.where() == ["a", "b"]


def test_a_task_that_ends_before_its_move_began_starts_again_on_the_better_node():
    home = Home()
    home.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="2 of 3")
    home.move(to="c")
    home.report(f"{home.service}/1/1", TaskState.REMOVED)
    home.rest()
    home.pass_time(10)
    home.rest()
    assert home.where() == ["c"]


def test_a_node_that_is_drained_meanwhile_gives_its_task_to_the_node_that_was_planned():
    home = Home()
    home.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="2 of 3")
    home.move(to="c")
    home.set_availability("node-a", Availability.DRAIN)
    home.rest()
    home.run_all()
    home.rest()
    assert home.where() == ["c"]


def test_two_tasks_that_would_change_places_both_stay():
    home = Home(replicas=1)
    home.set_availability("node-c", Availability.PAUSE)
    other = home.apply(spec("db", memory=7 << 30), replicas=1)
    task = Task(service=other, slot=1, n=1, node="node-b", generation=1)
    home.put(replace(task, move=Move(node="node-a", n=2, reason="node a has more room")))
    home.report(task.id, TaskState.RUNNING)
    wants = home.apply(spec("cache", memory=4 << 30), replicas=1)
    second = Task(service=wants, slot=1, n=1, node="node-a", generation=1)
    home.put(replace(second, move=Move(node="node-b", n=2, reason="node b has more room")))
    home.report(second.id, TaskState.RUNNING)
    # Neither fits while the other is there.
    home.rest()
    assert home.tables.task(task.id).move is None
    assert home.tables.task(second.id).move is None


def test_a_move_whose_place_is_taken_waits_for_one_that_frees_it():
    home = Home()
    free = home.apply(spec("db", memory=5 << 30), replicas=1)
    needs = home.apply(spec("cache", memory=5 << 30), replicas=1)
    for service, here, to in ((free, "b", "c"), (needs, "a", "b")):
        task = Task(service=service, slot=1, n=1, node=f"node-{here}", generation=1)
        home.put(replace(task, move=Move(node=f"node-{to}", n=2, reason="it has more room")))
        home.report(task.id, TaskState.RUNNING)
    home.rest()
    assert home.nodes_of(free) == ["b", "c"]
    assert home.nodes_of(needs) == ["a"]
    assert home.tables.task(f"{needs}/1/1").move is not None
    home.settle(160)
    assert home.nodes_of(free) == ["c"]
    assert home.nodes_of(needs) == ["b"]


def test_a_task_that_is_gone_is_not_waited_for():
    home = crowd()
    for task in home.live(home.service):
        home.drop(f"tasks/{task.id}")
    assert not home.turns
    assert home.observed.begun == {}
