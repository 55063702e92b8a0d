"""What placement is told of a spec: the requirement class."""

import pytest

from homeport.spec import (
    Constraint,
    ConstraintOperator as Op,
    ContainerSpec,
    Device,
    DeviceNeed,
    DeviceRequest,
    Mount,
    MountKind,
    Neighbour,
    PlacementSpec,
    Resources,
    ServiceSpec,
    SpreadRule,
    Strategy,
    Toleration,
    pairs,
)
from scheduler.placement import requirements


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
