"""Which nodes are what a class needs, all at once: the rules that no task changes.

Each rule looks at one aspect of a node. It is asked once for each different value of that
aspect, by the very function that `filters` asks for a node, and the answer goes to every row
that has the value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from homeport.spec import Constraint
from scheduler.placement import filters, points, taints
from scheduler.placement.asks import Ask
from scheduler.placement.candidates import Candidate
from scheduler.placement.cells import fact
from scheduler.placement.columns import BASE, Floats, Mask
from scheduler.placement.fleet import Fleet

Aspect = Callable[[Candidate], Hashable]


def mask(fleet: Fleet, ask: Ask) -> Mask:
    """True for each row whose node would do, were it empty and open."""
    result = _eligible(fleet, ask)
    if ask.needs_lease:
        result &= _by_rule(fleet, ask, "fencing")
    for node in ask.excluded:
        if (candidate := fleet.candidates.get(node)) is not None:
            result[candidate.row] = False
    return result


def domains(fleet: Fleet, ask: Ask, key: str) -> frozenset[str]:
    """`filters.domains`, which finds the answer here when it is asked next."""
    kind = (ask.needs.text, key)
    found = fleet.domains.get(kind)
    if found is None:
        takes = _eligible(fleet, ask) & (fleet.columns.table[BASE] > -np.inf)
        codes = fact(fleet.columns, key)
        values = (codes.values[code] for code in np.unique(codes.of_row[takes]))
        found = fleet.domains[kind] = frozenset(str(each) for each in values if each is not None)
    return found


def _eligible(fleet: Fleet, ask: Ask) -> Mask:
    """`filters.is_eligible` of each row."""
    needs = ask.needs
    result = _by_rule(fleet, ask, "driver")
    if needs.os or needs.architecture:
        result &= _by_rule(fleet, ask, "platform")
    if needs.oci_runtime:
        result &= _by_rule(fleet, ask, "oci-runtime")
    for each in needs.constraints:
        result &= _constraint(fleet, each)
    result &= _by_rule(fleet, ask, "taint")
    if needs.paths:
        result &= _by_rule(fleet, ask, "path")
    if needs.devices:
        result &= _by_rule(fleet, ask, "device")
    if needs.node:
        rows = fleet.columns.rows
        result &= np.array(
            [filters.bind_source(fleet, ask, node) is None for node in rows], dtype=bool
        )
    return result


def wishes(fleet: Fleet, ask: Ask) -> Floats:
    """The points of each row by what its node is."""
    result = np.zeros(len(fleet.columns.rows))
    for each in ask.needs.preferences:
        result += _constraint(fleet, each.constraint) * float(each.weight * points.WISH)
    codes = fleet.columns.codes("taints", _taints)
    avoided = [taints.avoided(each.taints, ask.needs.tolerations) for each in codes.examples]
    if any(avoided):
        points_of = np.array(avoided, dtype=np.float64) * -(points.AVOID * points.WISH)
        result += points_of[codes.of_row]
    return result


def _constraint(fleet: Fleet, constraint: Constraint) -> Mask:
    key = constraint.key

    def facts(node: Candidate) -> Hashable:
        # A hostname is the node's name or what the machine calls itself.
        return (node.facts.get(key), node.facts["hostname"] if key == "node.hostname" else "")

    return _by(
        fleet, f"constraint:{key}", facts, lambda node: filters.holds(constraint, node.facts)
    )


def _by_rule(fleet: Fleet, ask: Ask, name: str) -> Mask:
    """Where a rule that looks at one aspect has nothing against the task."""
    rule = filters.ALL[name]
    return _by(fleet, *ASPECTS[name], lambda node: rule(fleet, ask, node) is None)


def _by(fleet: Fleet, name: str, aspect: Aspect, holds: Callable[[Candidate], bool]) -> Mask:
    codes = fleet.columns.codes(name, aspect)
    answers = np.array([holds(example) for example in codes.examples], dtype=bool)
    result: Mask = answers[codes.of_row]
    return result


def _drivers(node: Candidate) -> Hashable:
    return node.drivers


def _platform(node: Candidate) -> Hashable:
    return (node.facts["node.platform.os"], node.facts["node.platform.arch"])


def _runtimes(node: Candidate) -> Hashable:
    return node.oci_runtimes


def _unfenced(node: Candidate) -> Hashable:
    return node.unfenced


def _taints(node: Candidate) -> Hashable:
    return node.taints


def _paths(node: Candidate) -> Hashable:
    return (node.path_patterns, node.paths)


def _devices(node: Candidate) -> Hashable:
    return (node.device_patterns, node.devices)


ASPECTS: dict[str, tuple[str, Aspect]] = {
    "driver": ("drivers", _drivers),
    "platform": ("platform", _platform),
    "oci-runtime": ("runtimes", _runtimes),
    "taint": ("taints", _taints),
    "path": ("paths", _paths),
    "device": ("devices", _devices),
    "fencing": ("unfenced", _unfenced),
}
"""Of each rule that looks at one aspect of a node: that, under its name in the columns."""
