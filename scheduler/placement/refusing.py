"""The first rule that says no, for all nodes at once: `filters.first_refusal` of every row.

Rules are asked in the order of `filters.ALL`, each of the rows that none before has refused. A
rule that looks at one aspect of a node is asked once for each value of that; one that compares
amounts is compared over the columns. Any other rule is asked row by row, where it can say no.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from homeport.model import NodeId
from scheduler.placement import filters, grouping, static, tallies
from scheduler.placement.asks import Ask
from scheduler.placement.candidates import Candidate
from scheduler.placement.columns import BASE, CPU, DISK, MEMORY, PIDS, Codes, Rows
from scheduler.placement.fleet import Fleet
from scheduler.placement.refusals import Refusals, Why

_AMOUNTS: dict[str, tuple[int, Callable[[Ask], int]]] = {
    # rule: the column, and how much of it is needed
    "memory": (MEMORY, lambda ask: ask.needs.memory_bytes),
    "cpu": (CPU, lambda ask: ask.needs.cpu_millis),
    "pids": (PIDS, lambda ask: ask.needs.pids),
    "disk": (DISK, lambda ask: ask.needs.disk_bytes),
}
_CLOSED = frozenset({"ready", "availability", "condition"})
"""Rules of nodes that take nothing new."""
_ASKED_FOR: dict[str, Callable[[Ask], object]] = {
    # rule: what of an ask it is about; without that it has nothing to say
    "fencing": lambda ask: ask.needs_lease,
    "node": lambda ask: ask.only is not None,
    "bind-source": lambda ask: ask.needs.node,
    "platform": lambda ask: ask.needs.os or ask.needs.architecture,
    "oci-runtime": lambda ask: ask.needs.oci_runtime,
    "constraint": lambda ask: ask.needs.constraints,
    "path": lambda ask: ask.needs.paths,
    "device": lambda ask: ask.needs.devices,
    "volume": lambda ask: ask.needs.volumes and ask.fixes_volumes,
    "excluded": lambda ask: ask.excluded,
    "tasks-per-node": lambda ask: ask.needs.tasks_per_node_max,
    "spread": lambda ask: ask.needs.spread_rules,
    "ports": lambda ask: ask.needs.ports,
    "generic": lambda ask: ask.needs.generic,
    "device-free": lambda ask: ask.needs.devices,
}


def refusals(fleet: Fleet, ask: Ask) -> Refusals:
    """Why each node will not do, the lowest name first; nodes that would do are left out."""
    columns = fleet.arrays()
    numbers = np.full(len(columns.rows), -1, dtype=np.int32)
    amounts = np.zeros(len(columns.rows))
    whys: list[Why] = []
    left = np.arange(len(columns.rows))  # rows that nothing has refused yet
    for rule in filters.ALL:
        if not len(left):
            break
        if rule in _AMOUNTS:
            column, amount = _AMOUNTS[rule]
            if not (needed := amount(ask)):
                continue
            free = columns.table[column, left]
            refused = np.where(free < needed, len(whys), -1)
            amounts[left] = np.where(refused < 0, 0, free)
            whys.append((rule, str(needed), None))
        else:
            refused = _refused(fleet, ask, rule, left, whys)
        numbers[left] = refused
        left = left[refused < 0]
    rows = np.flatnonzero(numbers >= 0)
    nodes: list[NodeId] = [columns.rows[row].id for row in rows.tolist()]
    return Refusals(nodes, numbers[rows], whys, amounts[rows])


def _refused(fleet: Fleet, ask: Ask, rule: str, left: Rows, whys: list[Why]) -> Rows:
    """Of each of these rows the number of what refuses it, or -1; what is new joins `whys`."""
    columns = fleet.columns
    result = np.full(len(left), -1)
    if not _is_asked(fleet, ask, rule):
        return result
    codes = _codes(fleet, ask, rule)
    if codes is not None:
        of_code = np.full(len(codes.examples), -1)
        for code in np.unique(codes.of_row[left]).tolist():
            of_code[code] = _ask(fleet, ask, rule, codes.examples[code], whys)
        return of_code[codes.of_row[left]]
    places = np.arange(len(left))
    if rule in _CLOSED:
        places = np.flatnonzero(np.isneginf(columns.table[BASE, left]))
    known: dict[Hashable, int] = {}
    devices = columns.codes(*static.ASPECTS["device"]).of_row if rule == "device-free" else None
    for place in places.tolist():
        row = left.item(place)
        node = columns.rows[row]
        if devices is None:
            result[place] = _ask(fleet, ask, rule, node, whys)
            continue
        # The same devices with the same taken of each: there are few such states.
        state = (devices.item(row), frozenset(node.granted.items()))
        if state not in known:
            known[state] = _ask(fleet, ask, rule, node, whys)
        result[place] = known[state]
    return result


def _ask(fleet: Fleet, ask: Ask, rule: str, node: Candidate, whys: list[Why]) -> int:
    answer = filters.ALL[rule](fleet, ask, node)
    if answer is None:
        return -1
    why = (rule, *answer)
    if not whys or whys[-1] != why:  # neighbours in the order of names are often alike
        whys.append(why)
    return len(whys) - 1


def _is_asked(fleet: Fleet, ask: Ask, rule: str) -> bool:
    if rule == "neighbour":
        return bool(ask.needs.neighbours) or grouping.is_opposed(fleet, ask)
    about = _ASKED_FOR.get(rule)
    return about is None or bool(about(ask))


def _codes(fleet: Fleet, ask: Ask, rule: str) -> Codes | None:
    """The aspect that a rule looks at, where it is one."""
    if rule in static.ASPECTS:
        return fleet.columns.codes(*static.ASPECTS[rule])
    if rule == "constraint":
        keys = [each.key for each in ask.needs.constraints]
    elif rule == "spread":
        keys = [each.key for each in ask.needs.spread_rules]
    elif rule == "neighbour":
        keys = [each.key for each in ask.needs.neighbours]
        for tag in tallies.of_class(ask.needs, ask.name):
            keys += fleet.tallies.opposing(tag)
    else:
        return None
    # A constraint on the hostname looks at what the machine calls itself, too.
    shown = sorted({*keys, "hostname"} if "node.hostname" in keys else {*keys})

    def facts(node: Candidate) -> Hashable:
        return tuple(node.facts.get(key) for key in shown)

    return fleet.columns.codes(f"facts:{shown}", facts)
