"""What the loss of each node would cost: the same as what-if says, and within bounds."""

from homeport.model import NodeId, NodeState
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import losses
from scheduler.reconcile.imagined import compare
from scheduler.reconcile.imagining import Imagining, imagine
from scheduler.reconcile.losses import Loss
from tests.builders import GIB, World, spec, volume_mount


def world_of(*specs, nodes=("a", "b"), **fields):
    world = World()
    for number, name in enumerate(nodes, start=1):
        world.add_node(name, number, **fields)
    for each in specs:
        world.apply(each)
    world.settle()
    return world


def loss(world, name):
    fleet = Fleet.from_snapshot(world.snapshot())
    found = losses.of_node(world.snapshot(), fleet, NodeId(f"node-{name}"))
    assert fleet == world.fleet  # the caller's is kept as it was
    return found


def test_a_cluster_with_room_survives_each_loss():
    world = world_of(spec("web", replicas=4, memory=GIB))
    assert [loss(world, name) for name in "ab"] == [Loss(), Loss()]


def test_what_is_bound_to_the_node_and_what_finds_no_room_are_told_apart():
    world = world_of(
        spec("db", mounts=(volume_mount("data"),)),
        spec("web", replicas=2, memory=5 * GIB),
    )
    (data,) = {task.node for task in world.tables.tasks() if "db" in task.service}
    other = ({"node-a", "node-b"} - {data}).pop()
    assert loss(world, data.removeprefix("node-")) == Loss(pinned=1, unplaceable=1)
    assert loss(world, other.removeprefix("node-")) == Loss(unplaceable=1)


def test_it_is_what_whatif_says():
    world = world_of(
        *(spec(f"s{n}", replicas=n, memory=n * GIB, cpu=300) for n in range(1, 5)),
        spec("db", memory=GIB, mounts=(volume_mount("data"),)),
        nodes=("a", "b", "c", "d"),
    )
    found = {}
    for name in "abcd":
        change = Imagining(down=(NodeId(f"node-{name}"),))
        asked = compare(imagine(world.snapshot(), change), change)
        found[name] = loss(world, name)
        assert found[name] == Loss(pinned=asked.pinned, unplaceable=asked.lost - asked.pinned)
    assert any(each != Loss() for each in found.values())


def test_a_node_that_is_down_already_costs_nothing_more():
    world = world_of(spec("db", mounts=(volume_mount("data"),)))
    (task,) = world.tables.tasks()
    world.set_state(task.node, NodeState.DOWN)
    assert loss(world, task.node.removeprefix("node-")) == Loss()


def test_of_a_node_on_which_too_much_hangs_nothing_is_said(monkeypatch):
    world = world_of(spec("web", replicas=4))
    monkeypatch.setattr(losses, "LOOKED_MAX", 4)
    assert loss(world, "a") is None


def test_a_large_cluster_is_not_worked_out(monkeypatch):
    world = world_of(spec("web", replicas=4))
    assert losses.are_told(world.snapshot())
    monkeypatch.setattr(losses, "TASKS_MAX", 3)
    assert not losses.are_told(world.snapshot())
    monkeypatch.setattr(losses, "TASKS_MAX", 4)
    monkeypatch.setattr(losses, "NODES_MAX", 1)
    assert not losses.are_told(world.snapshot())
