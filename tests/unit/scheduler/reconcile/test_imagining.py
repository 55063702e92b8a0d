"""What-if: the same answers as in earnest, on a cluster that nobody has changed."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from homeport.lifecycle import TaskState
from homeport.model import Availability, NodeId, NodeState, Taint, TaintEffect
from homeport.spec import (
    Dependency,
    DependencyCondition,
    Mode,
    Neighbour,
    PlacementSpec,
    SpreadRule,
    pairs,
)
from scheduler.cluster.changes import Put
from scheduler.cluster.observed import Brake
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import imagining, planning
from scheduler.reconcile.imagined import compare
from scheduler.reconcile.imagining import Imagining, imagine
from tests.builders import GIB, World, node, simple_global, spec, volume_mount, world_of


def running(world, *specs, **fields):
    """The services, with all their tasks up."""
    services = [world.apply(each, **fields) for each in specs]
    world.settle()
    return services


def what_if(world, **fields):
    """What a change would come to; the world itself must not be touched by it."""
    before = (list(world.tables.tasks()), dict(world.observed.liveness))
    change = Imagining(**fields)
    found = compare(imagine(world.snapshot(), change), change)
    assert (list(world.tables.tasks()), dict(world.observed.liveness)) == before
    assert world.fleet == Fleet.from_snapshot(world.snapshot())
    return found


def down(world, *names):
    return what_if(world, down=tuple(NodeId(f"node-{name}") for name in names))


def drained(world, *names):
    return what_if(world, drained=tuple(NodeId(f"node-{name}") for name in names))


def moved(found):
    """service.slot: from -> to."""
    return {
        f"{each.service.split('-')[1]}.{each.slot}": (
            each.source.removeprefix("node-") if each.source else "",
            each.target.removeprefix("node-"),
        )
        for each in found.moves
    }


def waits(found):
    return [f"{each.service.split('-')[1]}.{each.slot}" for each in found.waiting]


# ---------------------------------------------------------------- a node that is gone


def test_of_a_lost_node_what_can_move_moves_and_what_is_pinned_waits():
    world = world_of("a", "b")
    world.put(replace(world.tables.node("node-b"), availability=Availability.PAUSE))
    running(
        world,
        spec("db", mounts=(volume_mount("data"),)),
        spec("web", replicas=2, cpu=1000),
        simple_global("logs"),
    )
    world.put(replace(world.tables.node("node-b"), availability=Availability.ACTIVE))
    world.settle()
    found = down(world, "a")
    assert moved(found) == {"web.1": ("a", "b"), "web.2": ("a", "b")}
    assert {each.reason for each in found.moves} == {"node a would be gone"}
    assert waits(found) == ["db.1"]
    assert found.waiting[0].reason == "its data is on a, and a pinned task does not move"
    assert (found.lost, found.ended) == (1, 1)


def test_what_finds_no_room_waits_and_says_why_not_where():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("web", replicas=2, memory=3 * GIB))
    found = down(world, "a")
    assert (moved(found), found.lost) == ({}, 1)
    (waiting,) = found.waiting
    assert [(each.node, each.rule) for each in waiting.refusals] == [
        ("node-a", "ready"),
        ("node-b", "memory"),
    ]
    assert (
        waiting.reason == "node a is down; none of 2 nodes will do: 1 lacks memory, 1 is not ready"
    )


def test_what_may_preempt_gets_room_and_those_that_make_it_are_the_loss():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("chief", memory=4 * GIB, priority=9, preempts=True))
    running(world, spec("low", replicas=2, memory=2 * GIB))
    found = down(world, "a")
    assert moved(found) == {"chief.1": ("a", "b")}
    assert (waits(found), found.lost) == (["low.1", "low.2"], 2)
    assert "it makes room for shop/chief.1 of priority 9" in found.waiting[0].reason


def test_the_brake_of_now_keeps_nobody_from_making_room_then():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("chief", memory=4 * GIB, priority=9, preempts=True))
    running(world, spec("low", memory=2 * GIB))
    world.observed.brake = Brake(since=0.0, since_ms=0, silent=(), counted=(), cause="a cut")
    assert moved(down(world, "a")) == {"chief.1": ("a", "b")}


def test_an_exclusive_task_that_can_move_moves():
    world = world_of("a", "b")
    running(world, spec("one", exclusive=True))
    assert moved(down(world, "a")) == {"one.1": ("a", "b")}


def test_several_nodes_count_together():
    world = world_of("a", "b", "c", memory=4 * GIB)
    running(world, spec("web", replicas=3, memory=2 * GIB))
    assert down(world, "a").lost == 0
    assert down(world, "a", "b").lost == 1


def test_neighbours_that_lose_each_other_wait_or_go_together():
    world = world_of("a", "b")
    near = PlacementSpec(neighbours=(Neighbour(service="db", key="node.id"),))
    running(world, spec("db"), spec("web", placement=near))
    found = down(world, "a")
    assert moved(found) == {"db.1": ("a", "b"), "web.1": ("a", "b")}


def test_room_before_and_after_is_told_of_each_node_that_is_left():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("web", replicas=2, memory=GIB, cpu=500))
    (room,) = down(world, "a").rooms
    assert (room.node, room.memory_bytes, room.cpu_millis) == ("node-b", 4 * GIB, 4000)
    assert (room.before.memory_bytes, room.after.memory_bytes) == (GIB, 2 * GIB)
    assert (room.before.cpu_millis, room.after.cpu_millis) == (500, 1000)
    assert (room.before.tasks, room.after.tasks) == (1, 2)


def test_what_waits_already_is_told_and_is_no_loss():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("web", memory=GIB), spec("huge", memory=9 * GIB))
    found = down(world, "a")
    assert (waits(found), found.lost) == (["huge.1"], 0)


def test_what_is_lost_comes_before_what_waits_already():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("huge", memory=9 * GIB), spec("web", replicas=2, memory=3 * GIB))
    found = down(world, "a")
    assert [each.split(".")[0] for each in waits(found)] == ["web", "huge"]
    assert found.lost == 1


def test_a_node_that_is_down_already_is_no_loss_any_more():
    world = world_of("a", "b")
    running(world, spec("db", mounts=(volume_mount("data"),)))
    world.set_state("node-a", NodeState.DOWN)
    found = down(world, "a")
    assert (waits(found), found.lost) == ([], 0)


def test_no_back_off_is_waited_for():
    world = world_of("a", "b")
    (service,) = running(world, spec("web"))
    (task,) = world.live(service)
    world.report(task.id, TaskState.FAILED, attempt=1, message="exit 1")
    world.rest()
    assert list(world.observed.waiting[service]) == [1]
    other = "b" if task.node == "node-a" else "a"
    found = down(world, task.node.removeprefix("node-"))
    assert (moved(found), found.waiting) == ({"web.1": ("", other)}, ())


def test_a_task_that_has_ended_runs_nowhere_though_that_is_not_recorded_yet():
    world = world_of("a", "b")
    (job,) = running(world, spec("job", mode=Mode.REPLICATED_JOB))
    (task,) = world.live(job)
    world.report(task.id, TaskState.COMPLETE)
    found = down(world, task.node.removeprefix("node-"))
    assert (found.moves, found.waiting, found.lost) == ((), (), 0)
    (web,) = running(world, spec("web", memory=6 * GIB))
    world.apply(spec("full", replicas=1, memory=6 * GIB))
    world.settle()
    (task,) = world.live(web)
    world.report(task.id, TaskState.FAILED)
    found = down(world, task.node.removeprefix("node-"))
    assert (waits(found), found.lost) == (["web.1"], 0)


def test_a_rollout_stands_still():
    world = world_of("a", "b", "c")
    (service,) = running(world, spec("web", replicas=3))
    world.apply(spec("web", replicas=3, labels=pairs({"new": "1"})))
    lost = {task.slot: task for task in world.live(service)}[2]
    found = down(world, lost.node.removeprefix("node-"))
    assert [each.slot for each in found.moves] == [2]
    assert found.replaced == 0


def test_a_stack_that_is_still_being_written_is_left_alone():
    world = world_of("a", "b")
    (service,) = running(world, spec("web"))
    world.put(replace(world.tables.stack("shop"), draft="d"))
    found = down(world, world.live(service)[0].node.removeprefix("node-"))
    assert (found.moves, found.waiting) == ((), ())


def test_a_volume_without_data_holds_nobody():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    (task,) = world.live(service)
    world.report(task.id, TaskState.REJECTED, message="no such image", node_is_cause=True)
    found = down(world, task.node.removeprefix("node-"))
    other = "b" if task.node == "node-a" else "a"
    assert moved(found) == {"db.1": (task.node.removeprefix("node-"), other)}


def test_what_was_told_to_end_has_ended():
    world = world_of("a", "b", memory=4 * GIB)
    (old, *_) = running(world, spec("old", replicas=2, memory=3 * GIB))
    world.remove(old)
    world.look()  # the agents have not answered yet
    service = world.apply(spec("new", memory=2 * GIB))
    assert world.snapshot().stored.tasks_of_service(old)
    found = down(world, "a")
    assert moved(found) == {}
    world.look()
    found = down(world, "a")
    assert [(each.service, each.target) for each in found.moves] == [(service, "node-b")]


def test_more_than_a_scheduler_may_think_about_is_refused():
    world = world_of("a", "b")
    running(world, spec("web", replicas=3))
    change = Imagining(down=("node-a",))
    imagine(world.snapshot(), change, looked_max=4)
    with pytest.raises(imagining.TooMuch):
        imagine(world.snapshot(), change, looked_max=3)


def test_looking_for_whom_to_end_counts_as_thinking(monkeypatch):
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("chief", memory=4 * GIB, priority=9, preempts=True))
    running(world, spec("low", replicas=2, memory=2 * GIB))
    change = Imagining(down=("node-a",))
    imagine(world.snapshot(), change, looked_max=100)
    monkeypatch.setattr(imagining, "TRIED_PER_SLOT", 0.01)
    with pytest.raises(imagining.TooMuch):
        imagine(world.snapshot(), change, looked_max=100)


# ---------------------------------------------------------------- a node that is drained


def test_a_drain_moves_what_other_nodes_take_and_says_what_stays():
    world = world_of("a")
    running(
        world,
        spec("db", mounts=(volume_mount("data"),)),
        spec("web", replicas=2, cpu=1000),
        spec("big", memory=6 * GIB),
        simple_global("logs"),
    )
    world.add_node("b", 2, memory=2 * GIB)
    found = drained(world, "a")
    assert moved(found) == {
        "logs.2": ("", "b"),
        "web.1": ("a", "b"),
        "web.2": ("a", "b"),
    }
    assert {each.reason for each in found.moves if each.source} == {"node a would be drained"}
    staying = {each.service.split("-")[1]: each for each in found.staying}
    assert staying["db"].reason == "its data is on a, and a pinned task does not move"
    assert staying["big"].reason.startswith("no other node takes it: ")
    assert [(each.node, each.rule) for each in staying["big"].refusals] == [("node-b", "memory")]
    assert (found.waiting, found.lost, found.ended) == ((), 0, 1)


def test_a_node_that_has_not_reported_yet_is_drained_as_if_it_had():
    world = world_of("a")
    running(world, spec("web"))
    world.add_node("b", 2)
    world.set_state("node-a", NodeState.UNKNOWN, reported=False)
    assert moved(drained(world, "a")) == {"web.1": ("a", "b")}


def test_a_drain_of_the_last_node_leaves_all_where_it_is():
    world = world_of("a")
    running(world, spec("web", replicas=2))
    found = drained(world, "a")
    assert (found.moves, found.waiting, len(found.staying)) == ((), (), 2)


# ---------------------------------------------------------------- a node more


def test_a_node_more_takes_what_waits_and_its_global_tasks():
    world = world_of("a", memory=4 * GIB)
    running(world, spec("web", replicas=3, memory=2 * GIB), simple_global("logs"))
    found = what_if(world, added=(node("z", 9, memory=8 * GIB),))
    assert moved(found) == {"web.3": ("", "z"), "logs.9": ("", "z")}
    assert found.waiting == ()
    assert [(each.node, each.before.tasks, each.after.tasks) for each in found.rooms] == [
        ("node-a", 3, 3),
        ("node-z", 0, 2),
    ]


def test_a_node_more_makes_up_for_one_that_is_gone():
    world = world_of("a", memory=4 * GIB)
    running(world, spec("web", replicas=2, memory=2 * GIB))
    assert down(world, "a").lost == 2
    found = what_if(world, down=("node-a",), added=(node("z", 9, memory=4 * GIB),))
    assert (moved(found), found.lost) == ({"web.1": ("a", "z"), "web.2": ("a", "z")}, 0)


# ---------------------------------------------------------------- an apply


def proposed(world, *specs, **fields):
    """What an apply of these would write, and which services it touches."""
    other = World()
    other.revision = 1000
    services = [other.apply(each, **fields) for each in specs]
    changes = [
        Put(other.tables.value(key), world.tables.version(key), "apply")
        for key in other.tables.stored_keys()
    ]
    return {"applied": tuple(changes), "touched": tuple(services)}


def test_an_apply_goes_where_plan_says():
    world = world_of("a", "b", memory=4 * GIB)
    running(world, spec("web", memory=GIB))
    fields = proposed(world, spec("api", replicas=3, memory=2 * GIB), spec("db"), stack="new")
    found = what_if(world, **fields)
    planned = planning.plan(world.snapshot().over(list(fields["applied"])), fields["touched"])
    assert {(each.service, each.slot): each.node for each in planned if each.node} == {
        (each.service, each.slot): each.target for each in found.moves
    }
    assert [(each.service, each.slot) for each in found.waiting] == [
        (each.service, each.slot) for each in planned if each.node is None
    ]
    assert (len(found.waiting), found.lost) == (0, 0)


def test_an_apply_frees_the_room_of_what_it_replaces_and_of_what_it_scales_down():
    world = world_of("a", memory=4 * GIB)
    (service,) = running(world, spec("web", replicas=2, memory=2 * GIB))
    head = world.tables.service(service)
    edition = world.tables.spec(service, 1)
    bigger = replace(edition, generation=2, spec=spec("web", memory=4 * GIB))
    changes = (
        Put(bigger, 0, "apply"),
        Put(replace(head, generation=2, template_generation=2, replicas=1), 1, "apply"),
    )
    found = what_if(world, applied=changes, touched=(service,))
    assert (found.moves, found.waiting, found.replaced) == ((), (), 1)
    assert [(room.before.tasks, room.after.tasks) for room in found.rooms] == [(2, 1)]


def test_an_apply_goes_on_past_what_must_come_first():
    world = world_of("a", "b")
    seed = spec("seed", mode=Mode.REPLICATED_JOB)
    first = Dependency(service="seed", condition=DependencyCondition.COMPLETED)
    web = spec("web", depends_on=(first,))
    found = what_if(world, **proposed(world, web, seed))
    assert {each.split(".")[0] for each in moved(found)} == {"web", "seed"}
    assert found.waiting == ()


def test_an_apply_and_a_loss_count_together():
    world = world_of("a", "b", memory=4 * GIB)
    fields = proposed(world, spec("api", replicas=2, memory=4 * GIB))
    found = what_if(world, down=("node-a",), **fields)
    assert (moved(found), waits(found), found.lost) == ({"api.1": ("", "b")}, ["api.2"], 0)


# ---------------------------------------------------------------- the same as in earnest

ZONES = ("attic", "cellar")
MACHINES = st.tuples(st.integers(1, 8), st.sampled_from(ZONES), st.booleans())


@st.composite
def services(draw, *, neighbours):
    """Up to six services of every kind that moves, waits or stays in its own way."""
    found = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(("plain", "plain", "data", "global", "exclusive", "spread")))
        placement = PlacementSpec()
        if kind == "spread":
            placement = PlacementSpec(spread_rules=(SpreadRule(key="node.labels.zone"),))
        elif neighbours and draw(st.integers(0, 3)) == 0:
            other = f"s{draw(st.integers(0, 5))}"
            key = draw(st.sampled_from(("node.id", "node.labels.zone")))
            rule = Neighbour(service=other, key=key, apart=draw(st.booleans()))
            placement = PlacementSpec(neighbours=(rule,))
        found.append(
            spec(
                f"s{number}",
                memory=draw(st.integers(0, 4)) * GIB,
                cpu=draw(st.integers(0, 2)) * 500,
                priority=draw(st.integers(0, 2)),
                preempts=draw(st.booleans()),
                replicas=draw(st.integers(1, 4)) if kind in ("plain", "spread") else 1,
                mounts=(volume_mount(f"v{number}"),) if kind == "data" else (),
                exclusive=kind == "exclusive" or None,
                mode=Mode.GLOBAL if kind == "global" else Mode.REPLICATED,
                placement=placement,
            )
        )
    return found


def cluster(machines, specs):
    world = World()
    for number, (memory, zone, avoided) in enumerate(machines, start=1):
        taints = (Taint(key="slow", effect=TaintEffect.AVOID),) if avoided else ()
        world.add_node(
            f"n{number}", number, memory=memory * GIB, labels={"zone": zone}, taints=taints
        )
    for each in specs:
        world.apply(each)
    for _ in range(20):
        world.rest()
        world.run_all()
    return world


def placed(world):
    """Slot -> node, of all that runs where a node is."""
    return {
        (task.service, task.slot): task.node
        for task in sorted(world.tables.tasks(), key=lambda task: task.n)
        if task.outcome is None
        and task.desired.name == "RUNNING"
        and world.observed.node(task.node).state is NodeState.READY
    }


def expected(before, found, gone=()):
    """The same from what was imagined."""
    without = {(each.service, each.slot) for each in found.waiting}
    after = {
        slot: node for slot, node in before.items() if slot not in without and node not in gone
    }
    return after | {(each.service, each.slot): each.target for each in found.moves}


@given(st.lists(MACHINES, min_size=2, max_size=5), services(neighbours=True), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_loss_is_what_was_imagined(machines, specs, data):
    world = cluster(machines, specs)
    lost = data.draw(st.sampled_from(sorted(node.id for node in world.tables.nodes())))
    before = placed(world)
    found = what_if(world, down=(lost,))
    world.set_state(lost, NodeState.DOWN)
    for _ in range(20):
        world.rest()
        world.run_all()
    assert expected(before, found, (lost,)) == placed(world)
    waiting = {
        (service, slot) for service, slots in world.observed.waiting.items() for slot in slots
    }
    pinned = {(task.service, task.slot) for task in world.tables.tasks_of_node(lost) if task.pinned}
    assert {(each.service, each.slot) for each in found.waiting} == waiting | pinned


@given(st.lists(MACHINES, min_size=2, max_size=5), services(neighbours=False), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_drain_is_what_was_imagined(machines, specs, data):
    world = cluster(machines, specs)
    node_id = data.draw(st.sampled_from(sorted(node.id for node in world.tables.nodes())))
    before = placed(world)
    found = what_if(world, drained=(node_id,))
    world.set_availability(node_id, Availability.DRAIN)
    for _ in range(20):
        world.rest()
        world.run_all()
    after = expected(before, found)
    globals_ = {each.id for each in world.tables.services() if each.mode.is_global}
    after = {
        slot: node for slot, node in after.items() if slot[0] not in globals_ or node != node_id
    }
    assert after == placed(world)
    assert {(each.service, each.slot) for each in found.staying} == {
        slot for slot, node in placed(world).items() if node == node_id
    }
