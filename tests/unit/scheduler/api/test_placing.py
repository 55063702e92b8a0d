"""What is refused of a spec's placement and of an operator's word on a node, and where."""

import pytest

from homeport.model import Overcommit, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator as Op,
    ContainerSpec,
    DeviceNeed,
    Mode,
    Neighbour,
    PlacementSpec,
    Preference,
    Resources,
    ServiceSpec,
    SpreadRule,
    StackSpec,
    Strategy,
    Toleration,
    pairs,
)
from scheduler.api import placing, validation


def service(**fields):
    """A service with an image."""
    return ServiceSpec(name="web", container=ContainerSpec(image="nginx"), **fields)


def placed(**fields):
    """A service with this placement."""
    return service(placement=PlacementSpec(**fields))


def constraint(operator, value="", *, key="node.labels.a", values=()):
    """A constraint on a label."""
    return Constraint(key=key, operator=operator, value=value, values=values)


def where(spec):
    """The places of all problems of a stack with this service."""
    return [path for path, _ in validation.problems(StackSpec(name="shop", services=(spec,)))]


ALL_OF_IT = service(
    mode=Mode.REPLICATED,
    replicas=3,
    min_replicas=3,
    preempts=True,
    placement=PlacementSpec(
        constraints=(
            constraint(Op.EQ, "x"),
            constraint(Op.IN, values=("a", "b")),
            constraint(Op.EXISTS),
            constraint(Op.LESS, "1.5"),
            constraint(Op.NOT_MATCHES, "pi[0-9]+", key="node.hostname"),
        ),
        preferences=(Preference(constraint=constraint(Op.ABSENT), weight=-100),),
        spread_rules=(SpreadRule(key="engine.labels.zone", max_skew=2, weight=100),),
        neighbours=(Neighbour(service="db"), Neighbour(label="a=b", apart=True, weight=1)),
        tolerations=(Toleration(), Toleration(key="gpu", value="")),
        strategy=Strategy.BINPACK,
    ),
    devices=(DeviceNeed(kind="gpu", count=-1, share_millis=1), DeviceNeed(name="/dev/a")),
    reservations=Resources(generic=pairs({"tuner": "2"})),
)


def test_all_that_can_be_said_is_taken():
    assert where(ALL_OF_IT) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        pytest.param(
            placed(constraints=(constraint(Op.EQ),)), "placement.constraints[0]", id="no value"
        ),
        pytest.param(
            placed(constraints=(constraint(Op.EQ, "x", key="disk"),)),
            "placement.constraints[0]",
            id="no fact",
        ),
        pytest.param(
            placed(constraints=(constraint(Op.IN),)), "placement.constraints[0]", id="in nothing"
        ),
        pytest.param(
            placed(constraints=(constraint(Op.NOT_IN, values=("a", "")),)),
            "placement.constraints[0]",
            id="in an empty value",
        ),
        pytest.param(
            placed(constraints=(constraint(Op.GREATER, "ten"),)),
            "placement.constraints[0]",
            id="no number",
        ),
        pytest.param(
            placed(constraints=(constraint(Op.MATCHES, "(a*)*"),)),
            "placement.constraints[0]",
            id="a slow expression",
        ),
        pytest.param(
            placed(constraints=(constraint(Op.EXISTS),) * 101),
            "placement.constraints",
            id="a hundred and one constraints",
        ),
        pytest.param(
            placed(preferences=(Preference(constraint=constraint(Op.EXISTS), weight=101),)),
            "placement.preferences[0].weight",
            id="a weight that is too high",
        ),
        pytest.param(
            placed(preferences=(Preference(constraint=constraint(Op.EQ), weight=1),)),
            "placement.preferences[0].constraint",
            id="a preference of nothing",
        ),
        pytest.param(
            placed(spread_rules=(SpreadRule(key="zone"),)),
            "placement.spread_rules[0].key",
            id="a spread over no fact",
        ),
        pytest.param(
            placed(spread_rules=(SpreadRule(key="node.id", max_skew=0),)),
            "placement.spread_rules[0].max_skew",
            id="a skew of nothing",
        ),
        pytest.param(
            placed(neighbours=(Neighbour(),)), "placement.neighbours[0]", id="nobody's neighbour"
        ),
        pytest.param(
            placed(neighbours=(Neighbour(service="a/b/c"),)),
            "placement.neighbours[0].service",
            id="a service of too many names",
        ),
        pytest.param(
            placed(neighbours=(Neighbour(label="front"),)),
            "placement.neighbours[0].label",
            id="a label without a value",
        ),
        pytest.param(
            placed(neighbours=(Neighbour(service="db", key="rack"),)),
            "placement.neighbours[0].key",
            id="neighbours over no fact",
        ),
        pytest.param(
            placed(neighbours=(Neighbour(service="db", weight=-1),)),
            "placement.neighbours[0].weight",
            id="a weight below nothing",
        ),
        pytest.param(
            placed(tolerations=(Toleration(key="a b"),)),
            "placement.tolerations[0]",
            id="a toleration of no key",
        ),
        pytest.param(service(devices=(DeviceNeed(),)), "devices[0]", id="a device of no kind"),
        pytest.param(
            service(devices=(DeviceNeed(kind="gpu", count=0),)), "devices[0].count", id="no device"
        ),
        pytest.param(
            service(devices=(DeviceNeed(kind="gpu", share_millis=1001),)),
            "devices[0].share_millis",
            id="more than all of a device",
        ),
        pytest.param(
            service(devices=(DeviceNeed(kind="gpu", count=2, target="/dev/x"),)),
            "devices[0].target",
            id="two devices in one place",
        ),
        pytest.param(
            service(reservations=Resources(generic=pairs({"tuner": "some"}))),
            "reservations.generic[tuner]",
            id="a resource that is not counted",
        ),
        pytest.param(
            service(replicas=2, min_replicas=3), "min_replicas", id="a minimum above the number"
        ),
        pytest.param(
            service(mode=Mode.GLOBAL, min_replicas=1), "min_replicas", id="a minimum of a global"
        ),
    ],
)
def test_what_is_refused_of_a_spec(spec, path):
    assert f"services.web.{path}" in where(spec)


@pytest.mark.parametrize(
    ("taint", "is_refused"),
    [
        pytest.param(Taint(key="gpu"), False, id="a key"),
        pytest.param(Taint(key="example.org/gpu", value="a-b"), False, id="a key and a value"),
        pytest.param(Taint(key=""), True, id="no key"),
        pytest.param(Taint(key="a", value="b:c"), True, id="a value with a colon"),
        pytest.param(Taint(key="a", value="b" * 64), True, id="a long value"),
    ],
)
def test_which_taints_a_node_may_have(taint, is_refused):
    assert bool(list(placing.taint_problems("taints", [taint]))) is is_refused


@pytest.mark.parametrize(
    ("percent", "is_refused"), [(10, False), (120, False), (9, True), (10_001, True)]
)
def test_how_much_of_a_node_may_be_reserved(percent, is_refused):
    for overcommit in (Overcommit(cpu_percent=percent), Overcommit(memory_percent=percent)):
        found = list(placing.overcommit_problems("overcommit", overcommit))
        assert bool(found) is is_refused
