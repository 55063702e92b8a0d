"""What silence, and a return, mean for tasks: who gets a successor, and which copy stays."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Availability, Health, NodeState, Outcome
from homeport.spec import Mode
from scheduler.cluster import keys
from scheduler.cluster.observed import Liveness, Waiting
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import planning, services
from tests.builders import World, spec, volume_mount

SHAPES = {
    "replica": {},
    "exclusive": {"exclusive": True},
    "pinned": {"mounts": (volume_mount("data"),)},
    "pinned and exclusive": {"mounts": (volume_mount("data"),), "exclusive": True},
    "global": {"mode": Mode.GLOBAL},
}


class Cluster(World):
    """Two nodes, one service, and its task on node a."""

    def __init__(self, shape="replica"):
        super().__init__()
        self.a = self.add_node("a", 1)
        self.service = self.apply(spec("web", **SHAPES[shape]), replicas=1)
        self.settle(40)
        self.b = self.add_node("b", 2)
        (self.old,) = self.live(self.service)

    def silent(self, state, node=None):
        self.set_state(node or self.a, state)
        return self

    def is_replaced(self):
        self.look()
        return len([task for task in self.live(self.service) if task.slot == self.old.slot]) == 2

    def reported(self, task, state=TaskState.RUNNING, **fields):
        self.observed.statuses.pop(task.id, None)
        self.report(task.id, state, **fields)

    def back(self):
        """Both nodes are READY and have reported."""
        for node in (self.a, self.b):
            self.observed.put_liveness(
                node, Liveness(state=NodeState.READY, reported=True, since=self.now)
            )

    def stays(self):
        """The nodes of the tasks that are still wanted after a look."""
        self.look()
        return self.nodes_of(self.service)


@pytest.mark.parametrize(
    ("shape", "state", "expected"),
    [
        ("replica", NodeState.UNKNOWN, False),
        ("replica", NodeState.SUSPECT, True),
        ("replica", NodeState.DOWN, True),
        ("exclusive", NodeState.UNKNOWN, False),
        ("exclusive", NodeState.SUSPECT, False),  # S1: its lease may last
        ("exclusive", NodeState.DOWN, True),
        ("pinned", NodeState.SUSPECT, False),
        ("pinned", NodeState.DOWN, False),  # S10: its data is there
        ("pinned and exclusive", NodeState.DOWN, False),
        ("global", NodeState.SUSPECT, False),
        ("global", NodeState.DOWN, False),
    ],
)
def test_s1_s10_who_gets_a_successor_while_its_node_is_silent(shape, state, expected):
    assert Cluster(shape).silent(state).is_replaced() is expected


def test_s1_what_moved_is_not_wanted_any_more_on_its_old_node_before_that_is_back():
    cluster = Cluster("exclusive").silent(NodeState.DOWN)
    cluster.rest()
    old = cluster.tables.task(cluster.old.id)
    assert old.desired is Desired.REMOVED
    assert cluster.nodes_of(cluster.service) == ["b"]


def test_s1_an_exclusive_task_whose_second_node_is_down_too_moves_on():
    cluster = Cluster("exclusive").silent(NodeState.DOWN)
    cluster.rest()
    cluster.add_node("c", 3)
    cluster.silent(NodeState.DOWN, cluster.b)
    cluster.rest()
    assert cluster.nodes_of(cluster.service) == ["c"]


def test_s1_but_not_while_the_first_is_back_and_has_not_given_it_up():
    cluster = Cluster("exclusive").silent(NodeState.DOWN)
    cluster.rest()
    cluster.add_node("c", 3)
    cluster.silent(NodeState.READY).silent(NodeState.DOWN, cluster.b)
    cluster.rest()
    assert cluster.nodes_of(cluster.service) == ["b"]


def test_s1_an_exclusive_task_that_is_being_stopped_is_replaced_when_it_says_so_not_before():
    cluster = Cluster("exclusive")
    cluster.set_availability(cluster.a, Availability.DRAIN)
    cluster.rest()
    assert cluster.live(cluster.service) == []
    cluster.silent(NodeState.SUSPECT)
    cluster.rest()
    assert cluster.live(cluster.service) == []
    cluster.silent(NodeState.READY)
    cluster.report(cluster.old.id, TaskState.SHUTDOWN)
    cluster.rest()
    assert cluster.nodes_of(cluster.service) == ["b"]


def two_copies(shape="replica"):
    cluster = Cluster(shape).silent(NodeState.SUSPECT)
    assert cluster.is_replaced()
    cluster.new = cluster.live(cluster.service)[-1]
    cluster.pass_time(5)
    return cluster


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ((TaskState.RUNNING, Health.NONE, 0), (TaskState.RUNNING, Health.NONE, 4_000), "a"),
        ((TaskState.RUNNING, Health.NONE, 0), (TaskState.PREPARING, Health.NONE, 0), "a"),
        # The old one's machine was restarted: the other has been running for longer.
        ((TaskState.RUNNING, Health.NONE, 4_000), (TaskState.RUNNING, Health.NONE, 2_000), "b"),
        ((TaskState.RUNNING, Health.UNHEALTHY, 0), (TaskState.RUNNING, Health.HEALTHY, 4_000), "b"),
        ((TaskState.BACKOFF, Health.NONE, 0), (TaskState.RUNNING, Health.NONE, 4_000), "b"),
        ((TaskState.RUNNING, Health.STARTING, 0), (TaskState.RUNNING, Health.HEALTHY, 0), "b"),
    ],
)
def test_of_two_copies_the_one_that_has_been_running_and_healthy_longest_stays(old, new, stays):
    cluster = two_copies()
    begin = cluster.new.created_ms
    for task, (state, health, since) in ((cluster.old, old), (cluster.new, new)):
        cluster.reported(task, state, health=health, running_since_ms=begin + since)
    cluster.back()
    assert cluster.stays() == [stays]


def test_a_clock_that_says_1970_makes_no_copy_older_than_its_record():
    cluster = two_copies()
    cluster.reported(cluster.old, running_since_ms=cluster.old.created_ms + 1)
    cluster.reported(cluster.new, running_since_ms=1)
    cluster.back()
    assert cluster.stays() == ["a"]


def test_of_two_copies_of_which_neither_is_well_the_new_one_stays_after_a_while():
    cluster = two_copies()
    for task in (cluster.old, cluster.new):
        cluster.reported(task, TaskState.PREPARING)
    cluster.back()
    assert cluster.stays() == ["a", "b"]
    cluster.pass_time(20)
    assert cluster.stays() == ["b"]


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize(
    "liveness",
    [
        Liveness(state=NodeState.SUSPECT, reported=True),
        Liveness(state=NodeState.READY, reported=False),
        Liveness(state=NodeState.UNKNOWN),
    ],
)
def test_s9_nothing_is_surplus_before_both_nodes_have_reported_since_their_silence(node, liveness):
    cluster = two_copies()
    for task in (cluster.old, cluster.new):
        cluster.reported(task)
    cluster.back()
    cluster.observed.put_liveness(f"node-{node}", liveness)
    assert len(cluster.stays()) == 2


def test_l10_an_empty_slot_waits_for_its_last_node_to_report_or_to_be_down():
    cluster = Cluster()
    cluster.report(cluster.old.id, TaskState.FAILED, node_is_cause=False)
    cluster.look()
    cluster.set_state(cluster.a, NodeState.UNKNOWN, reported=False)
    cluster.pass_time(400)
    cluster.look()
    assert cluster.live(cluster.service) == []
    waiting = cluster.observed.waiting[cluster.service][1]
    assert "waits for node a, where its last task was" in waiting.reason
    cluster.set_state(cluster.a, NodeState.DOWN, reported=False)
    cluster.look()
    assert cluster.nodes_of(cluster.service) == ["b"]


def test_l10_a_service_that_is_new_need_not_wait_for_nodes_that_have_not_reported():
    cluster = Cluster()
    cluster.set_state(cluster.a, NodeState.UNKNOWN, reported=False)
    service = cluster.apply(spec("fresh"), replicas=1)
    cluster.look()
    assert cluster.nodes_of(service) == ["b"]
    assert len(cluster.live(cluster.service)) == 1  # and what is there stays


def test_a_replica_of_an_old_generation_goes_when_its_node_is_back():
    cluster = two_copies()
    cluster.put(replace(cluster.new, generation=2))
    for task in (cluster.old, cluster.new):
        cluster.reported(task)
    cluster.back()
    cluster.look()
    assert [task.generation for task in cluster.live(cluster.service)] == [2]


@pytest.mark.parametrize("by", ["its agent", "the leader"])
def test_s1_a_node_that_cannot_fence_gets_no_exclusive_task_and_any_other(by):
    cluster = World()
    node = cluster.add_node("a")
    if by == "its agent":
        record = cluster.tables.node(node)
        cluster.put(replace(record, inventory=replace(record.inventory, unfenced="no guard")))
    else:
        seen = replace(cluster.observed.node(node), unfenced="no guard")
        cluster.observed.put_liveness(node, seen)
        cluster.put(replace(cluster.tables.node(node), number=7))
    exclusive = cluster.apply(spec("db", exclusive=True), replicas=1)
    pinned = cluster.apply(spec("disk", exclusive=True, mounts=(volume_mount("d"),)), replicas=1)
    replica = cluster.apply(spec("web"), replicas=1)
    cluster.rest()
    assert cluster.live(exclusive) == []
    waiting = cluster.observed.waiting[exclusive][1]
    assert "can run no exclusive task: no guard" in waiting.reason
    assert len(cluster.live(pinned)) == len(cluster.live(replica)) == 1
    assert Fleet.from_snapshot(cluster.snapshot()) == cluster.fleet


def test_s1_an_exclusive_task_leaves_a_node_that_gets_no_lease_when_it_has_stopped_there():
    cluster = Cluster("exclusive")
    seen = cluster.observed.node(cluster.a)
    cluster.observed.put_liveness(cluster.a, replace(seen, unfenced="its clock is off"))
    cluster.put(replace(cluster.tables.node(cluster.a), number=7))  # the fleet sees it too
    cluster.rest()
    (old,) = cluster.tables.tasks_of_service(cluster.service)
    assert old.desired is Desired.SHUTDOWN
    assert "node a gets no exclusive task: its clock is off" in old.reason
    cluster.report(old.id, TaskState.SHUTDOWN)
    cluster.rest()
    assert cluster.nodes_of(cluster.service) == ["b"]


def test_a_replica_stays_on_a_node_that_gets_no_lease():
    cluster = Cluster()
    seen = cluster.observed.node(cluster.a)
    cluster.observed.put_liveness(cluster.a, replace(seen, unfenced="its clock is off"))
    cluster.rest()
    assert cluster.nodes_of(cluster.service) == ["a"]


@pytest.mark.parametrize("end", [TaskState.FAILED, TaskState.REMOVED])
def test_s1_what_a_second_machine_says_is_not_believed_before_the_firsts_lease_is_over(end):
    cluster = Cluster("exclusive")
    seen = cluster.observed.node(cluster.a)
    cluster.observed.put_liveness(cluster.a, replace(seen, other_until=cluster.now + 15))
    if end is TaskState.REMOVED:
        cluster.put(replace(cluster.old, desired=Desired.REMOVED))
    cluster.report(cluster.old.id, end)
    cluster.rest()
    assert [task.id for task in cluster.tables.tasks_of_service(cluster.service)] == [
        cluster.old.id
    ]
    cluster.pass_time(15)
    cluster.rest()
    cluster.pass_time(15)  # its back-off
    cluster.rest()
    assert cluster.tables.tasks_of_service(cluster.service)[-1].id != cluster.old.id


@pytest.mark.parametrize("is_headless", [False, True])
def test_a_removal_that_is_believed_later_is_looked_at_again_by_then(is_headless):
    cluster = Cluster("exclusive")
    seen = cluster.observed.node(cluster.a)
    cluster.observed.put_liveness(cluster.a, replace(seen, other_until=cluster.now + 15))
    ended = Outcome(state=TaskState.SHUTDOWN, ended_ms=1, attempts=1)
    cluster.put(replace(cluster.old, desired=Desired.REMOVED, outcome=ended))
    if is_headless:
        cluster.drop(keys.service(cluster.service))
    cluster.report(cluster.old.id, TaskState.REMOVED)
    decision = services.decide(cluster.snapshot(), cluster.fleet, cluster.service)
    assert decision.wake_at == cluster.now + 15


@pytest.mark.parametrize(
    ("shape", "state", "words"),
    [
        ("pinned", NodeState.DOWN, "it waits for node a, which is down since 1970-01-01 00:"),
        ("pinned", NodeState.SUSPECT, "it waits for node a, which is silent since"),
        ("exclusive", NodeState.SUSPECT, "an exclusive task moves once its node's lease is"),
    ],
)
def test_what_waits_for_a_silent_node_says_so_and_since_when(shape, state, words):
    cluster = Cluster(shape).silent(state)
    cluster.pass_time(30)
    explained = planning.explain(cluster.snapshot(), cluster.service, [1])[0]
    assert words in explained.reason
    assert "(30 s ago)" in explained.reason or shape == "exclusive"


def test_a_move_that_is_held_says_by_what():
    cluster = Cluster().silent(NodeState.DOWN)
    waiting = Waiting(
        service=cluster.service,
        slot=1,
        generation=1,
        since_ms=1,
        reason="node a is down; it is held by the brake",
    )
    cluster.observed.put_waiting(cluster.service, {1: waiting})
    explained = planning.explain(cluster.snapshot(), cluster.service, [1])[0]
    assert explained.reason == "node a is down; it is held by the brake"


class MadeExclusive(Cluster):
    """A service that became exclusive while the node of its task was silent."""

    def __init__(self, state):
        super().__init__()
        self.silent(state)
        self.apply(spec("web", exclusive=True), replicas=1)


@pytest.mark.parametrize("state", [NodeState.SUSPECT, NodeState.DOWN])
def test_what_is_made_exclusive_waits_for_a_silent_copy_that_has_no_lease(state):
    cluster = MadeExclusive(state)
    for _ in range(50):
        assert not cluster.is_replaced()
        cluster.pass_time(10)
    explained = planning.explain(cluster.snapshot(), cluster.service, [1])[0]
    assert "made exclusive after this task had started there" in explained.reason
    assert "`homeport node lost a`" in explained.reason


def test_what_is_made_exclusive_waits_also_for_the_copy_that_was_replaced():
    cluster = Cluster().silent(NodeState.DOWN)
    assert cluster.is_replaced()
    cluster.settle(10)
    cluster.apply(spec("web", exclusive=True), replicas=1)
    cluster.rest()
    for task in cluster.live(cluster.service):
        assert not task.exclusive, "beside a copy that may still run"
    cluster.back()
    cluster.settle(60)
    (only,) = cluster.live(cluster.service)
    assert only.exclusive


def test_an_operators_word_that_its_node_is_lost_ends_the_wait():
    cluster = MadeExclusive(NodeState.DOWN)
    assert not cluster.is_replaced()
    node = cluster.tables.node(cluster.a)
    cluster.put(replace(node, lost_ms=1))
    assert cluster.is_replaced()
    assert cluster.live(cluster.service)[-1].exclusive


def test_a_job_goes_on_elsewhere_though_no_more_of_it_may_run_at_once():
    world = World()
    for number, name in enumerate(("a", "b"), start=1):
        world.add_node(name, number)
    limited = spec("job", mode=Mode.REPLICATED_JOB, replicas=3, max_concurrent=1)
    job = world.apply(limited)
    world.rest()
    (first,) = world.live(job)
    world.set_state(first.node, NodeState.DOWN)
    world.rest()
    assert [(task.slot, task.n) for task in world.live(job)] == [(1, 1), (1, 2)]
    assert world.live(job)[-1].node != first.node
    assert "its turn" in world.observed.waiting[job][2].reason
