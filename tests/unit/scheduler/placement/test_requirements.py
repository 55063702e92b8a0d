"""What placement is told of a spec: the requirement class."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from homeport.model import Service, Stack
from homeport.spec import (
    Constraint,
    ConstraintOperator as Op,
    ContainerSpec,
    Device,
    DeviceNeed,
    DeviceRequest,
    Mode,
    Mount,
    MountKind,
    Neighbour,
    PlacementSpec,
    Port,
    Resources,
    ServiceSpec,
    SpreadRule,
    Strategy,
    Toleration,
    VolumeSpec,
    pairs,
)
from scheduler.placement import requirements
from scheduler.placement.requirements import HostPort, Requirements
from tests.strategies import values


def of(container=None, **fields):
    """What a service of the stack `shop` needs."""
    spec = ServiceSpec(name="web", container=container or ContainerSpec(), **fields)
    return requirements.of(spec, None, "shop")


def test_neighbours_are_named_with_their_stack():
    placement = PlacementSpec(
        neighbours=(Neighbour(service="db"), Neighbour(service="lab/db"), Neighbour(label="a=b"))
    )
    names = [each.service for each in of(placement=placement).neighbours]
    assert names == ["shop/db", "lab/db", ""]


def test_what_placement_says_arrives_as_it_is():
    placement = PlacementSpec(
        spread_rules=(SpreadRule(key="node.id"),),
        tolerations=(Toleration(key="gpu"),),
        strategy=Strategy.BINPACK,
    )
    needs = of(placement=placement, labels=pairs({"tier": "front"}))
    assert needs.spread_rules == placement.spread_rules
    assert needs.tolerations == placement.tolerations
    assert needs.strategy is Strategy.BINPACK
    assert needs.labels == (("tier", "front"),)


def test_where_a_device_appears_makes_no_other_class():
    one = of(ContainerSpec(devices=(Device(source="/dev/a", target="/dev/b"),)))
    other = of(ContainerSpec(devices=(Device(source="/dev/a", target="/dev/c"),)))
    assert one == other
    assert one.devices == (DeviceNeed(name="/dev/a", share_millis=0),)


def test_gpus_are_devices():
    container = ContainerSpec(device_requests=(DeviceRequest(capabilities=("gpu",), count=2),))
    assert of(container).devices == (DeviceNeed(kind="gpu", vendor="nvidia", count=2),)


def test_generic_resources_are_counts():
    reservations = Resources(generic=pairs({"tuner": "2", "odd": "UUID-1", "none": "0"}))
    assert of(reservations=reservations).generic == (("tuner", 2),)


def test_only_paths_that_must_be_there_are_needed():
    def bind(source, **fields):
        return Mount(kind=MountKind.BIND, source=source, target="/x", **fields)

    container = ContainerSpec(
        mounts=(
            bind("/mnt/b", bind_create_host_path=False),
            bind("/mnt/a", bind_create_host_path=False, read_only=True),
            bind("/mnt/c"),
            Mount(kind=MountKind.VOLUME, source="v", target="/v", bind_create_host_path=False),
        )
    )
    assert of(container).paths == ("/mnt/a", "/mnt/b")


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param(ContainerSpec(image="nginx:1"), "nginx:1", id="its name"),
        pytest.param(ContainerSpec(image="nginx:1", image_id="sha256:0"), "sha256:0", id="its id"),
    ],
)
def test_the_image(container, expected):
    assert of(container).image == expected


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint(key="node.id", operator=Op.EQ, value="n1"), "node.id == n1"),
        (Constraint(key="node.id", operator=Op.NE, value="n1"), "node.id != n1"),
        (Constraint(key="node.id", operator=Op.IN, values=("a", "b")), "node.id in (a, b)"),
        (Constraint(key="node.id", operator=Op.NOT_IN, values=("a",)), "node.id not in (a)"),
        (Constraint(key="node.id", operator=Op.EXISTS), "node.id exists"),
        (Constraint(key="node.id", operator=Op.ABSENT), "node.id not exists"),
        (Constraint(key="node.labels.a", operator=Op.LESS, value="2"), "node.labels.a < 2"),
        (Constraint(key="node.labels.a", operator=Op.GREATER, value="2"), "node.labels.a > 2"),
        (Constraint(key="node.id", operator=Op.MATCHES, value="n.*"), "node.id =~ n.*"),
        (Constraint(key="node.id", operator=Op.NOT_MATCHES, value="n.*"), "node.id !~ n.*"),
    ],
)
def test_a_constraint_is_shown_as_it_is_written(constraint, expected):
    assert requirements.shown(constraint) == expected


# ---------------------------------------------------------------- data


def mount(source, kind=MountKind.VOLUME, **fields):
    return Mount(kind=kind, source=source, target="/x", **fields)


def service(replicas=1, mode=Mode.REPLICATED):
    return Service(id="shop-web-1", stack="shop", name="web", replicas=replicas, mode=mode)


NFS = VolumeSpec(name="nfs", driver_opts=pairs({"type": "NFS"}))


def with_volumes(*mounts, volumes=(NFS,)):
    spec = ServiceSpec(name="web", container=ContainerSpec(mounts=mounts))
    return requirements.of(spec, Stack(name="shop", volumes=volumes), "shop")


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param(None, True, id="of which nothing is said"),
        pytest.param(VolumeSpec(name="v"), True, id="of the engine's own driver"),
        pytest.param(VolumeSpec(name="v", driver="local"), True, id="which is named"),
        pytest.param(VolumeSpec(name="v", driver="rclone"), False, id="of another driver"),
        pytest.param(NFS, False, id="mounted from a server"),
        pytest.param(
            VolumeSpec(name="v", driver_opts=pairs({"type": "tmpfs"})), False, id="in memory"
        ),
        pytest.param(
            VolumeSpec(name="v", driver_opts=pairs({"type": "ext4"})), True, id="on a disk"
        ),
    ],
)
def test_data_is_local_in_a_volume(volume, expected):
    assert requirements.is_local(volume) is expected


def test_named_volumes_on_a_disk_are_where_data_is():
    needs = with_volumes(
        mount("b"),
        mount("a"),
        mount("nfs"),
        mount(""),
        mount("/mnt/x", MountKind.BIND, read_only=True),
    )
    assert needs.volumes == (("shop", "a"), ("shop", "b"))


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([], False),
        ([mount("nfs")], True),
        ([mount("nfs", read_only=True)], False),
        ([mount("data")], False),
        ([mount("")], False),
        ([mount("/mnt/x", MountKind.BIND)], False),
    ],
)
def test_data_is_shared_where_a_volume_that_others_reach_is_written(mounts, expected):
    assert with_volumes(*mounts).shared_data is expected


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("/srv/data", {}, True),
        ("/srv/data", {"read_only": True}, False),
        ("/srv/data", {"kind": MountKind.VOLUME}, False),
        ("/dev", {}, False),
        ("/dev/", {}, False),
        ("/dev/dri", {}, False),
        ("/devices", {}, True),
        ("/var/run/docker.sock", {}, False),
        ("/etc/localtime", {}, False),
    ],
)
def test_a_writable_bind_keeps_data_on_the_node(source, fields, expected):
    fields = {"kind": MountKind.BIND} | fields
    assert with_volumes(mount(source, **fields)).data_on_node is expected


@pytest.mark.parametrize(
    ("needs", "of", "expected"),
    [
        ({}, service(), False),
        ({"volumes": (("shop", "a"),)}, service(3), True),
        ({"node": "a"}, service(3), True),
        ({"data_on_node": True}, service(), True),
        ({"data_on_node": True}, service(2), False),
        ({"data_on_node": True}, service(mode=Mode.GLOBAL), False),
    ],
)
def test_data_pins_a_task_to_its_node(needs, of, expected):
    assert requirements.is_pinned(Requirements(**needs), of) is expected


@pytest.mark.parametrize(
    ("said", "needs", "of", "expected"),
    [
        (None, {}, service(), False),
        (None, {"shared_data": True}, service(), True),
        (None, {"shared_data": True}, service(2), False),
        (False, {"shared_data": True}, service(), False),
        (True, {}, service(2), True),
    ],
)
def test_who_is_exclusive(said, needs, of, expected):
    spec = ServiceSpec(name="web", exclusive=said)
    assert requirements.is_exclusive(spec, Requirements(**needs), of) is expected


# ---------------------------------------------------------------- the class


def test_published_ports_are_sorted_and_those_that_the_engine_picks_are_none():
    ports = (
        Port(target=1, published=81),
        Port(target=2, published=80, protocol="udp"),
        Port(target=3, published=80),
        Port(target=4, published=80),
        Port(target=5),
    )
    assert of(ContainerSpec(ports=ports)).ports == (
        HostPort(published=80),
        HostPort(published=80, protocol="udp"),
        HostPort(published=81),
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, True),
        ({}, {"published": 81}, False),
        ({}, {"protocol": "udp"}, False),
        ({"host_ip": "192.0.2.1"}, {"host_ip": "192.0.2.1"}, True),
        ({"host_ip": "192.0.2.1"}, {"host_ip": "192.0.2.2"}, False),
        ({"host_ip": "192.0.2.1"}, {"host_ip": "0.0.0.0"}, True),
        ({"host_ip": "::"}, {"host_ip": "192.0.2.1"}, True),
    ],
)
def test_ports_that_cannot_both_be_bound(one, other, expected):
    one, other = (HostPort(**({"published": 80} | each)) for each in (one, other))
    assert one.conflicts(other) is other.conflicts(one) is expected


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("", ("", "")),
        ("/", ("", "")),
        ("Linux", ("linux", "")),
        ("arm64", ("", "arm64")),
        ("linux/arm64/v8", ("linux", "arm64")),
    ],
)
def test_a_platform_is_a_system_and_an_architecture(platform, expected):
    needs = of(ContainerSpec(platform=platform))
    assert (needs.os, needs.architecture) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        ("", 0),
        ("x", 0),
        ("-1", 0),
        ("²", 0),
        ("٣", 0),
        ("999999999", 999_999_999),
        ("1000000000", 0),
    ],
)
def test_a_count_of_generic_resources(text, expected):
    assert requirements.whole(text) == expected


RULE = {"key": "node.labels.zone"}


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({}, False),
        ({"spread_rules": (SpreadRule(**RULE),)}, True),
        ({"spread_rules": (SpreadRule(weight=1, **RULE),)}, False),
        ({"neighbours": (Neighbour(service="s/a"),)}, True),
        ({"neighbours": (Neighbour(service="s/a", weight=1),)}, False),
        ({"neighbours": (Neighbour(service="s/a", apart=True),)}, False),
        ({"neighbours": (Neighbour(service="s/a", apart=True, weight=1),)}, False),
    ],
)
def test_whether_a_task_elsewhere_can_make_a_node_fit(needs, expected):
    assert Requirements(**needs).is_grouped is expected


def test_the_largest_class_is_decided_first():
    classes = [
        Requirements(memory_bytes=2),
        Requirements(memory_bytes=1, cpu_millis=5),
        Requirements(memory_bytes=1, cpu_millis=1),
        Requirements(cpu_millis=9),
    ]
    backwards = classes[::-1]
    assert sorted(backwards, key=lambda each: each.order) == classes


def test_services_that_differ_in_nothing_that_counts_share_one_class():
    one, other = (
        requirements.of(
            ServiceSpec(name=name, replicas=replicas, container=ContainerSpec(image="a", env=env)),
            None,
            "shop",
        )
        for name, replicas, env in (("web", 1, ()), ("api", 7, pairs({"A": "b"})))
    )
    assert one is other


@settings(max_examples=20)
@given(values(ServiceSpec), st.sampled_from(["shop", "lab"]))
def test_what_was_known_before_is_no_answer_for_another_spec(spec, stack_name):
    volumes = tuple(VolumeSpec(name=mount.source) for mount in spec.container.mounts)
    shared = tuple(replace(each, driver="nfs") for each in volumes)
    for stack in (None, Stack(name=stack_name, volumes=volumes), Stack(name="lab", volumes=shared)):
        found = requirements.of(spec, stack, stack_name)
        assert found is requirements.of(spec, stack, stack_name)
        assert found == requirements.of(copy.copy(spec), stack, stack_name)
        requirements._of.cache_clear()
        requirements._of_spec.cache_clear()
        assert requirements.of(spec, stack, stack_name) == found
