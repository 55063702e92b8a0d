"""Where tasks go, over real gRPC: devices that agents list, and what an operator says of nodes.

Real scheduler and agent processes, the simulated runtime; each agent has a machine's file tree of
its own, made here.
"""

import pytest

from homeport.client import Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until

Need = types_pb2.DeviceNeed
STICKS = {"n1": ("ttyUSB0", "ttyUSB1"), "n2": ("ttyUSB0",), "n3": ()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and three agents, with two serial sticks, one and none."""
    folder = tmp_path_factory.mktemp("placing")
    processes = [Scheduler(folder / "scheduler")]
    try:
        scheduler = processes[0].leads()
        for name, sticks in STICKS.items():
            tree = folder / f"{name}-tree"
            (tree / "dev").mkdir(parents=True)
            (tree / "mnt" / f"disk-of-{name}").mkdir(parents=True)
            for stick in sticks:
                (tree / "dev" / stick).touch()
            root = ("--host-root", str(tree))
            processes.append(Agent(folder / name, scheduler.address, name, *root))
        with Client(scheduler.address) as client:
            ready = types_pb2.NODE_STATE_READY
            until("the nodes are ready", lambda: [n.state for n in client.nodes()] == [ready] * 3)
            yield folder, client
    finally:
        for process in reversed(processes):
            process.end()


@pytest.fixture
def client(cluster):
    """A client whose stacks are gone afterwards, and what was said of nodes with them."""
    _, client = cluster
    yield client
    for each in client.stacks():
        client.remove_stack(control_pb2.RemoveStackRequest(stack=each.name))
    until("all stacks are gone", lambda: not list(client.stacks()))
    for name in STICKS:
        plain = types_pb2.Overcommit(cpu_percent=100, memory_percent=100)
        update(client, name, remove_taints=["gpu"], remove_resources=["tuner"], overcommit=plain)


def update(client, node, **fields):
    """An operator's word."""
    return client.update_node(control_pb2.UpdateNodeRequest(node=node, **fields)).node


def apply(client, *services):
    """Deploy the stack `lab`; what `plan` would have said of it."""
    return client.apply(control_pb2.ApplyRequest(stack=stack("lab", *services)))


def nodes(client, count):
    """Where the running tasks are, once there are so many."""
    return sorted(task.node_name for task in running(client, "lab", count))


def waiting(client):
    """The rules that refuse the one slot which waits, by node."""

    def found():
        tasks = [task for task in client.tasks(stack="lab") if state_of(task) == "PENDING"]
        return tasks if tasks and tasks[0].objections else None

    (task,) = until("a slot waits", found)
    return {each.node: each.rule for each in task.objections}


def test_each_stick_is_taken_by_one_task(client):
    answer = apply(client, service(replicas=4, devices=[Need(kind="serial")]))
    assert list(answer.notices) == []
    tasks = until("three tasks run", lambda: _placed(client, 3))
    given = sorted((task.node_name, task.task.grants[0].device) for task in tasks)
    assert given == [("n1", "/dev/ttyUSB0"), ("n1", "/dev/ttyUSB1"), ("n2", "/dev/ttyUSB0")]
    assert waiting(client) == {"n1": "device-free", "n2": "device-free", "n3": "device"}


def test_a_device_path_of_compose_leads_to_the_machine_that_has_it(client):
    device = types_pb2.Device(source="/dev/ttyUSB1", target="/dev/zigbee")
    apply(client, service(replicas=1, container={"devices": [device]}))
    assert nodes(client, 1) == ["n1"]


def test_a_stick_that_is_plugged_in_is_found(cluster, client):
    folder, _ = cluster
    apply(client, service(replicas=1, devices=[Need(name="/dev/ttyACM0")]))
    assert set(waiting(client)) == set(STICKS)
    stick = folder / "n3-tree/dev/ttyACM0"
    stick.touch()
    try:
        assert nodes(client, 1) == ["n3"]
    finally:
        stick.unlink()


def test_a_bind_that_must_be_there_leads_to_its_disk(client):
    mount = types_pb2.Mount(
        kind=types_pb2.MOUNT_KIND_BIND,
        source="/mnt/disk-of-n2/films",
        target="/films",
        bind_create_host_path=False,
    )
    apply(client, service(replicas=1, container={"mounts": [mount]}))
    assert nodes(client, 1) == ["n2"]


def test_a_taint_sends_away_and_keeps_away(client):
    apply(client, service(replicas=3))
    assert nodes(client, 3) == ["n1", "n2", "n3"]
    evict = types_pb2.Taint(key="gpu", effect=types_pb2.TAINT_EFFECT_EVICT)
    update(client, "n1", set_taints=[evict])
    until("n1 is left", lambda: "n1" not in [each.node_name for each in _placed(client, 3) or ()])
    tolerant = types_pb2.PlacementSpec(tolerations=[types_pb2.Toleration(key="gpu")])
    apply(client, service(replicas=3, placement=tolerant))
    until("n1 is used again", lambda: "n1" in [each.node_name for each in _placed(client, 3) or ()])


def test_generic_resources_are_counted(client):
    update(client, "n2", set_resources={"tuner": "2"})
    wanted = types_pb2.Resources(generic={"tuner": "1"})
    apply(client, service(replicas=3, reservations=wanted))
    assert [task.node_name for task in until("two tasks run", lambda: _placed(client, 2))] == [
        "n2",
        "n2",
    ]
    assert waiting(client) == {"n1": "generic", "n2": "generic", "n3": "generic"}


def test_overcommit_makes_room(client):
    memory = next(iter(client.nodes())).node.inventory.capacity.memory_bytes
    wanted = types_pb2.Resources(memory_bytes=memory * 3 // 2)
    apply(client, service(replicas=1, reservations=wanted))
    assert set(waiting(client).values()) == {"memory"}
    update(client, "n3", overcommit=types_pb2.Overcommit(memory_percent=200))
    assert nodes(client, 1) == ["n3"]


def placed(**fields):
    """A placement."""
    return types_pb2.PlacementSpec(**fields)


def constraint(operator, value="", values=(), key="node.hostname"):
    """What must hold of a node."""
    return types_pb2.Constraint(key=key, operator=operator, value=value, values=values)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (constraint(types_pb2.CONSTRAINT_OPERATOR_IN, values=["n3", "n9"]), ["n3"]),
        (constraint(types_pb2.CONSTRAINT_OPERATOR_MATCHES, "n[2-4]"), ["n2", "n3"]),
        (
            constraint(types_pb2.CONSTRAINT_OPERATOR_GREATER, "5", key="node.labels.watts"),
            ["n2"],
        ),
        (constraint(types_pb2.CONSTRAINT_OPERATOR_ABSENT, key="node.labels.watts"), ["n3"]),
    ],
)
def test_constraints_choose_nodes(client, wanted, expected):
    for name, watts in (("n1", "4.5"), ("n2", "15")):
        update(client, name, set_labels={"watts": watts})
    count = len(expected)
    apply(client, service(replicas=count, placement=placed(constraints=[wanted])))
    assert nodes(client, count) == expected


def test_wishes_choose_nodes(client):
    likes = constraint(types_pb2.CONSTRAINT_OPERATOR_EQ, "n3")
    liked = placed(preferences=[types_pb2.Preference(constraint=likes, weight=100)])
    packed = placed(strategy=types_pb2.STRATEGY_BINPACK)
    room = types_pb2.Resources(memory_bytes=16 << 20)
    apply(
        client,
        service("liked", replicas=1, placement=liked),
        service("packed", replicas=3, placement=packed, reservations=room),
    )
    tasks = {task.name: task.node_name for task in running(client, "lab", 4)}
    assert tasks["liked.1"] == "n3"
    assert len({tasks[f"packed.{slot}"] for slot in (1, 2, 3)}) == 1


def test_neighbours_are_near_and_apart(client):
    on_n2 = placed(constraints=[constraint(types_pb2.CONSTRAINT_OPERATOR_EQ, "n2")])
    near = placed(neighbours=[types_pb2.Neighbour(service="db")])
    apart = placed(neighbours=[types_pb2.Neighbour(label="tier=data", apart=True)])
    apply(
        client,
        # First in the order of decisions: nobody else takes its only place.
        service("db", replicas=1, placement=on_n2, labels={"tier": "data"}, priority=1),
        service("near", replicas=2, placement=near),
        service("apart", replicas=2, placement=apart),
    )
    tasks = {task.name: task.node_name for task in running(client, "lab", 5)}
    assert {tasks["near.1"], tasks["near.2"]} == {"n2"}
    assert {tasks["apart.1"], tasks["apart.2"]} == {"n1", "n3"}


def test_a_service_is_spread_over_a_label(client):
    for name, zone in (("n1", "attic"), ("n2", "attic"), ("n3", "cellar")):
        update(client, name, set_labels={"zone": zone})
    rule = types_pb2.SpreadRule(key="node.labels.zone")
    apply(client, service(replicas=4, placement=placed(spread_rules=[rule])))
    assert nodes(client, 4) == ["n1", "n2", "n3", "n3"]


def _placed(client, count):
    """The running tasks of the stack, if there are so many."""
    tasks = [task for task in client.tasks(stack="lab") if state_of(task) == "RUNNING"]
    return tasks if len(tasks) == count else None
