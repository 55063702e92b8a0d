"""What a file says of where tasks go: constraints, neighbours, spread, taints, devices."""

from typing import Any

import pytest

from homeport.spec import (
    Constraint,
    ConstraintOperator as Op,
    Device,
    DeviceNeed,
    Neighbour,
    Preference,
    SpreadRule,
    Strategy,
    TaintEffect,
    Toleration,
)
from tests.unit.homeport.compose.conftest import Project

DB = "  db: {image: x}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node.labels.disk==ssd", ("node.labels.disk", Op.EQ, "ssd")),
        ("node.role != worker", ("node.role", Op.NE, "worker")),
        ("node.labels.note == a in (b)", ("node.labels.note", Op.EQ, "a in (b)")),
        ("node.labels.x == exists", ("node.labels.x", Op.EQ, "exists")),
        ("node.labels.watts < 15", ("node.labels.watts", Op.LESS, "15")),
        ("node.labels.year>2019.5", ("node.labels.year", Op.GREATER, "2019.5")),
        ("node.hostname =~ pi[0-9]+", ("node.hostname", Op.MATCHES, "pi[0-9]+")),
        ("node.hostname!~.*-old", ("node.hostname", Op.NOT_MATCHES, ".*-old")),
        ("node.labels.gpu exists", ("node.labels.gpu", Op.EXISTS, "")),
        ("engine.labels.gpu not exists", ("engine.labels.gpu", Op.ABSENT, "")),
        ("node.id in (n1,  n2, n1)", ("node.id", Op.IN, ("n1", "n2"))),
        ("node.platform.arch not in(arm64)", ("node.platform.arch", Op.NOT_IN, ("arm64",))),
    ],
)
def test_constraints(project: Project, text: str, expected: tuple[str, Op, Any]) -> None:
    key, operator, value = expected
    said = {"values": value} if isinstance(value, tuple) else {"value": value}
    body = f"deploy:\n  placement:\n    constraints:\n      - {text}"
    (found,) = project.service(body).placement.constraints
    assert found == Constraint(key=key, operator=operator, **said)


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ("strategy: binpack", "strategy", Strategy.BINPACK),
        ("priority: 1", "strategy", None),
        (
            "prefer: [{where: node.labels.disk == ssd, weight: -5}, {where: node.labels.a exists}]",
            "preferences",
            (
                Preference(
                    constraint=Constraint(key="node.labels.disk", operator=Op.EQ, value="ssd"),
                    weight=-5,
                ),
                Preference(
                    constraint=Constraint(key="node.labels.a", operator=Op.EXISTS), weight=1
                ),
            ),
        ),
    ],
)
def test_wishes(project: Project, body: str, field: str, expected: Any) -> None:
    assert getattr(project.service(f"x-homeport: {{{body}}}").placement, field) == expected


def test_spread(project: Project) -> None:
    body = "x-homeport: {spread: [node.hostname, {over: node.labels.z, max_skew: 2, weight: 9}]}"
    assert project.service(body).placement.spread_rules == (
        SpreadRule(key="node.hostname"),
        SpreadRule(key="node.labels.z", max_skew=2, weight=9),
    )


def test_neighbours(project: Project) -> None:
    body = (
        "x-homeport:\n"
        "  near: [zoo, {service: other/cache, over: node.labels.zone, weight: 40}]\n"
        "  apart: [web, {label: tier=front}]\n"
    )
    assert project.service(body, "  zoo: {image: x}\n").placement.neighbours == (
        Neighbour(service="zoo"),
        Neighbour(service="other/cache", key="node.labels.zone", weight=40),
        Neighbour(service="web", apart=True),
        Neighbour(label="tier=front", apart=True),
    )


def test_a_neighbour_of_a_profile_that_is_off_is_known(project: Project) -> None:
    other = "  db: {image: x, profiles: [data]}\n"
    service = project.service("x-homeport: {near: [{service: db, weight: 1}]}", other)
    assert service.placement.neighbours == (Neighbour(service="db", weight=1),)


def test_tolerations(project: Project) -> None:
    body = "x-homeport:\n  tolerations: [gpu, gpu=yes, 'gpu=:evict', old:avoid, '*', gpu]\n"
    assert project.service(body).placement.tolerations == (
        Toleration(key="gpu"),
        Toleration(key="gpu", value="yes"),
        Toleration(key="gpu", value="", effect=TaintEffect.EVICT),
        Toleration(key="old", effect=TaintEffect.AVOID),
        Toleration(),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("device: /dev/ttyUSB0", (DeviceNeed(name="/dev/ttyUSB0"),)),
        ("device: 'usb:10c4:ea60'", (DeviceNeed(name="usb:10c4:ea60"),)),
        ("device: gpu", (DeviceNeed(kind="gpu"),)),
        (
            "device: {kind: gpu, vendor: NVIDIA, model: '*3060', share: 0.25}",
            (DeviceNeed(kind="gpu", vendor="nvidia", models=("*3060",), share_millis=250),),
        ),
        (
            "device: [{usb: '10C4:EA60', count: 2}, {kind: gpu, model: [a, b], count: all}]",
            (
                DeviceNeed(name="usb:10c4:ea60", count=2),
                DeviceNeed(kind="gpu", models=("a", "b"), count=-1),
            ),
        ),
        (
            "device: {path: /dev/ttyACM0, shared: true, target: /dev/zigbee}",
            (DeviceNeed(name="/dev/ttyACM0", share_millis=0, target="/dev/zigbee"),),
        ),
        ("device: {id: GPU-3faa}", (DeviceNeed(name="GPU-3faa"),)),
    ],
)
def test_devices(project: Project, body: str, expected: tuple[DeviceNeed, ...]) -> None:
    assert project.service(f"x-homeport:\n  {body}").devices == expected


def test_devices_of_compose_stay_as_they_are(project: Project) -> None:
    service = project.service("devices: ['/dev/ttyUSB0:/dev/zigbee']")
    assert service.devices == ()
    assert service.container.devices == (Device(source="/dev/ttyUSB0", target="/dev/zigbee"),)


def test_resources(project: Project) -> None:
    body = (
        "deploy:\n  resources:\n    reservations:\n      generic_resources:\n"
        "        - discrete_resource_spec: {kind: tuner, value: 2}\n"
        "        - discrete_resource_spec: {kind: licence, value: 1}\n"
    )
    assert project.service(body).reservations.generic == (("licence", "1"), ("tuner", "2"))


def test_preemption(project: Project) -> None:
    service = project.service(
        "deploy: {replicas: 3}\n"
        "x-homeport: {priority: 100, preempts: true, preemptible: false, min_replicas: 2}"
    )
    said = (service.priority, service.preempts, service.preemptible, service.min_replicas)
    assert said == (100, True, False, 2)
    plain = project.service("user: a")
    assert (plain.preempts, plain.preemptible, plain.min_replicas) == (False, None, 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("node.labels.a", "is not a constraint such as node.labels.disk == ssd. Compare with"),
        ("node.labels.a >= 3", "'= 3' is not a number to compare with"),
        ("node.labels.a < many", "'many' is not a number to compare with"),
        ("node.hostname =~ (a+)+", "'(a+)+' repeats a group"),
        ("node.hostname =~ (", "'(' is not a regular expression"),
        ("node.labels.a in ()", "has an empty value between its parentheses"),
        ("node.labels.a in (a,,b)", "has an empty value between its parentheses"),
        ("node.label.a exists", "'node.label.a' is not a fact of nodes. Known are node.id"),
    ],
)
def test_a_constraint_that_cannot_be(project: Project, text: str, sentence: str) -> None:
    body = f"deploy:\n  placement:\n    constraints:\n      - {text}"
    (problem,) = project.refused(body)
    assert problem.startswith("compose.yaml:7:13: services.web.deploy.placement.constraints[0]: ")
    assert sentence in problem


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("strategy: pack", "4:28: services.web.x-homeport.strategy: 'pack' is not one of spread"),
        ("prefer: [{weight: 5}]", "prefer[0]: needs `where`, a constraint that is liked"),
        ("prefer: [{where: node.labels.a exists, weight: 0}]", "prefer[0]: has no weight"),
        ("prefer: [{where: node.labels.a exists, weight: 101}]", "is not between -100 and 100"),
        ("prefer: [{where: a exists}]", "prefer[0].where: 'a' is not a fact of nodes"),
        ("spread: [zone]", "spread[0]: 'zone' is not a fact of nodes"),
        ("spread: [{max_skew: 1}]", "spread[0]: needs `over`, a fact of nodes"),
        ("spread: [{over: node.id, max_skew: 0}]", "max_skew: '0' is not between 1 and"),
        ("spread: [node.id, node.id]", "spread[1]: spreads over node.id a second time"),
        ("spread: node.id", "spread: must be a list, not a single value"),
        ("near: [dbb]", "near[0]: there is no service 'dbb' in this file. Did you mean `db`?"),
        ("near: [{over: node.id}]", "near[0]: needs either a `service` or a `label`"),
        ("apart: [{service: db, label: a=b}]", "apart[0]: needs either a `service` or a `label`"),
        ("apart: [{label: front}]", "'front' is not KEY=VALUE of a service's deploy.labels"),
        ("apart: [{service: db, over: rack}]", "apart[0]: 'rack' is not a fact of nodes"),
        ("apart: [{service: db, weigth: 1}]", "apart[0].weigth: Compose knows no such key here. "
                                              "Did you mean `weight`?"),
        ("tolerations: ['gpu:flee']", "tolerations[0]: 'gpu:flee' is not KEY, KEY=VALUE, "
                                      "KEY:EFFECT or *. The effects are avoid, refuse, evict"),
        ("tolerations: ['a b']", "is not KEY, KEY=VALUE"),
        ("device: {}", "device: says nothing of the device. Give one of path, id, usb, kind"),
        ("device: {count: 2}", "device: says nothing of the device"),
        ("device: {path: ttyUSB0}", "'ttyUSB0' is not the path of a device"),
        ("device: {path: /dev/a, usb: '1:2'}", "names one device by path and usb. Keep one"),
        ("device: {path: /dev/a, count: 2}", "is one device, and cannot be had several times"),
        ("device: {kind: gpu, count: 0}", "device.count: '0' is not between 1 and 1000"),
        ("device: {kind: gpu, count: 2, target: /dev/x}", "of a single device in the container"),
        ("device: {kind: gpu, share: 1.5}", "device.share: '1.5' is not a number between 0.001"),
        ("device: {kind: gpu, share: 0.5, shared: true}", "cannot be given together with `shared"),
        ("device: [/dev/a, {path: /dev/a}]", "device[1]: takes /dev/a a second time"),
        ("device: {serial: x}", "device.serial: Compose knows no such key here"),
        ("min_replicas: 2", "min_replicas: is more than the 1 replicas that there are to be"),
        ("preempts: perhaps", "preempts: must be true or false"),
    ],
)  # fmt: skip
def test_what_cannot_be(project: Project, body: str, sentence: str) -> None:
    found = project.refused(f"x-homeport: {{{body}}}", DB)
    assert any(sentence in problem for problem in found), found


def test_a_global_service_has_no_minimum(project: Project) -> None:
    body = "deploy: {mode: global}\nx-homeport: {min_replicas: 0}"
    (problem,) = project.refused(body)
    assert problem.endswith("is for services with a number of replicas. Write `preemptible: false`")
