"""What the reconcilers do about one service, told as stories on a cluster of values."""

import itertools
from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Availability,
    Cause,
    Health,
    NodeState,
    RolloutState,
    Taint,
    VolumeState,
)
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Dependency,
    DependencyCondition,
    FailureAction,
    Mode,
    Mount,
    MountKind,
    PlacementSpec,
    RestartCondition,
    RestartPolicy,
    TaintEffect,
    Toleration,
    UpdateConfig,
    VolumeSpec,
    pairs,
)
from scheduler.cluster import keys
from scheduler.reconcile import planning, reaper
from tests.builders import GIB, World, spec, volume_mount

S = TaskState
BIND = Mount(kind=MountKind.BIND, source="/srv/data", target="/data")


def world_of(*names, **fields):
    world = World()
    for number, name in enumerate(names, start=1):
        world.add_node(name, number, **fields)
    return world


def running(world, *specs, **fields):
    services = [world.apply(each, **fields) for each in specs]
    world.rest()
    world.run_all()
    world.rest()
    return services if len(services) > 1 else services[0]


def newest(world, service, slot=1):
    return world.tables.tasks_of_slot(service, slot)[-1]


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


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize(
    ("policy", "state", "fields", "again"),
    [
        pytest.param(RestartPolicy(), S.FAILED, {}, True, id="a failure without a limit"),
        pytest.param(
            RestartPolicy(max_attempts=3), S.FAILED, {}, False, id="the user's limit is reached"
        ),
        pytest.param(
            RestartPolicy(condition=RestartCondition.NONE),
            S.FAILED,
            {},
            False,
            id="the user wants no restart",
        ),
        pytest.param(
            RestartPolicy(max_attempts=3),
            S.FAILED,
            {"node_is_cause": True},
            True,
            id="the limit does not count for the node's fault",
        ),
        pytest.param(
            RestartPolicy(condition=RestartCondition.ON_FAILURE),
            S.COMPLETE,
            {},
            False,
            id="it completed and is only restarted on failure",
        ),
        pytest.param(RestartPolicy(), S.COMPLETE, {}, True, id="it is to run for ever"),
        pytest.param(RestartPolicy(max_attempts=1), S.REJECTED, {}, True, id="the node refused"),
        pytest.param(RestartPolicy(), S.SHUTDOWN, {}, True, id="somebody else stopped it"),
        pytest.param(RestartPolicy(), S.REMOVED, {}, True, id="somebody else removed it"),
    ],
)
def test_whether_an_ended_task_gets_a_successor(policy, state, fields, again):
    world = world_of("a", "b")
    service = running(world, spec("web", restart=policy))
    first = newest(world, service)
    # A REJECTED task never ran.
    if state is S.REJECTED:
        world.observed.forget(first.id)
    world.report(first.id, state, **fields)
    world.settle(20, 5)
    assert newest(world, service).n == (2 if again else 1)


def test_a_service_that_ended_for_good_starts_again_with_a_new_generation():
    world = world_of("a")
    limited = spec("web", restart=RestartPolicy(max_attempts=1))
    service = running(world, limited)
    world.report(newest(world, service).id, S.FAILED)
    world.settle(20, 5)
    assert world.live(service) == []
    world.apply(replace(limited, labels=pairs({"a": "b"})))
    world.rest()
    assert newest(world, service).generation == 2


def test_a_task_that_failed_because_of_its_node_goes_elsewhere():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.report(newest(world, service).id, S.FAILED, node_is_cause=True)
    world.settle(10, 1)
    assert newest(world, service).node == "node-b"


def test_a_new_generation_is_tried_again_where_the_old_one_was_rejected():
    world = world_of("a")
    service = running(world, spec("web"))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED)
    world.rest()
    world.apply(spec("web", labels=pairs({"fixed": "yes"})))
    world.rest()
    assert [task.generation for task in world.live(service)] == [2]


def test_a_task_that_somebody_else_stops_again_and_again_is_backed_off():
    world = world_of("a")
    service = running(world, spec("web"))
    for _ in range(3):
        world.report(newest(world, service).id, S.SHUTDOWN)
        world.settle(20, 10)
    assert newest(world, service).failures == 3


def test_no_outcome_is_written_of_a_task_that_is_being_removed():
    world = world_of("a")
    service = running(world, spec("web", replicas=2))
    world.scale(service, 1)
    world.rest()
    world.log.clear()
    world.report(newest(world, service, 2).id, S.SHUTDOWN)
    world.rest()
    world.report(newest(world, service, 2).id, S.REMOVED)
    world.rest()
    # One more, once: the slot's count is kept when its last task is forgotten.
    assert [type(change).__name__ for change in world.log] == ["Put", "Delete"]


def test_back_off_doubles_and_survives_a_new_leader():
    world = world_of("a")
    service = running(world, spec("web"))
    waits = []
    for _ in range(10):
        world.report(newest(world, service).id, S.FAILED)
        n, before = newest(world, service).n, world.now
        world.observed.waiting.clear()
        world.rest()
        while newest(world, service).n == n:
            world.pass_time(1)
            world.rest()
        waits.append(world.now - before)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_rejected_task_goes_elsewhere_and_comes_back_when_everybody_refused():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED, message="no such image")
    world.settle(10, 1)
    second = newest(world, service)
    assert second.node == "node-b"
    world.observed.forget(second.id)
    world.report(second.id, S.REJECTED, message="no such image")
    world.rest()
    world.pass_time(60)
    world.rest()
    refusals = world.observed.waiting[service][1].refusals
    assert [each.rule for each in refusals] == ["excluded", "excluded"]
    world.settle(300)
    assert len(world.live(service)) == 1


def test_a_slot_avoids_the_node_that_rejected_another_slot():
    world = world_of("a", "b", "c")
    service = running(world, spec("web", replicas=2))
    world.observed.forget(newest(world, service).id)
    world.report(newest(world, service).id, S.REJECTED)
    world.rest()
    world.scale(service, 3)
    world.pass_time(5)
    world.rest()
    assert "node-a" not in [task.node for task in world.live(service)]


def test_a_volume_whose_first_task_was_rejected_finds_another_home():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    first = newest(world, service)
    assert first.node == "node-a"
    world.report(first.id, S.REJECTED, message="no space")
    world.settle(20, 1)
    assert newest(world, service).node == "node-b"
    assert [volume.node for volume in world.tables.volumes()] == ["node-b"]


def test_a_volume_of_a_task_that_was_rejected_on_a_later_attempt_stays():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    first = newest(world, service)
    world.report(first.id, S.BACKOFF)
    world.report(first.id, S.REJECTED, attempt=2)
    world.settle(40)
    assert newest(world, service).n > 1
    assert {task.node for task in world.tables.tasks_of_service(service)} == {"node-a"}
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]


def test_a_volume_that_another_service_uses_stays_when_the_first_was_rejected():
    world = world_of("a", "b")
    first = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    other = running(world, spec("backup", mounts=(volume_mount("data"),)))
    world.observed.forget(newest(world, first).id)
    world.report(newest(world, first).id, S.REJECTED)
    world.rest()
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]
    assert newest(world, other).node == "node-a"


def test_a_task_that_can_only_run_where_its_data_is_tries_there_again_soon():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.report(newest(world, service).id, S.FAILED, node_is_cause=True)
    world.settle(10, 1)
    assert newest(world, service).n == 2


def test_a_global_service_has_its_own_volume_on_each_node():
    world = world_of("a", "b")
    service = running(world, spec("mon", mode=Mode.GLOBAL, mounts=(volume_mount("data"),)))
    assert world.nodes_of(service) == ["a", "b"]
    assert [volume.node for volume in world.tables.volumes()] == ["node-a", "node-b"]
    world.add_node("c", 3)
    world.rest()
    assert world.nodes_of(service) == ["a", "b", "c"]


def test_a_volume_that_was_used_stays_whatever_happens_to_its_tasks():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.report(newest(world, service).id, S.FAILED)
    world.settle(20, 1)
    task = newest(world, service)
    world.observed.forget(task.id)
    world.report(task.id, S.REJECTED)
    world.settle(400)
    assert newest(world, service).node == "node-a"
    assert [volume.node for volume in world.tables.volumes()] == ["node-a"]


def test_a_single_replica_with_a_writable_bind_goes_back_to_its_node():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(BIND,)))
    running(world, spec("other", memory=GIB))
    world.put(replace(world.tables.node("node-a"), labels=pairs({"busy": "yes"})))
    running(world, *(spec(f"s{number}", memory=GIB) for number in range(3)))
    assert newest(world, service).pinned
    world.apply(spec("db", mounts=(BIND,), labels=pairs({"new": "1"})))
    world.settle(30, 1)
    assert newest(world, service).generation == 2
    assert newest(world, service).node == "node-a"


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param(replace(BIND, read_only=True), id="read only"),
        pytest.param(replace(BIND, source="/var/run/docker.sock"), id="the engine's socket"),
        pytest.param(replace(BIND, source="/dev/ttyUSB0"), id="a device"),
    ],
)
def test_a_bind_without_data_pins_nothing(mount):
    world = world_of("a")
    service = running(world, spec("web", mounts=(mount,)))
    assert not newest(world, service).pinned


# ---------------------------------------------------------------- nodes


def test_a_replica_of_a_node_that_is_down_gets_one_named_successor():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(60)
    assert [(task.n, task.node) for task in world.live(service)] == [
        (1, "node-a"),
        (2, "node-b"),
    ]
    assert newest(world, service).reason.startswith("node a is down")


@pytest.mark.parametrize(
    ("state", "reported"),
    [(NodeState.UNKNOWN, False), (NodeState.SUSPECT, True), (NodeState.READY, False)],
    ids=["unknown", "suspect", "connected and not yet reported"],
)
def test_a_task_on_a_node_that_is_not_judged_down_is_left_alone(state, reported):
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=2))
    world.apply(spec("web", replicas=2, labels=pairs({"new": "1"})))
    world.observed.statuses.clear()
    for node in ("node-a", "node-b"):
        world.set_state(node, state, reported=reported)
    world.rest()
    assert all(task.desired is Desired.RUNNING for task in world.live(service))
    assert [task.n for task in world.live(service)] == [1, 1]


@pytest.mark.parametrize(
    ("old", "stays"),
    [
        pytest.param((S.RUNNING, Health.NONE), 1, id="the old one runs: the younger goes"),
        pytest.param((S.RUNNING, Health.UNHEALTHY), 2, id="the old one is unhealthy: it goes"),
        pytest.param((S.STARTING, Health.NONE), 2, id="the old one does not run yet: it goes"),
    ],
)
def test_which_of_two_stays_when_the_node_comes_back(old, stays):
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.rest()
    world.run_all()
    first = world.tables.task(f"{service}/1/1")
    world.observed.forget(first.id)
    world.set_state("node-a", NodeState.READY, reported=False)
    world.rest()
    assert len(world.live(service)) == 2, "it has not reported yet"
    world.report(first.id, old[0], health=old[1])
    world.set_state("node-a", NodeState.READY)
    world.rest()
    assert [task.n for task in world.live(service)] == [stays]
    gone = world.tables.task(f"{service}/1/{3 - stays}")
    assert (gone.desired, gone.cause) == (Desired.REMOVED, Cause.RECONCILER)


def test_no_third_task_is_made_before_the_first_is_given_up():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    world.set_state("node-a", NodeState.DOWN)
    world.rest()
    world.set_state("node-b", NodeState.DOWN)
    (change,) = world.decide()[0]
    assert (change.value.n, change.value.desired) == (1, Desired.REMOVED)
    assert len(world.live(service)) == 2


def test_when_both_nodes_are_down_the_slot_gets_a_third_and_gives_up_the_first():
    world = world_of("a", "b", "c")
    service = running(world, spec("web"))
    for node in ("node-a", "node-b"):
        world.set_state(node, NodeState.DOWN)
        world.settle(20)
    assert [(task.n, task.node) for task in world.live(service)] == [
        (2, "node-b"),
        (3, "node-c"),
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(spec("db", mounts=(volume_mount("data"),)), id="local volume"),
        pytest.param(spec("db", mounts=(BIND,)), id="writable bind"),
        pytest.param(spec("db", mode=Mode.GLOBAL), id="global"),
    ],
)
def test_what_belongs_to_a_node_waits_for_it(wanted):
    world = world_of("a", "b")
    service = running(world, wanted)
    count = len(world.live(service))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(100)
    assert [task.n for task in world.live(service)] == [1] * count
    assert service not in world.observed.waiting, "it has a task: no slot is empty"


def test_an_exclusive_task_moves_after_its_node_is_down_and_the_old_one_goes_on_return():
    share = VolumeSpec(name="data", driver_opts=pairs({"type": "nfs"}))
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)), volumes=(share,))
    world.set_state("node-a", NodeState.DOWN)
    world.settle(20)
    assert newest(world, service).node == "node-b"
    world.set_state("node-a", NodeState.READY)
    world.rest()
    assert [task.n for task in world.live(service)] == [2]


def test_a_removed_node_orphans_its_tasks_and_they_are_replaced():
    world = world_of("a", "b")
    service = running(world, spec("web"))
    world.drop(keys.node("node-a"))
    world.settle(20)
    (task,) = world.tables.tasks_of_service(service)
    assert (task.n, task.node, task.outcome) == (2, "node-b", None)


def test_a_node_whose_record_cannot_be_read_orphans_nothing():
    world = world_of("a")
    services = running(world, spec("web"), spec("mon", mode=Mode.GLOBAL))
    world.tables.put_unreadable(keys.node("node-a"), 999, "newer")
    world.rest()
    for service in services:
        assert newest(world, service).outcome is None
        assert newest(world, service).desired is Desired.RUNNING


def test_a_drained_node_gives_up_one_slot_of_a_service_at_a_time():
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=4))
    world.set_availability("node-a", Availability.DRAIN)
    steps = []
    for _ in range(12):
        world.rest()
        steps.append(len(world.live(service)))
        world.run_all()
    assert min(steps) == 3
    assert {task.node for task in world.live(service)} == {"node-b"}


def test_a_task_that_no_other_node_takes_stays_on_the_drained_one():
    world = world_of("a")
    world.add_node("b", 2, memory=GIB)
    service = running(world, spec("web", memory=2 * GIB))
    world.set_availability("node-a", Availability.DRAIN)
    world.settle(40)
    assert newest(world, service).n == 1
    assert newest(world, service).desired is Desired.RUNNING


def test_a_pinned_task_stays_on_the_drained_node():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.set_availability("node-a", Availability.DRAIN)
    world.settle(40)
    assert newest(world, service).n == 1


def tainted(world, name, effect):
    """Give a node a taint."""
    record = world.tables.node(f"node-{name}")
    world.put(replace(record, taints=(Taint(key="gpu", effect=effect),)))


def test_an_evicting_taint_sends_tasks_away_one_slot_of_a_service_at_a_time():
    world = world_of("a", "b")
    service = running(world, spec("web", replicas=4))
    tainted(world, "a", TaintEffect.EVICT)
    steps = []
    for _ in range(12):
        world.rest()
        steps.append(len(world.live(service)))
        world.run_all()
    assert min(steps) == 3
    assert {task.node for task in world.live(service)} == {"node-b"}
    sent_away = [change.value for change in world.log if "the taint gpu:evict" in change.reason]
    assert {task.cause for task in sent_away} == {Cause.OPERATOR}


@pytest.mark.parametrize("effect", [TaintEffect.AVOID, TaintEffect.REFUSE])
def test_other_taints_leave_tasks_where_they_are(effect):
    world = world_of("a", "b")
    services = running(world, spec("web", replicas=2), spec("mon", mode=Mode.GLOBAL))
    before = [world.live(service) for service in services]
    tainted(world, "a", effect)
    world.settle(60)
    assert [world.live(service) for service in services] == before


def test_what_tolerates_a_taint_stays_and_what_no_other_node_takes_does_too():
    world = world_of("a")
    tolerant = PlacementSpec(tolerations=(Toleration(key="gpu"),))
    services = running(world, spec("web", placement=tolerant), spec("api"))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert [newest(world, service).n for service in services] == [1, 1]
    world.add_node("b", 2)
    world.settle(60)
    assert [world.nodes_of(service) for service in services] == [["a"], ["b"]]


def test_a_global_service_leaves_a_node_that_evicts_it_and_comes_back():
    world = world_of("a", "b")
    service = running(world, spec("mon", mode=Mode.GLOBAL))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert world.nodes_of(service) == ["b"]
    assert not world.observed.waiting.get(service)
    world.put(replace(world.tables.node("node-a"), taints=()))
    world.settle(60)
    assert sorted(world.nodes_of(service)) == ["a", "b"]


def test_a_pinned_task_stays_and_says_why():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    tainted(world, "a", TaintEffect.EVICT)
    world.settle(60)
    assert newest(world, service).n == 1
    explained = planning.explain(world.snapshot(), service, [1])[0]
    assert explained.reason == (
        "it stays, though node a has the taint gpu:evict, which it does not tolerate: its data is"
        " there, and a pinned task does not move"
    )


def test_a_paused_node_keeps_what_it_has():
    world = world_of("a", "b")
    services = running(world, spec("web"), spec("mon", mode=Mode.GLOBAL))
    world.set_availability("node-a", Availability.PAUSE)
    world.settle(40)
    assert [len(world.live(service)) for service in services] == [1, 2]


# ---------------------------------------------------------------- rollouts


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


def test_a_stack_that_is_applied_again_finds_its_data():
    world = world_of("a", "b")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    world.put(replace(world.tables.stack("shop"), removing=True))
    world.remove(service)
    world.settle(40)
    assert reaper.stack(world.snapshot(), "shop") == []
    assert [volume.state for volume in world.tables.volumes()] == [VolumeState.RETAINED]
    world.put(replace(world.tables.node("node-a"), labels=pairs({"x": "y"})))
    running(world, *(spec(f"s{number}") for number in range(3)), stack="other")
    service = running(world, spec("db", mounts=(volume_mount("data"),)))
    assert world.nodes_of(service) == ["a"]
    assert [volume.state for volume in world.tables.volumes()] == [VolumeState.ACTIVE]
