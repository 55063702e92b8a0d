"""Checks what a spec says of nodes and devices, and what an operator says of a node."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from homeport import patterns
from homeport.model import Overcommit, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    DeviceNeed,
    Neighbour,
    Pairs,
    PlacementSpec,
    ServiceSpec,
)
from scheduler.api.checks import Problem, shown, within

REPLICAS_MAX = 10_000
WEIGHT_MAX = 100
ITEMS_MAX = 100
"""Rules of one kind in one spec, taints of one node."""
VALUE_MAX = 63
COUNT_MAX = 1_000_000
DEVICES_MAX = 1_000
FACTOR_MIN_PERCENT, FACTOR_MAX_PERCENT = 10, 10_000

_KEY = re.compile(r"[A-Za-z0-9][\w./-]{0,62}")
_VALUE = re.compile(rf"[^\s:=]{{0,{VALUE_MAX}}}")


def problems(path: str, service: ServiceSpec) -> Iterator[Problem]:
    """All that is wrong with where this service wants to run."""
    yield from _placement(f"{path}.placement", service.placement)
    yield from generic_problems(f"{path}.reservations.generic", service.reservations.generic)
    for index, need in enumerate(service.devices):
        yield from _need(f"{path}.devices[{index}]", need)
    if service.min_replicas and service.mode.is_global:
        yield f"{path}.min_replicas", "is for services with a number of replicas"
    else:
        yield from within(f"{path}.min_replicas", service.min_replicas, 0, max(0, service.replicas))


def taint_problems(path: str, taints: Collection[Taint]) -> Iterator[Problem]:
    """Whether a node may have these taints."""
    if len(taints) > ITEMS_MAX:
        yield path, f"{len(taints)} taints; a node has at most {ITEMS_MAX}"
    if len({taint.key for taint in taints}) < len(taints):
        yield path, "two taints have the same key"
    for index, taint in enumerate(taints):
        here = f"{path}[{index}]"
        if not _KEY.fullmatch(taint.key):
            yield here, f"{shown(taint.key)} cannot be the key of a taint"
        if not _VALUE.fullmatch(taint.value):
            yield here, f"{shown(taint.value)} cannot be the value of a taint"


def overcommit_problems(path: str, overcommit: Overcommit) -> Iterator[Problem]:
    """Whether that much of a node may be reserved."""
    for name in ("cpu_percent", "memory_percent"):
        value = getattr(overcommit, name)
        yield from within(f"{path}.{name}", value, FACTOR_MIN_PERCENT, FACTOR_MAX_PERCENT)


def generic_problems(path: str, resources: Pairs) -> Iterator[Problem]:
    """Whether these are counts of resources that have a name."""
    if len(resources) > ITEMS_MAX:
        yield path, f"{len(resources)} kinds; there may be {ITEMS_MAX}"
    for kind, text in resources:
        if not _KEY.fullmatch(kind):
            yield path, f"{shown(kind)} cannot be the name of a resource"
        if not (re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and int(text) <= COUNT_MAX):
            yield f"{path}[{kind}]", f"{shown(text)} is not a number up to {COUNT_MAX}"


def _placement(path: str, placement: PlacementSpec) -> Iterator[Problem]:
    yield from within(
        f"{path}.max_replicas_per_node", placement.max_replicas_per_node, 0, REPLICAS_MAX
    )
    for name in ("constraints", "preferences", "spread_rules", "neighbours", "tolerations"):
        if (count := len(getattr(placement, name))) > ITEMS_MAX:
            yield f"{path}.{name}", f"{count} entries; there may be {ITEMS_MAX}"
            return
    for index, constraint in enumerate(placement.constraints):
        yield from _constraint(f"{path}.constraints[{index}]", constraint)
    for index, preference in enumerate(placement.preferences):
        here = f"{path}.preferences[{index}]"
        yield from _constraint(f"{here}.constraint", preference.constraint)
        yield from within(f"{here}.weight", preference.weight, -WEIGHT_MAX, WEIGHT_MAX)
    for index, rule in enumerate(placement.spread_rules):
        here = f"{path}.spread_rules[{index}]"
        yield from _fact(f"{here}.key", rule.key)
        yield from within(f"{here}.max_skew", rule.max_skew, 1, REPLICAS_MAX)
        yield from within(f"{here}.weight", rule.weight, 0, WEIGHT_MAX)
    for index, neighbour in enumerate(placement.neighbours):
        yield from _neighbour(f"{path}.neighbours[{index}]", neighbour)
    for index, toleration in enumerate(placement.tolerations):
        here = f"{path}.tolerations[{index}]"
        if toleration.key and not _KEY.fullmatch(toleration.key):
            yield here, f"{shown(toleration.key)} cannot be the key of a taint"


def _constraint(path: str, constraint: Constraint) -> Iterator[Problem]:
    if not constraint.key:
        yield path, "a constraint needs a key"
        return
    yield from _fact(path, constraint.key)
    value = constraint.value
    match constraint.operator:
        case ConstraintOperator.EXISTS | ConstraintOperator.ABSENT:
            pass
        case ConstraintOperator.IN | ConstraintOperator.NOT_IN:
            if not constraint.values or not all(constraint.values):
                yield path, "a constraint with `in` needs values, and none of them empty"
        case ConstraintOperator.LESS | ConstraintOperator.GREATER:
            if patterns.number(value) is None:
                yield path, f"{shown(value)} is not a number to compare with"
        case ConstraintOperator.MATCHES | ConstraintOperator.NOT_MATCHES:
            if why := patterns.problem(value):
                yield path, f"{shown(value)} {why}"
        case ConstraintOperator.EQ | ConstraintOperator.NE:
            if not value:
                yield path, "a constraint needs a value"


def _neighbour(path: str, neighbour: Neighbour) -> Iterator[Problem]:
    service, label = neighbour.service, neighbour.label
    if bool(service) == bool(label):
        yield path, "a neighbour is a service or a label: one of them, not both"
    elif service.count("/") > 1:
        yield f"{path}.service", f"{shown(service)} is neither SERVICE nor STACK/SERVICE"
    elif label and not re.fullmatch(r"[^=\s]+=.*", label):
        yield f"{path}.label", f"{shown(label)} is not KEY=VALUE"
    yield from _fact(f"{path}.key", neighbour.key)
    yield from within(f"{path}.weight", neighbour.weight, 0, WEIGHT_MAX)


def _need(path: str, need: DeviceNeed) -> Iterator[Problem]:
    if not (need.name or need.kind or need.vendor or need.models):
        yield path, "says nothing of the device: give its name, kind, vendor or models"
    if need.count != -1:
        yield from within(f"{path}.count", need.count, 1, DEVICES_MAX)
    yield from within(f"{path}.share_millis", need.share_millis, 0, 1000)
    if need.target and (need.count != 1 or not need.target.startswith("/")):
        yield f"{path}.target", "is the absolute path of a single device in the container"


def _fact(path: str, key: str) -> Iterator[Problem]:
    if not patterns.is_fact(key):
        yield path, f"{shown(key)} is not a fact of nodes, such as node.labels.disk"
