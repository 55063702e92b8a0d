"""What `explain` says would help is done here as it is printed, and then the task runs.

Commands go through the command line itself, up to the call that would leave the process; what the
Compose file has to say differently is applied as the next generation.
"""

import re
import shlex
from dataclasses import replace

import pytest
from click.testing import CliRunner

from homeport import codec
from homeport.cli import draining, main, options, wait
from homeport.cli.invocation import Invocation
from homeport.model import Availability, Inventory, MachineDevice, NodeState, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    ContainerSpec,
    DeviceNeed,
    Mount,
    MountKind,
    Neighbour,
    PlacementSpec,
    Port,
    Resources,
    SpreadRule,
    TaintEffect,
    Toleration,
    pairs,
)
from homeport.v1 import control_pb2
from scheduler.api import operating, wishes
from scheduler.placement.fleet import Fleet
from scheduler.placement.remedy import Kind
from scheduler.reconcile import planning
from tests.builders import GIB, World, simple_global, spec, volume_mount

MIB = 1 << 20


class Calls:
    """A client whose cluster is a world."""

    observed_unknown_since_ms = 0

    def __init__(self, world):
        self.world = world

    def update_node(self, request):
        tables = self.world.tables
        node = tables.node_named(request.node)
        self.world.commit(wishes.node(tables, node, operating._wish(request)))
        self.world.settle(40)
        return control_pb2.UpdateNodeResponse(node=codec.to_message(tables.node(node.id)))

    def scale(self, request):
        for name, count in request.replicas.items():
            self.world.scale(self.world.tables.service_named(request.stack, name).id, count)
        self.world.settle(40)
        return control_pb2.ScaleResponse()


@pytest.fixture
def run(monkeypatch):
    """Carry out printed commands on a world."""

    def carry_out(world, commands):
        monkeypatch.setattr(options, "connect", lambda context: Calls(world))
        monkeypatch.setattr(wait, "until_ready", lambda client, stack, names, timeout: 0)
        monkeypatch.setattr(draining, "slots_on", lambda client, node: {})
        monkeypatch.setattr(draining, "until_empty", lambda client, node, left, *more: 0)
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == "homeport"
            done = CliRunner().invoke(main.cli, arguments, obj=Invocation())
            assert done.exit_code == 0, (command, done.output)

    return carry_out


def remedies_of(world, service, slot=1):
    (explained,) = planning.explain(world.snapshot(), service, [slot])
    return explained.remedies


def on(name):
    """The constraint that leaves one node."""
    here = Constraint(key="node.hostname", operator=ConstraintOperator.EQ, value=name)
    return PlacementSpec(constraints=(here,))


def apart_from(name):
    return Neighbour(service=name, apart=True)


def one_node(**fields):
    world = World()
    world.add_node("a", 1, **{"memory": GIB, "cpu": 2000} | fields)
    return world


def beside(*others, nodes=("a",), **fields):
    """A world where these services run, each on the nodes that it may be on."""
    world = World()
    for number, name in enumerate(nodes, start=1):
        world.add_node(name, number, **{"memory": GIB, "cpu": 2000} | fields)
    for other in others:
        world.apply(other)
        world.settle(40)
    return world


def crowded(count):
    """A node full of small tasks, and an empty one that came later."""
    world = one_node()
    for number in range(count):
        world.apply(spec(f"x{number}", memory=GIB // (count + 1)))
        world.settle(40)
    world.add_node("b", 2, memory=GIB, cpu=2000)
    return world


HAS = Inventory(
    hostname="a",
    os="linux",
    architecture="aarch64",
    capacity=Resources(cpu_millis=2000, memory_bytes=GIB, pids=50, disk_bytes=10 * GIB),
    drivers=("DOCKER",),
    oci_runtimes=("runc",),
    paths=("/mnt",),
    path_patterns=("/mnt/*",),
    device_patterns=("/dev/ttyUSB*",),
)
SSD = Constraint(key="node.labels.disk", operator=ConstraintOperator.EQ, value="ssd")
NO_SSD = Constraint(key="node.labels.disk", operator=ConstraintOperator.ABSENT)
TAINT = Taint(key="gpu", value="yes", effect=TaintEffect.REFUSE)


@pytest.mark.parametrize(
    ("world", "wanted", "message"),
    [
        pytest.param(
            one_node(availability=Availability.PAUSE),
            spec("web"),
            "let a, which is paused, take new tasks again",
            id="a paused node",
        ),
        pytest.param(
            one_node(availability=Availability.DRAIN),
            spec("web"),
            "let a, which is drained, take new tasks again",
            id="a drained node",
        ),
        pytest.param(
            one_node(taints=(TAINT,)),
            spec("web"),
            "take the taint gpu=yes:refuse off a",
            id="a taint",
        ),
        pytest.param(
            one_node(),
            spec("web", placement=PlacementSpec(constraints=(SSD,))),
            "give a the label disk=ssd, if that is true of it",
            id="a label that is missing",
        ),
        pytest.param(
            one_node(labels={"disk": "ssd"}),
            spec("web", placement=PlacementSpec(constraints=(NO_SSD,))),
            "take the label disk=ssd off a",
            id="a label that is too many",
        ),
        pytest.param(
            one_node(), spec("web", memory=GIB * 5 // 4),
            "let 1.25 times the memory of a be reserved", id="overcommit of memory",
        ),
        pytest.param(
            one_node(), spec("web", cpu=2100), "let 1.05 times the cpu of a be reserved",
            id="overcommit of cpu",
        ),
        pytest.param(
            beside(spec("db", memory=GIB // 2), nodes=("a", "b")),
            spec("web", memory=GIB * 3 // 4, placement=on("a")),
            "move shop/db.1 from a to b",
            id="a task that can move",
        ),
        pytest.param(
            beside(spec("db", memory=GIB // 2, mounts=(volume_mount("data"),)), nodes=("a", "b")),
            spec("web", memory=GIB * 3 // 4, placement=on("a")),
            "stop shop/db.1 on a",
            id="a task that has its data there is stopped, not moved",
        ),
        pytest.param(
            beside(spec("db", memory=GIB // 4, replicas=4)),
            spec("web", memory=GIB // 4),
            "stop shop/db.4 on a",
            id="one of several replicas",
        ),
        pytest.param(
            beside(spec("x", ports=(80,)), nodes=("a", "b")),
            spec("web", ports=(80,), placement=on("a")),
            "move shop/x.1 from a to b",
            id="the port's holder moves",
        ),
        pytest.param(
            beside(spec("x"), nodes=("a", "b")),
            spec("web", placement=replace(on("a"), neighbours=(apart_from("x"),))),
            "move shop/x.1 from a to b",
            id="the neighbour moves",
        ),
        pytest.param(
            beside(
                spec("x", placement=PlacementSpec(neighbours=(apart_from("web"),))),
                nodes=("a", "b"),
            ),
            spec("web", placement=on("a")),
            "move shop/x.1 from a to b",
            id="who must be apart from it moves",
        ),
        pytest.param(
            one_node(),
            replace(spec("web"), reservations=Resources(generic=pairs({"tuner": "2"}))),
            "give a 2 tuner in all, or say so if it has them",
            id="a generic resource that nobody spoke of",
        ),
        pytest.param(
            beside(
                spec("x", memory=GIB // 2), spec("y", memory=GIB // 4),
            ),
            spec("web", memory=GIB),
            "stop shop/y.1 on a, and stop shop/x.1 on a",
            id="two tasks",
        ),
        pytest.param(
            crowded(2),
            spec("web", memory=GIB, placement=on("a")),
            "move shop/x0.1 from a to b, and move shop/x1.1 from a to b",
            id="two tasks that can go elsewhere",
        ),
        pytest.param(
            crowded(3),
            spec("web", memory=GIB, placement=on("a")),
            "move shop/x0.1 from a to b, and move shop/x1.1 from a to b, and stop shop/x2.1 on a",
            id="two that can, and one that ends",
        ),
        pytest.param(
            crowded(4),
            spec("web", memory=GIB, placement=on("a")),
            "drain a, which moves shop/x0.1 to b, shop/x1.1 to b, shop/x2.1 to b, shop/x3.1 to b,"
            " and let it take tasks again",
            id="all of a node",
        ),
        pytest.param(
            one_node(taints=(TAINT,), availability=Availability.PAUSE),
            spec("web"),
            "let a, which is paused, take new tasks again, and take the taint gpu=yes:refuse off a",
            id="two words about a node",
        ),
    ],
)  # fmt: skip
def test_the_printed_commands_make_the_task_run(run, world, wanted, message):
    service = world.apply(wanted)
    world.settle(40)
    assert not world.live(service), "the test wants it waiting"
    said = {each.message: each for each in remedies_of(world, service)}
    assert message in said, list(said)
    remedy = said[message]
    assert remedy.commands
    run(world, remedy.commands)
    assert world.nodes_of(service) == [remedy.node]


def in_file(placement):
    """A change of `deploy.placement` or of what x-homeport adds to it."""
    return lambda wanted: replace(wanted, placement=placement(wanted.placement))


def in_container(**fields):
    return lambda wanted: replace(wanted, container=replace(wanted.container, **fields))


def reserving(**fields):
    return lambda wanted: replace(wanted, reservations=replace(wanted.reservations, **fields))


@pytest.mark.parametrize(
    ("world", "wanted", "message", "edit"),
    [
        pytest.param(
            beside(spec("db", memory=GIB * 3 // 4)),
            spec("web", memory=GIB * 3 // 8),
            "reserve at most 256 MiB of memory, 128 MiB less"
            " (deploy.resources.reservations.memory: 256M); then it fits a",
            reserving(memory_bytes=256 * MIB),
            id="less memory",
        ),
        pytest.param(
            beside(spec("db", cpu=500)),
            spec("web", cpu=2000),
            "reserve at most 1.5 CPUs, 0.5 CPUs less"
            " (deploy.resources.reservations.cpus: '1.5'); then it fits a",
            reserving(cpu_millis=1500),
            id="less cpu",
        ),
        pytest.param(
            one_node(inventory=HAS),
            replace(spec("web"), reservations=Resources(pids=60)),
            "reserve at most 50 pids, 10 less; then it fits a",
            reserving(pids=50),
            id="fewer pids",
        ),
        pytest.param(
            one_node(inventory=HAS),
            replace(spec("web"), reservations=Resources(disk_bytes=12 * GIB)),
            "reserve at most 10 GiB of disk, 2 GiB less; then it fits a",
            reserving(disk_bytes=10 * GIB),
            id="less disk",
        ),
        pytest.param(
            one_node(generic=pairs({"tuner": "3"})),
            replace(spec("web"), reservations=Resources(generic=pairs({"tuner": "4"}))),
            "reserve at most 3 tuner instead of 4; then it fits a",
            reserving(generic=pairs({"tuner": "3"})),
            id="fewer of a generic resource",
        ),
        pytest.param(
            one_node(taints=(TAINT,)),
            spec("web"),
            "let it tolerate the taint gpu=yes (x-homeport.tolerations); then it fits a",
            in_file(lambda old: replace(old, tolerations=(Toleration(key="gpu", value="yes"),))),
            id="a toleration",
        ),
        pytest.param(
            one_node(labels={"disk": "hdd"}),
            spec("web", placement=PlacementSpec(constraints=(SSD,))),
            "take the constraint `node.labels.disk == ssd` out (deploy.placement.constraints);"
            " then it fits a",
            in_file(lambda old: replace(old, constraints=())),
            id="a constraint fewer",
        ),
        pytest.param(
            beside(spec("x", ports=(80,))),
            spec("web", ports=(80,)),
            "publish port 81 instead of 80/tcp (ports); then it fits a",
            in_container(ports=(Port(target=80, published=81),)),
            id="another port",
        ),
        pytest.param(
            one_node(inventory=HAS),
            spec("web", container=ContainerSpec(platform="linux/amd64")),
            "leave `platform: linux/amd64` out, if its image exists for linux/aarch64 too;"
            " then it fits a",
            in_container(platform=""),
            id="a platform",
        ),
        pytest.param(
            one_node(inventory=HAS),
            spec("web", container=ContainerSpec(oci_runtime="kata")),
            "leave `runtime: kata` out, if the engine's own runtime will do; then it fits a",
            in_container(oci_runtime=""),
            id="an OCI runtime",
        ),
        pytest.param(
            one_node(inventory=replace(HAS, unfenced="it sees no processes")),
            spec("web", exclusive=True),
            "let it not be exclusive, if two copies at once do no harm"
            " (x-homeport.exclusive: false); then it fits a",
            lambda wanted: replace(wanted, exclusive=False),
            id="exclusive",
        ),
        pytest.param(
            one_node(),
            spec("web", placement=PlacementSpec(neighbours=(Neighbour(service="shop/db"),))),
            "let `near shop/db` be a wish (x-homeport.near weight: 50); then it fits a",
            in_file(lambda old: replace(old, neighbours=(Neighbour(service="db", weight=50),))),
            id="near",
        ),
        pytest.param(
            one_node(),
            spec(
                "web", placement=PlacementSpec(spread_rules=(SpreadRule(key="node.labels.zone"),))
            ),
            "let the spread over node.labels.zone be a wish (x-homeport.spread weight: 50);"
            " then it fits a",
            in_file(
                lambda old: replace(
                    old, spread_rules=(SpreadRule(key="node.labels.zone", weight=50),)
                )
            ),
            id="a spread over what the node has not",
        ),
    ],
)
def test_what_the_file_is_to_say_makes_the_task_run(world, wanted, message, edit):
    service = world.apply(wanted)
    world.settle(40)
    assert not world.live(service), "the test wants it waiting"
    said = {each.message: each for each in remedies_of(world, service)}
    assert message in said, list(said)
    assert said[message].commands == ()
    world.apply(edit(wanted))
    world.settle(40)
    assert world.nodes_of(service) == [said[message].node]


@pytest.mark.parametrize(
    ("placement", "message", "more"),
    [
        pytest.param(
            PlacementSpec(max_replicas_per_node=1),
            "allow 2 tasks of it on a node (deploy.placement.max_replicas_per_node: 2);"
            " then it fits a",
            {"max_replicas_per_node": 2},
            id="tasks on a node",
        ),
        pytest.param(
            PlacementSpec(spread_rules=(SpreadRule(key="node.labels.zone"),)),
            "allow a difference of 2 tasks over node.labels.zone (x-homeport.spread max_skew: 2);"
            " then it fits a",
            {"spread_rules": (SpreadRule(key="node.labels.zone", max_skew=2),)},
            id="skew",
        ),
    ],
)
def test_a_second_replica_fits_when_its_rule_is_relaxed(placement, message, more):
    world = World()
    world.add_node("a", 1, labels={"zone": "attic"}, memory=GIB)
    world.add_node("b", 2, labels={"zone": "cellar"}, memory=GIB)
    world.apply(spec("full", memory=GIB, placement=on("b")))
    world.settle(40)
    wanted = spec("web", memory=GIB // 8, replicas=2, placement=placement)
    service = world.apply(wanted)
    world.settle(40)
    assert world.nodes_of(service) == ["a"]
    assert message in [each.message for each in remedies_of(world, service, 2)]
    world.apply(replace(wanted, placement=replace(placement, **more)))
    world.settle(100)
    assert world.nodes_of(service) == ["a", "a"]


def without(field, value):
    """What the machine reports when somebody was there."""

    def mend(world):
        node = world.tables.node("node-a")
        world.put(replace(node, inventory=replace(node.inventory, **{field: value})))

    return mend


@pytest.mark.parametrize(
    ("state", "inventory", "wanted", "message", "mend"),
    [
        pytest.param(
            NodeState.DOWN,
            HAS,
            spec("web"),
            "bring a back: its agent is not connected or has not reported yet",
            lambda world: world.set_state("node-a", NodeState.READY),
            id="a node that is off",
        ),
        pytest.param(
            NodeState.READY,
            HAS,
            spec(
                "web",
                mounts=(
                    Mount(
                        kind=MountKind.BIND,
                        source="/mnt/nas/films",
                        target="/x",
                        read_only=True,
                        bind_create_host_path=False,
                    ),
                ),
            ),
            "have /mnt/nas/films on a: /mnt/nas is not there",
            without("paths", ("/mnt", "/mnt/nas")),
            id="a path",
        ),
        pytest.param(
            NodeState.READY,
            HAS,
            spec("web", devices=(DeviceNeed(kind="serial"),)),
            "have serial on a: it has 0",
            without("devices", (MachineDevice(id="/dev/ttyUSB0", kind="serial"),)),
            id="a device",
        ),
        pytest.param(
            NodeState.READY,
            HAS,
            spec("web", container=ContainerSpec(oci_runtime="kata")),
            "install the OCI runtime kata in the engine of a",
            without("oci_runtimes", ("kata",)),
            id="an OCI runtime",
        ),
    ],
)
def test_what_needs_hands_is_said_and_helps(state, inventory, wanted, message, mend):
    world = one_node(inventory=inventory, state=state)
    service = world.apply(wanted)
    world.settle(40)
    remedy = {each.message: each for each in remedies_of(world, service)}[message]
    assert (remedy.kind, remedy.node, remedy.commands) == (Kind.ADD, "a", ())
    mend(world)
    world.settle(40)
    assert world.nodes_of(service) == ["a"]


def test_a_task_whose_device_is_taken_gets_it_when_its_holder_is_stopped(run):
    stick = MachineDevice(id="/dev/ttyUSB0", kind="serial", names=("/dev/ttyUSB0",))
    world = one_node(inventory=replace(HAS, devices=(stick,)))
    world.apply(spec("zigbee", devices=(DeviceNeed(kind="serial"),)))
    world.settle(40)
    service = world.apply(spec("web", devices=(DeviceNeed(kind="serial"),)))
    world.settle(40)
    (stop,) = (each for each in remedies_of(world, service) if each.kind is Kind.STOP)
    assert stop.message == "stop shop/zigbee.1 on a"
    run(world, stop.commands)
    assert world.nodes_of(service) == ["a"]


def test_what_runs_and_what_waits_for_something_else_has_no_remedies():
    world = one_node()
    service = world.apply(spec("web"))
    world.settle(40)
    assert remedies_of(world, service) == ()


def test_tasks_of_global_services_and_of_other_slots_are_left_alone():
    world = World()
    world.add_node("a", 1, memory=GIB)
    world.apply(simple_global("agent", memory=GIB // 4))
    world.settle(40)
    world.apply(spec("db", memory=GIB // 4, replicas=3))
    world.settle(40)
    service = world.apply(spec("web", memory=GIB // 2))
    world.settle(40)
    messages = " ".join(each.message for each in remedies_of(world, service))
    assert "shop/agent" not in messages
    assert re.findall(r"shop/db\.\d", messages) in ([], ["shop/db.3"])


def test_asking_leaves_the_cluster_as_it_was():
    world = beside(spec("db", memory=GIB // 2), nodes=("a", "b"))
    service = world.apply(spec("web", memory=GIB * 3 // 4, placement=on("a")))
    world.settle(40)
    before = world.fleet.copy()
    planning.explain(world.snapshot(), service, [1])
    planning.plan(world.snapshot(), [service])
    assert world.fleet == before == Fleet.from_snapshot(world.snapshot())


def test_a_plan_says_of_each_task_that_would_wait_all_objections_and_what_would_help():
    world = one_node(taints=(TAINT,))
    world.add_node("b", 2, memory=GIB, cpu=100)
    service = world.apply(spec("web", memory=2 * GIB, cpu=1000, replicas=2))
    first, second = planning.plan(world.snapshot(), [service])
    assert [(each.node, each.rule) for each in first.refusals] == [
        ("node-a", "taint"),
        ("node-a", "memory"),
        ("node-b", "memory"),
        ("node-b", "cpu"),
    ]
    assert first.remedies
    assert first.remedies == second.remedies


def test_the_slots_of_a_service_are_judged_one_by_one():
    world = beside(nodes=("a", "b"))
    service = world.apply(spec("web", memory=GIB * 3 // 4, replicas=3))
    world.settle(40)
    first, second, third = planning.explain(world.snapshot(), service, [1, 2, 3])
    assert [node.refusals for node in first.nodes if node.chosen] == [()]
    assert [node.refusals for node in second.nodes if node.chosen] == [()]
    assert (first.remedies, second.remedies) == ((), ())
    assert third.remedies


def test_a_plan_says_between_which_nodes_each_decision_was():
    world = one_node(memory=3 * GIB)
    world.add_node("b", 2, memory=4 * GIB)
    world.add_node("tiny", 3, memory=GIB // 2)
    service = world.apply(spec("web", memory=GIB, replicas=3))
    for each in planning.plan(world.snapshot(), [service]):
        first = each.nodes[0]
        assert first.chosen
        assert first.node == each.node
        assert first.total == sum(points for _, points in first.scores)
        assert first.total == max(node.total for node in each.nodes)
        assert [node.name for node in each.nodes if node.refusals] == ["tiny"]
    world.apply(spec("near", placement=PlacementSpec(neighbours=(Neighbour(service="late"),))))
    world.apply(spec("late"))
    services = [world.tables.service_named("shop", name).id for name in ("near", "late")]
    planned = planning.plan(world.snapshot(), services)
    assert [[node.refusals for node in each.nodes if node.chosen] for each in planned] == [
        [()],
        [()],
    ], "what waited for its neighbour is judged when that was there"


def test_what_a_plan_places_is_not_tried_again_as_one_that_waits():
    world = one_node()
    world.add_node("off", 2, memory=4 * GIB, state=NodeState.DOWN)
    web = spec("web", memory=GIB * 3 // 4, placement=PlacementSpec(constraints=(SSD,)))
    services = [world.apply(web)]
    world.settle(40)
    services += [world.apply(spec(name, memory=GIB // 2, priority=-1)) for name in ("db", "ui")]
    world.apply(replace(web, placement=PlacementSpec()))
    planned = planning.plan(world.snapshot(), services)
    assert [each.node for each in planned] == ["node-a", None, None]
    for each in planned[1:]:
        assert [(why.rule, why.had) for why in each.refusals] == [
            ("memory", str(GIB // 4)),
            ("ready", ""),
        ]
        assert each.remedies
