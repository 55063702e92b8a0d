"""What a plan of moves promises: it pays, it harms nobody, and a plan after it is empty."""

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from homeport.lifecycle import TaskState
from homeport.model import (
    Availability,
    Cause,
    Cluster,
    Health,
    NodeState,
    Rollout,
    RolloutState,
    Task,
)
from homeport.spec import (
    Mode,
    Mount,
    MountKind,
    Neighbour,
    PlacementSpec,
    SpreadRule,
    Strategy,
)
from scheduler.placement import filters
from scheduler.placement.fleet import Fleet
from scheduler.placement.lifting import lifted
from scheduler.reconcile import rebalancing, relocating
from scheduler.reconcile.movable import Movable, Wish
from tests.builders import GIB, World, spec, volume_mount

WISH = Wish(moves_max=rebalancing.MOVES_MAX)
MIB = 1 << 20
CASES = int(os.environ.get("REBALANCE_CASES", "40"))


class Home(World):
    """Nodes of one size, and tasks that run where the test says."""

    def __init__(self, *nodes, **fields):
        super().__init__()
        for number, name in enumerate(nodes, 1):
            self.add_node(name, number, **fields)

    def runs(self, service, *nodes, **fields):
        """The service's slots 1… run on these nodes, as one letter each."""
        head = self.tables.service(service)
        for slot, node in enumerate(nodes, 1):
            task = Task(
                service=service,
                slot=slot,
                n=1,
                node=f"node-{node}",
                generation=head.generation,
                **fields,
            )
            self.put(task)
            self.report(task.id, TaskState.RUNNING)
        return service

    def service(self, name, nodes, *, stack="shop", needs=None, **fields):
        """A service whose tasks run on these nodes, as one letter each."""
        wanted = spec(name, **fields)
        service = self.apply(wanted, replicas=len(nodes), stack=stack)
        return self.runs(service, *nodes, **(needs or {}))

    def plan(self, wish=WISH, **fields):
        return rebalancing.plan(
            self.snapshot(), Fleet.from_snapshot(self.snapshot()), wish, **fields
        )

    def moves(self, **fields):
        """(service, from, to) of each move."""
        wish = replace(WISH, **fields)
        return [
            (self.tables.service(each.task.service).name, each.task.node[5:], each.node[5:])
            for each in self.plan(wish).moves
        ]

    def carry_out(self, plan):
        """All moves of a plan, made at once and well."""
        for each in plan.moves:
            self.drop(f"tasks/{each.task.id}")
            task = replace(each.task, n=each.n, node=each.node)
            self.put(task)
            self.report(task.id, TaskState.RUNNING)


# ---------------------------------------------------------------- examples


def test_a_node_that_is_empty_takes_its_share():
    cluster = Home("a", "b")
    for number in range(4):
        cluster.service(f"s{number}", "a")
    plan = cluster.plan()
    assert [(each.task.node, each.node) for each in plan.moves] == [("node-a", "node-b")] * 2
    assert plan.unevenness_before > plan.unevenness_after == 0
    assert {each.reason for each in plan.moves} == {"node b has fewer tasks"}


def test_replicas_that_share_a_node_are_spread_before_anything_else():
    cluster = Home("a", "b")
    cluster.service("big", "a", memory=GIB)
    cluster.service("web", "aa")
    plan = cluster.plan()
    assert cluster.tables.service(plan.moves[0].task.service).name == "web"
    assert plan.moves[0].reason == "node b has fewer tasks of its service"


def test_replicas_are_spread_where_the_cluster_stays_as_even_as_it_is():
    cluster = Home("a", "b")
    cluster.service("web", "aa")
    cluster.service("db", "b")
    assert cluster.moves() == [("web", "a", "b")]


def test_an_even_cluster_stays_as_it_is():
    cluster = Home("a", "b", "c")
    for number in range(6):
        cluster.service(f"s{number}", "abcabc"[number])
    assert cluster.moves() == []


def test_a_difference_that_is_small_beside_the_load_is_left_alone():
    cluster = Home("a", "b")
    for number in range(40):
        cluster.service(f"s{number}", "a" if number < 21 else "b")
    assert cluster.moves() == []
    for number in range(40, 60):
        cluster.service(f"s{number}", "a")
    assert 0 < len(cluster.moves()) <= 10


@pytest.mark.parametrize(
    "fields",
    [
        {"mounts": (volume_mount("data"),)},
        {"mounts": (Mount(kind=MountKind.BIND, source="/srv/x", target="/x"),)},
        {"mode": Mode.REPLICATED_JOB},
        {"exclusive": True},
    ],
)
def test_what_stays(fields):
    cluster = Home("a", "b")
    needs = {"pinned": "mounts" in fields, "exclusive": "exclusive" in fields}
    for number in range(4):
        cluster.service(f"s{number}", "a", needs=needs, **fields)
    assert cluster.moves() == []


def test_two_replicas_with_a_writable_bind_leave_nothing_behind():
    cluster = Home("a", "b")
    bind = Mount(kind=MountKind.BIND, source="/srv/x", target="/x")
    cluster.service("web", "aa", mounts=(bind,))
    assert cluster.moves() == []


def test_what_became_exclusive_after_it_was_placed_stays():
    """It runs without a lease, so its successor would be started beside it."""
    cluster = Home("a", "b")
    for number in range(4):
        cluster.service(f"s{number}", "a", exclusive=True)
    assert cluster.moves(with_exclusive=True) == []


def test_an_exclusive_task_moves_when_it_is_said_and_its_price_is_the_pause():
    cluster = Home("a", "b")
    for number in range(6):
        cluster.service(f"s{number}", "a", exclusive=True, needs={"exclusive": True})
    plan = cluster.plan(replace(WISH, with_exclusive=True))
    assert plan.moves
    assert {each.price.downtime_ms for each in plan.moves} == {15_000}


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.SUSPECT, NodeState.DOWN])
def test_silent_nodes_neither_give_nor_take(state):
    cluster = Home("a", "b", "c")
    for number in range(4):
        cluster.service(f"s{number}", "a")
    cluster.set_state("node-b", state)
    assert {to for _, _, to in cluster.moves()} == {"c"}
    cluster.set_state("node-a", state)
    assert cluster.moves() == []


def test_a_paused_node_keeps_what_it_has():
    cluster = Home("a", "b")
    for number in range(4):
        cluster.service(f"s{number}", "a")
    cluster.set_availability("node-a", Availability.PAUSE)
    assert cluster.moves() == []


def test_a_service_that_is_rolled_out_or_unwell_is_left_alone():
    cluster = Home("a", "b")
    web = cluster.service("web", "aaaa")
    cluster.put(Rollout(service=web, generation=1, state=RolloutState.UPDATING))
    assert cluster.moves() == []
    cluster.put(Rollout(service=web, generation=1, state=RolloutState.COMPLETED))
    assert len(cluster.moves()) == 2
    for slot in range(1, 5):
        cluster.report(f"{web}/{slot}/1", TaskState.RUNNING, health=Health.UNHEALTHY)
    assert cluster.moves() == []


def test_only_the_stack_that_is_named():
    cluster = Home("a", "b")
    cluster.service("web", "aa", stack="one")
    cluster.service("db", "aa", stack="two")
    assert [name for name, _, _ in cluster.moves(stack="two")] == ["db"]


def test_so_many_moves_and_no_more():
    cluster = Home("a", "b")
    cluster.service("web", "a" * 8)
    assert len(cluster.moves(moves_max=2)) == 2
    assert cluster.plan(replace(WISH, moves_max=2)).is_cut
    assert not cluster.plan().is_cut


def test_what_the_scheduler_moved_by_itself_rests_for_an_hour():
    cluster = Home("a", "b")
    cluster.service("web", "aaaa", needs={"moved_ms": cluster.now_ms - 1})
    assert cluster.moves(by=Cause.RECONCILER) == []
    assert len(cluster.moves()) == 2
    cluster.pass_time(3600)
    assert len(cluster.moves(by=Cause.RECONCILER)) == 2


def test_a_zone_that_is_back_mends_the_spread_rule_though_its_node_is_fuller():
    cluster = Home()
    for number, (name, zone) in enumerate((("a", "x"), ("b", "y")), 1):
        cluster.add_node(name, number, labels={"zone": zone})
    rule = PlacementSpec(spread_rules=(SpreadRule(key="node.labels.zone"),))
    cluster.service("big", "b", memory=6 * GIB, mounts=(volume_mount("d"),), needs={"pinned": True})
    cluster.service("web", "aaa", placement=rule)
    (move,) = cluster.plan().moves
    assert move.gain == rebalancing.BROKEN
    assert move.node == "node-b"
    assert "node a" in move.reason


def test_nobody_is_left_without_the_neighbour_that_it_must_be_near():
    cluster = Home("a", "b")
    cluster.service("db", "a", memory=4 * GIB)
    near = PlacementSpec(neighbours=(Neighbour(service="db"),))
    cluster.service("app", "aa", placement=near, memory=GIB)
    assert cluster.moves() == []


def test_copies_that_must_be_apart_are_apart_while_both_run():
    cluster = Home()
    for number, (name, zone) in enumerate((("a", "x"), ("b", "x"), ("c", "y")), 1):
        cluster.add_node(name, number, labels={"zone": zone})
    apart = Neighbour(service="web", key="node.labels.zone", apart=True)
    for number in range(6):
        cluster.service(
            f"s{number}", "aaaacc"[number], mounts=(volume_mount("d"),), needs={"pinned": True}
        )
    cluster.service("web", "a", placement=PlacementSpec(neighbours=(apart,)))
    # b would do alone, but for a moment two would be in its zone.
    assert all(to == "c" for _, _, to in cluster.moves())


def test_packing_empties_nodes():
    cluster = Home("a", "b", "c")
    cluster.put(Cluster(id="c", strategy=Strategy.BINPACK))
    for number, node in enumerate("aaabc"):
        cluster.service(f"s{number}", node)
    cluster.carry_out(cluster.plan())
    assert {task.node for task in cluster.tables.tasks()} == {"node-a"}


def test_an_image_that_must_be_carried_is_part_of_the_price():
    cluster = Home("a", "b")
    cluster.service("web", "aa")
    plan = cluster.plan(image_bytes={"example": 700 * MIB})
    assert [each.price.image_bytes for each in plan.moves] == [700 * MIB]
    assert plan.images_unknown == ()
    assert cluster.plan().images_unknown == ("example",)
    cluster.service("db", "b")
    assert cluster.plan(image_bytes={"example": 700 * MIB}).moves[0].price.image_bytes == 0


def test_what_is_on_its_way_counts_as_arrived():
    cluster = Home("a", "b")
    cluster.service("web", "aaaa")
    plan = cluster.plan()
    for change in rebalancing.marks(cluster.snapshot(), plan.moves, WISH):
        cluster.commit([change])
    marked = [task for task in cluster.tables.tasks() if task.move is not None]
    assert len(marked) == 2
    assert cluster.plan(marked=marked).moves == []


# ---------------------------------------------------------------- random clusters


ZONES = ("x", "y", "")
zone_spread = SpreadRule(key="node.labels.zone", max_skew=1)
wide_spread = SpreadRule(key="node.labels.zone", max_skew=2)
soft_spread = SpreadRule(key="node.labels.zone", weight=20)
near_s0 = Neighbour(service="s0", key="node.labels.zone")
apart_self = Neighbour(service="s1", key="node.hostname", apart=True)
likes_s2 = Neighbour(service="s2", key="node.labels.zone", weight=30)
shuns_s3 = Neighbour(service="s3", key="node.labels.zone", apart=True, weight=30)

services = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, 5),
        "cpu": st.sampled_from((0, 0, 100, 500)),
        "memory": st.sampled_from((0, 0, 64 * MIB, 512 * MIB)),
        "ports": st.sampled_from(((), (), (), (80,))),
        "placement": st.builds(
            PlacementSpec,
            spread_rules=st.sampled_from(
                ((), (), (), (zone_spread,), (wide_spread,), (soft_spread,))
            ),
            neighbours=st.sampled_from(
                ((), (), (), (near_s0,), (apart_self,), (likes_s2,), (shuns_s3,))
            ),
            max_replicas_per_node=st.sampled_from((0, 0, 2)),
            strategy=st.sampled_from((None, None, None, Strategy.BINPACK)),
            spread=st.sampled_from(((), (), ("node.labels.zone",))),
        ),
    }
)
machines = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from((1000, 4000)),
        "memory": st.sampled_from((1 * GIB, 4 * GIB)),
        "zone": st.sampled_from(ZONES),
    }
)


@st.composite
def clusters(draw, *, strategies=True):
    """A cluster that placement filled while some of its nodes were away; they are back."""
    world = Home()
    nodes = draw(st.lists(machines, min_size=2, max_size=5))
    for number, machine in enumerate(nodes, 1):
        labels = {"zone": machine["zone"]} if machine["zone"] else {}
        world.add_node(
            f"n{number}", number, cpu=machine["cpu"], memory=machine["memory"], labels=labels
        )
    here = [f"node-n{number}" for number in range(1, len(nodes) + 1)]
    away = draw(st.lists(st.sampled_from(here), max_size=len(here) - 1, unique=True))
    for node in away:
        world.set_state(node, NodeState.DOWN)
    for number, fields in enumerate(draw(st.lists(services, min_size=1, max_size=6))):
        if not strategies:
            fields = fields | {"placement": replace(fields["placement"], strategy=None)}
        replicas = fields["replicas"]
        wanted = spec(f"s{number}", **{k: v for k, v in fields.items() if k != "replicas"})
        world.apply(wanted, replicas=replicas)
    world.settle(60)
    for node in away:
        world.set_state(node, NodeState.READY)
    return world


def broken(world):
    """The tasks that their nodes would not take, had they to be placed now."""
    fleet = Fleet.from_snapshot(world.snapshot())
    movable = Movable(world.snapshot(), fleet, replace(WISH, with_exclusive=True))
    found = []
    for task in sorted(world.tables.tasks(), key=lambda each: each.id):
        ask = movable.ask(task)
        if ask is None or task.outcome is not None:
            continue
        with lifted(fleet, task.id):
            rules = filters.refusals(fleet, ask, fleet.candidates[task.node])
        found += [
            (task.service, task.slot) for each in rules if each.rule not in rebalancing.STAYS_FOR
        ]
    return sorted(set(found))


@settings(max_examples=CASES, deadline=None)
@given(clusters())
def test_after_a_plan_there_is_nothing_to_move(world):
    plan = world.plan()
    world.carry_out(plan)
    if not plan.is_cut:
        assert world.plan().moves == []


@settings(max_examples=CASES, deadline=None)
@given(clusters())
def test_no_plan_breaks_a_rule_that_held(world):
    before = broken(world)
    world.carry_out(world.plan())
    assert set(broken(world)) <= set(before)


@settings(max_examples=CASES, deadline=None)
@given(clusters(strategies=False))
def test_no_plan_raises_unevenness_but_to_mend_a_rule(world):
    plan = world.plan()
    if all(each.gain < rebalancing.BROKEN for each in plan.moves):
        assert plan.unevenness_after <= plan.unevenness_before
    world.carry_out(plan)
    assert world.plan().unevenness_before == plan.unevenness_after


@settings(max_examples=CASES, deadline=None)
@given(clusters(), st.integers(1, 3))
def test_every_move_is_one_that_its_node_takes_while_the_old_task_is_there(world, most):
    plan = world.plan(replace(WISH, moves_max=most))
    assert len(plan.moves) <= most
    assert all(each.gain > 0 and each.node != each.task.node for each in plan.moves)
    if plan.moves:
        (change,) = rebalancing.marks(world.snapshot(), plan.moves[:1], WISH)
        if len(plan.moves) == 1:
            fleet = Fleet.from_snapshot(world.snapshot())
            assert relocating.refusal(world.snapshot(), fleet, change.value) == ""


@settings(max_examples=max(15, CASES // 2), deadline=None)
@given(clusters())
def test_a_plan_that_is_marked_comes_to_an_end_with_one_task_in_each_slot(world):
    before = broken(world)
    slots = {(task.service, task.slot) for task in world.tables.tasks() if task.outcome is None}
    plan = world.plan()
    world.commit(rebalancing.marks(world.snapshot(), plan.moves, WISH))
    world.settle(60.0 + 30 * len(plan.moves), step=10.0)
    live = [task for task in world.tables.tasks() if task.outcome is None]
    assert [task for task in live if task.move is not None] == []
    assert {(task.service, task.slot) for task in live} >= slots
    assert len({(task.service, task.slot) for task in live}) == len(live)
    if slots == {(task.service, task.slot) for task in live}:
        assert set(broken(world)) <= set(before)
