"""Each rule of placement: what it refuses, with what was needed and what there was."""

from dataclasses import replace

import pytest

from homeport.model import Availability, Condition, Inventory, NodeState, NodeStatus, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    ConstraintOperator as Op,
    ContainerSpec,
    Mount,
    MountKind,
    Neighbour,
    PlacementSpec,
    Port,
    Resources,
    SpreadRule,
    TaintEffect,
    Toleration,
    VolumeSpec,
    pairs,
)
from scheduler.placement import filters, words
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet, requirements_of
from scheduler.reconcile import scheduling
from scheduler.reconcile.slots import Vacancy
from tests.builders import GIB, World, spec, volume_mount

EQ, NE = ConstraintOperator.EQ, ConstraintOperator.NE
HAS = Inventory(
    hostname="machine-a",
    os="linux",
    architecture="aarch64",
    capacity=Resources(cpu_millis=2000, memory_bytes=4 * GIB, pids=100),
    drivers=("DOCKER",),
    oci_runtimes=("runc", "runsc"),
    engine_labels=pairs({"tier": "old"}),
    labels=pairs({"disk": "hdd", "room": "attic"}),
)


def refused(wanted, *, others=(), volumes=(), **node_fields):
    """(rule, needed, had) of each rule that refuses `wanted` on node `a`."""
    world = World()
    state = node_fields.pop("state", NodeState.READY)
    fields = {"inventory": HAS, "labels": {"disk": "ssd"}} | node_fields
    here = world.add_node("a", 1, state=state, **fields)
    for other in others:
        service = world.apply(other)
        world.rest()
        assert world.live(service), "the test wants it placed"
    service = world.apply(wanted, volumes=volumes)
    ask = Ask(
        service=service,
        slot=1,
        n=1,
        generation=1,
        needs=requirements_of(world.tables, service, 1),
    )
    found = filters.refusals(world.fleet, ask, world.fleet.candidates[here])
    for refusal in found:
        assert "refused by" not in words.sentence(refusal, "a"), "each rule has its sentence"
    return [(each.rule, each.needed, each.had) for each in found]


def constrained(key, operator, value="", values=()):
    constraint = Constraint(key=key, operator=operator, value=value, values=values)
    return spec("web", placement=PlacementSpec(constraints=(constraint,)))


def published(port, *, protocol="tcp", host_ip="", name="web"):
    ports = (Port(target=80, published=port, protocol=protocol, host_ip=host_ip),)
    return spec(name, container=ContainerSpec(ports=ports))


@pytest.mark.parametrize(
    ("wanted", "fields", "expected"),
    [
        pytest.param(spec("web"), {}, [], id="what asks for nothing fits"),
        pytest.param(
            spec("web"),
            {"state": NodeState.UNKNOWN},
            [("ready", "", "")],
            id="a node that has not reported gets nothing",
        ),
        pytest.param(
            spec("web"),
            {"state": NodeState.SUSPECT},
            [("ready", "", "")],
            id="a suspect node gets nothing",
        ),
        pytest.param(
            spec("web"),
            {"availability": Availability.PAUSE},
            [("availability", "", "")],
            id="a paused node takes nothing new",
        ),
        pytest.param(
            spec("web", pin_node="b"),
            {},
            [("bind-source", "b", "")],
            id="a bind source is on another machine",
        ),
        pytest.param(
            spec("web", pin_node="node-a"), {}, [], id="a bind source is on this machine, by id"
        ),
        pytest.param(
            spec("web"),
            {"inventory": replace(HAS, drivers=("PROCESS",))},
            [("driver", "docker", "process")],
            id="no container engine",
        ),
        pytest.param(
            spec("web", container=ContainerSpec(platform="linux/amd64")),
            {},
            [("platform", "linux/amd64", "linux/aarch64")],
            id="an image for another architecture",
        ),
        pytest.param(
            spec("web", container=ContainerSpec(platform="linux/arm64/v8")),
            {},
            [],
            id="arm64 is what kernels call aarch64",
        ),
        pytest.param(
            spec("web", container=ContainerSpec(oci_runtime="kata")),
            {},
            [("oci-runtime", "kata", "runc, runsc")],
            id="an OCI runtime that the engine lacks",
        ),
        pytest.param(
            spec("web", cpu=2000, memory=4 * GIB), {}, [], id="all of a node may be reserved"
        ),
        pytest.param(
            spec("web", cpu=2001), {}, [("cpu", "2001", "2000")], id="one thousandth of a core more"
        ),
        pytest.param(
            spec("web", memory=4 * GIB + 1),
            {},
            [("memory", str(4 * GIB + 1), str(4 * GIB))],
            id="one byte more",
        ),
        pytest.param(
            replace(spec("web"), reservations=Resources(pids=101)),
            {},
            [("pids", "101", "100")],
            id="more pids than there are",
        ),
        pytest.param(
            replace(spec("web"), reservations=Resources(disk_bytes=1 << 50)),
            {},
            [],
            id="a node that does not say how much disk it has, has enough",
        ),
        pytest.param(constrained("node.hostname", EQ, "a"), {}, [], id="hostname is its name"),
        pytest.param(constrained("node.hostname", EQ, "machine-a"), {}, [], id="or its hostname"),
        pytest.param(
            constrained("node.hostname", NE, "machine-a"),
            {},
            [("constraint", "node.hostname != machine-a", "a")],
            id="neither may be what is excluded",
        ),
        pytest.param(constrained("node.id", EQ, "node-a"), {}, [], id="by id"),
        pytest.param(
            constrained("node.role", EQ, "manager"),
            {},
            [("constraint", "node.role == manager", "worker")],
            id="by role",
        ),
        pytest.param(constrained("node.platform.os", EQ, "linux"), {}, [], id="by system"),
        pytest.param(constrained("node.platform.arch", EQ, "arm64"), {}, [], id="by architecture"),
        pytest.param(
            constrained("node.labels.disk", EQ, "ssd"), {}, [], id="the operator's label wins"
        ),
        pytest.param(
            constrained("node.labels.room", EQ, "attic"), {}, [], id="the agent's label counts"
        ),
        pytest.param(
            constrained("node.labels.gpu", EQ, "yes"),
            {},
            [("constraint", "node.labels.gpu == yes", "")],
            id="an absent label equals nothing",
        ),
        pytest.param(
            constrained("node.labels.gpu", NE, "yes"), {}, [], id="an absent label differs"
        ),
        pytest.param(constrained("engine.labels.tier", EQ, "old"), {}, [], id="engine labels"),
    ],
)
def test_what_a_node_is_and_has(wanted, fields, expected):
    assert refused(wanted, **fields) == expected


@pytest.mark.parametrize(
    ("name", "ok", "expected"),
    [
        pytest.param("disk", False, [("condition", "", "it is full")], id="a full disk"),
        pytest.param("engine", False, [("condition", "", "it is full")], id="an engine that hangs"),
        pytest.param("disk", True, [], id="a disk that is well"),
        pytest.param("clock", False, [], id="a clock that jumped keeps nothing away"),
    ],
)
def test_a_node_that_is_not_well_takes_nothing_new(name, ok, expected):
    world = World()
    here = world.add_node("a", 1, inventory=HAS)
    status = NodeStatus(conditions=(Condition(name=name, ok=ok, message="it is full"),))
    world.observed.put_node_status(here, status)
    service = world.apply(spec("web"))
    fleet = Fleet.from_snapshot(world.snapshot())
    vacancy = Vacancy(service=service, slot=1, n=1, generation=1, reason="the slot is empty")
    ask = scheduling.ask_for(world.snapshot(), fleet, vacancy)
    found = filters.refusals(fleet, ask, fleet.candidates[here])
    assert [(each.rule, each.needed, each.had) for each in found] == expected


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        pytest.param(spec("web"), True, id="what need not be fenced"),
        pytest.param(spec("web", exclusive=True), False, id="what is exclusive and may move"),
        pytest.param(
            spec("web", exclusive=True, pin_node="a"), True, id="what is exclusive and stays"
        ),
    ],
)
def test_a_node_that_cannot_fence_takes_nothing_that_needs_a_lease(wanted, fits):
    world = World()
    here = world.add_node("a", 1, inventory=replace(HAS, unfenced="it sees no processes"))
    service = world.apply(wanted)
    vacancy = Vacancy(service=service, slot=1, n=1, generation=1, reason="the slot is empty")
    ask = scheduling.ask_for(world.snapshot(), world.fleet, vacancy)
    found = filters.refusals(world.fleet, ask, world.fleet.candidates[here])
    assert [each.rule for each in found] == ([] if fits else ["fencing"])
    for refusal in found:
        assert "it sees no processes" in words.sentence(refusal, "a")


@pytest.mark.parametrize(
    ("taken", "wanted", "fits"),
    [
        pytest.param(published(80, name="x"), published(80), False, id="the same port"),
        pytest.param(published(80, name="x"), published(81), True, id="another port"),
        pytest.param(
            published(53, protocol="udp", name="x"), published(53), True, id="another protocol"
        ),
        pytest.param(
            published(80, host_ip="192.0.2.1", name="x"),
            published(80, host_ip="192.0.2.2"),
            True,
            id="another address",
        ),
        pytest.param(
            published(80, host_ip="192.0.2.1", name="x"),
            published(80, host_ip="192.0.2.1"),
            False,
            id="the same address",
        ),
        pytest.param(
            published(80, host_ip="192.0.2.1", name="x"),
            published(80),
            False,
            id="all addresses include that one",
        ),
        pytest.param(published(0, name="x"), published(0), True, id="the engine picks both"),
    ],
)
def test_published_ports(taken, wanted, fits):
    found = [rule for rule, _, _ in refused(wanted, others=(taken,))]
    assert found == ([] if fits else ["ports"])


def test_what_is_reserved_counts():
    assert refused(spec("web", cpu=1500), others=(spec("x", cpu=1000),)) == [
        ("cpu", "1500", "1000")
    ]


def test_more_tasks_of_a_service_than_it_allows_on_a_node():
    world = World()
    world.add_node("a", 1)
    service = world.apply(spec("web", replicas=3, placement=PlacementSpec(max_replicas_per_node=2)))
    world.rest()
    assert len(world.live(service)) == 2
    assert [each.rule for each in world.observed.waiting[service][3].refusals] == ["tasks-per-node"]


def test_a_local_volume_draws_later_tasks_to_its_node():
    world = World()
    world.add_node("a", 1)
    data = spec("db", mounts=(volume_mount("data"),))
    service = world.apply(data)
    world.rest()
    world.add_node("b", 2)
    other = world.apply(spec("backup", mounts=(volume_mount("data"),)))
    world.rest()
    assert world.nodes_of(service) == world.nodes_of(other) == ["a"]


def test_services_that_share_a_volume_meet_also_when_placed_together():
    world = World()
    for number, name in enumerate("abc", start=1):
        world.add_node(name, number)
    services = [
        world.apply(spec(name, mounts=(volume_mount("data"),))) for name in ("db", "backup", "ui")
    ]
    world.rest()
    assert len({world.nodes_of(service)[0] for service in services}) == 1


@pytest.mark.parametrize(
    "shared",
    [
        VolumeSpec(name="data", driver_opts=pairs({"type": "nfs", "device": ":/x"})),
        VolumeSpec(name="data", driver_opts=pairs({"type": "cifs"})),
        VolumeSpec(name="data", driver="rclone"),
    ],
    ids=["nfs", "cifs", "a shared driver"],
)
def test_a_volume_that_every_node_can_reach_pins_nothing_and_makes_one_replica_exclusive(shared):
    world = World()
    world.add_node("a", 1)
    service = world.apply(spec("db", mounts=(volume_mount("data"),)), volumes=(shared,))
    world.rest()
    (task,) = world.live(service)
    assert task.exclusive
    assert not task.pinned
    assert list(world.tables.volumes()) == []


def test_who_only_reads_a_shared_volume_is_not_exclusive():
    world = World()
    world.add_node("a", 1)
    shared = VolumeSpec(name="data", driver="rclone")
    reader = replace(volume_mount("data"), read_only=True)
    service = world.apply(spec("web", mounts=(reader,)), volumes=(shared,))
    world.rest()
    assert not world.live(service)[0].exclusive


def test_a_port_makes_nothing_exclusive():
    world = World()
    world.add_node("a", 1)
    service = world.apply(spec("web", ports=(80,)))
    world.rest()
    assert not world.live(service)[0].exclusive


def test_a_summary_counts_nodes_by_reason():
    world = World()
    world.add_node("a", 1, cpu=100)
    world.add_node("b", 2, cpu=100)
    world.add_node("c", 3, state=NodeState.DOWN)
    service = world.apply(spec("web", cpu=200))
    world.rest()
    reason = world.observed.waiting[service][1].reason
    assert reason.endswith("none of 3 nodes will do: 2 lack cpu, 1 is not ready")


FACTS = {
    "node.id": "n1",
    "node.hostname": "pi4",
    "hostname": "raspberry",
    "node.platform.arch": "aarch64",
    "node.labels.disk": "ssd",
    "node.labels.watts": "4.50",
    "node.labels.empty": "",
}


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("node.labels.disk", Op.EQ, "ssd", True),
        ("node.labels.disk", Op.NE, "ssd", False),
        ("node.labels.none", Op.EQ, "", False),
        ("node.labels.none", Op.NE, "", True),
        ("node.labels.disk", Op.IN, ("hdd", "ssd"), True),
        ("node.labels.disk", Op.IN, ("hdd",), False),
        ("node.labels.none", Op.IN, ("hdd",), False),
        ("node.labels.disk", Op.NOT_IN, ("hdd",), True),
        ("node.labels.disk", Op.NOT_IN, ("ssd",), False),
        ("node.labels.none", Op.NOT_IN, ("ssd",), True),
        ("node.labels.empty", Op.EXISTS, "", True),
        ("node.labels.none", Op.EXISTS, "", False),
        ("node.labels.empty", Op.ABSENT, "", False),
        ("node.labels.none", Op.ABSENT, "", True),
        ("node.labels.watts", Op.LESS, "4.6", True),
        ("node.labels.watts", Op.LESS, "4.5", False),
        ("node.labels.watts", Op.LESS, "10", True),
        ("node.labels.watts", Op.GREATER, "4.4", True),
        ("node.labels.watts", Op.GREATER, "4.5", False),
        ("node.labels.watts", Op.GREATER, "-10", True),
        ("node.labels.disk", Op.LESS, "4", False),
        ("node.labels.disk", Op.GREATER, "4", False),
        ("node.labels.none", Op.LESS, "4", False),
        ("node.labels.none", Op.GREATER, "4", False),
        ("node.labels.disk", Op.MATCHES, "s+d", True),
        ("node.labels.disk", Op.MATCHES, "s", False),
        ("node.labels.none", Op.MATCHES, ".*", False),
        ("node.labels.disk", Op.NOT_MATCHES, "s+d", False),
        ("node.labels.none", Op.NOT_MATCHES, ".*", True),
        ("node.hostname", Op.EQ, "raspberry", True),
        ("node.hostname", Op.NE, "pi4", False),
        ("node.hostname", Op.IN, ("nas", "raspberry"), True),
        ("node.hostname", Op.MATCHES, "pi[0-9]", True),
        ("node.hostname", Op.NOT_MATCHES, "rasp.*", False),
        ("node.platform.arch", Op.EQ, "arm64", True),
        ("node.platform.arch", Op.IN, ("amd64", "arm64"), True),
        ("node.platform.arch", Op.NOT_IN, ("arm64",), False),
    ],
)
def test_when_a_constraint_holds(key, operator, value, expected):
    said = {"values": value} if isinstance(value, tuple) else {"value": value}
    assert filters.holds(Constraint(key=key, operator=operator, **said), FACTS) is expected


GPU = Taint(key="gpu", value="yes", effect=TaintEffect.REFUSE)
REFUSED = [("taint", "gpu=yes:refuse", "")]


@pytest.mark.parametrize(
    ("effect", "toleration", "expected"),
    [
        pytest.param("REFUSE", None, REFUSED, id="refuse"),
        pytest.param("EVICT", None, [("taint", "gpu=yes:evict", "")], id="evict"),
        pytest.param("AVOID", None, [], id="avoid is a wish"),
        pytest.param("REFUSE", Toleration(), [], id="everything is tolerated"),
        pytest.param("REFUSE", Toleration(key="gpu"), [], id="the key is tolerated"),
        pytest.param("REFUSE", Toleration(value="yes"), [], id="the value is tolerated"),
        pytest.param(
            "REFUSE", Toleration(effect=TaintEffect.REFUSE), [], id="the effect is tolerated"
        ),
        pytest.param("REFUSE", Toleration(key="old"), REFUSED, id="another key is tolerated"),
        pytest.param("REFUSE", Toleration(value=""), REFUSED, id="another value is tolerated"),
        pytest.param(
            "REFUSE",
            Toleration(effect=TaintEffect.EVICT),
            REFUSED,
            id="another effect is tolerated",
        ),
    ],
)
def test_a_taint_keeps_away_what_does_not_tolerate_it(effect, toleration, expected):
    tolerations = (toleration,) if toleration is not None else ()
    wanted = spec("web", placement=PlacementSpec(tolerations=tolerations))
    assert refused(wanted, taints=(replace(GPU, effect=TaintEffect[effect]),)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/mnt/nas/films", []),
        ("/mnt/usb/films", [("path", "/mnt/usb/films", "/mnt/usb")]),
        ("/var/lib/x", []),
    ],
)
def test_a_path_that_must_be_there_is_looked_for_where_it_is_listed(source, expected):
    mount = Mount(kind=MountKind.BIND, source=source, target="/x", bind_create_host_path=False)
    lists = replace(HAS, paths=("/mnt", "/mnt/nas"), path_patterns=("/mnt/*",))
    assert refused(spec("web", mounts=(mount,)), inventory=lists) == expected


def test_who_belongs_to_another_node_is_told_its_name_not_its_id():
    world = World()
    world.add_node("a", 1)
    world.add_node("b", 2)
    service = world.apply(spec("web", pin_node="node-b"))
    needs = requirements_of(world.tables, service, 1)
    ask = Ask(service=service, slot=1, n=1, generation=1, needs=needs, only="node-b")
    found = filters.refusals(world.fleet, ask, world.fleet.candidates["node-a"])
    assert [(each.rule, each.needed) for each in found] == [("node", "b"), ("bind-source", "b")]


def zones(*names):
    """A world with a node called like its zone, or `a1`: node 1 of zone `a`."""
    world = World()
    for number, name in enumerate(names, start=1):
        world.add_node(name, number, labels={"zone": name[0]} if name[0] != "-" else {})
    return world


def why_waits(world, service, slot=1):
    """Rule and sentence of each node that refuses a waiting slot."""
    refusals = world.observed.waiting[service][slot].refusals
    names = {node.id: node.name for node in world.tables.nodes()}
    return [(each.rule, words.sentence(each, names[each.node])) for each in refusals]


def near(service, *, key="node.labels.zone", apart=False, weight=0, name="web", **fields):
    rule = Neighbour(service=service, key=key, apart=apart, weight=weight)
    return spec(name, placement=PlacementSpec(neighbours=(rule,)), **fields)


def test_a_spread_rule_keeps_domains_even_also_when_one_is_full():
    world = zones("a1", "a2", "b1")
    world.apply(
        spec(
            "x",
            memory=8 * GIB,
            placement=PlacementSpec(
                constraints=(Constraint(key="node.hostname", operator=EQ, value="b1"),)
            ),
        )
    )
    world.rest()
    rules = (SpreadRule(key="node.labels.zone", max_skew=1),)
    service = world.apply(
        spec("web", replicas=3, memory=GIB, placement=PlacementSpec(spread_rules=rules))
    )
    world.rest()
    assert world.nodes_of(service) == ["a1"]
    said = dict(why_waits(world, service, 2))
    assert "zone a with 1 tasks of this service, the emptiest has 0" in said["spread"]
    assert "memory" in said
    world.add_node("b2", 4, labels={"zone": "b"})
    world.rest()
    assert sorted(world.nodes_of(service)) == ["a1", "a2", "b2"]


def test_a_domain_whose_nodes_are_all_away_does_not_hold_the_others_back():
    world = zones("a1", "b1")
    rules = (SpreadRule(key="node.labels.zone", max_skew=1),)
    service = world.apply(spec("web", replicas=4, placement=PlacementSpec(spread_rules=rules)))
    world.set_availability("node-b1", Availability.PAUSE)
    world.rest()
    assert len(world.live(service)) == 4


def test_a_node_without_the_label_takes_nothing_that_must_be_spread_by_it():
    world = zones("-", "a1")
    rules = (SpreadRule(key="node.labels.zone", max_skew=1),)
    service = world.apply(spec("web", replicas=2, placement=PlacementSpec(spread_rules=rules)))
    world.rest()
    assert world.nodes_of(service) == ["a1", "a1"]


def test_a_task_waits_for_those_that_it_must_be_near_to_and_goes_where_they_are():
    world = zones("a1", "a2", "b1", "b2")
    service = world.apply(near("shop/db", replicas=2))
    world.rest()
    assert {rule for rule, _ in why_waits(world, service)} == {"neighbour"}
    assert "must be near one" in why_waits(world, service)[0][1]
    world.apply(
        spec(
            "db",
            replicas=20,
            placement=PlacementSpec(
                constraints=(Constraint(key="node.hostname", operator=EQ, value="b2"),)
            ),
        )
    )
    world.rest()
    assert {name[0] for name in world.nodes_of(service)} == {"b"}


def test_what_is_applied_together_is_placed_together_whatever_the_order():
    world = zones("a1", "b1")
    follower = world.apply(near("shop/db", memory=GIB))  # large: it is decided first
    leader = world.apply(spec("db"))
    world.rest()
    assert world.nodes_of(follower) == world.nodes_of(leader)


def test_a_service_can_be_kept_together():
    world = zones("a1", "b1")
    service = world.apply(near("shop/web", replicas=3, key="node.id"))
    world.rest()
    assert len(set(world.nodes_of(service))) == 1


def test_tasks_that_must_be_apart_are_also_when_the_other_comes_later():
    world = zones("a1", "a2", "b1")
    first = world.apply(near("shop/db", apart=True))
    world.rest()
    later = world.apply(spec("db", replicas=3))
    world.rest()
    assert world.nodes_of(first) == ["a1"]
    assert set(world.nodes_of(later)) == {"b1"}
    third = world.apply(near("shop/db", apart=True, name="third", memory=GIB))
    world.rest()
    assert world.nodes_of(third) == ["a2"]


def test_one_replica_on_a_node():
    world = zones("a1", "b1")
    service = world.apply(near("shop/web", apart=True, key="node.id", replicas=3))
    world.rest()
    assert sorted(world.nodes_of(service)) == ["a1", "b1"]
    assert {rule for rule, _ in why_waits(world, service, 3)} == {"neighbour"}
    assert "has a task of shop/web, and it must be apart" in why_waits(world, service, 3)[0][1]


def test_a_weighted_wish_is_traded_against_tasks_of_the_service():
    world = zones("a1", "b1")
    world.apply(
        spec(
            "db",
            placement=PlacementSpec(
                constraints=(Constraint(key="node.hostname", operator=EQ, value="b1"),)
            ),
        )
    )
    world.rest()
    service = world.apply(near("shop/db", weight=25, replicas=4))
    world.rest()
    # Two and a half tasks' worth: b1 has three before a1 has its first.
    assert sorted(world.nodes_of(service)) == ["a1", "b1", "b1", "b1"]
