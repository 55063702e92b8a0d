"""The node that is missing: one that has what a task needs and nothing else on it."""

from __future__ import annotations

from collections.abc import Iterator

from homeport import patterns
from homeport.model import Inventory, MachineDevice, Node, NodeId
from homeport.spec import Constraint, ConstraintOperator as Op, Resources, pairs
from scheduler.placement import granting, tallies, words
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.placement.remedy import Fix, Kind, Renode, Size
from scheduler.placement.requirements import Requirements

ID = NodeId("a-node-that-is-not-there")
LABEL = "node.labels."
MILLION = 1_000_000
ARCHITECTURE, OS = "x86_64", "linux"
"""Of the imagined node, where the task does not mind."""


def of(fleet: Fleet, ask: Ask) -> Fix | None:
    """To add a node; None where none could take it, as its data or its place is elsewhere.

    What cannot be told of a node in advance (a constraint by pattern) is not tried to be met:
    the trial then refuses.
    """
    needs = ask.needs
    if ask.only is not None:
        return None
    facts = {each.key: _value(each) for each in needs.constraints if _value(each)}
    for rule in needs.spread_rules:
        if not rule.weight:
            facts.setdefault(rule.key, "new")
    for near in needs.neighbours:
        counts = fleet.tally(tallies.of_neighbour(near), near.key)
        if not near.weight and not near.apart and counts:
            facts.setdefault(near.key, min(counts))
    labels = {
        key.removeprefix(LABEL): value for key, value in facts.items() if key.startswith(LABEL)
    }
    node = Node(
        id=ID,
        name=facts.get("node.hostname") or needs.node or "new",
        number=0,
        role=facts.get("node.role", "worker"),
        labels=pairs(labels),
        inventory=_inventory(needs, facts),
    )
    return Fix(
        kind=Kind.ADD,
        size=Size.ADD_NODE,
        sort="node",
        step=Renode(node=node, ready=True),
        says=f"add a node with {_listed([*_offers(needs, labels), *_called(facts, needs)])}",
    )


def _inventory(needs: Requirements, facts: dict[str, str]) -> Inventory:
    engine = {key.removeprefix("engine.labels."): value for key, value in facts.items()}
    return Inventory(
        os=needs.os or facts.get("node.platform.os", OS),
        architecture=needs.architecture or facts.get("node.platform.arch", ARCHITECTURE),
        capacity=Resources(
            cpu_millis=needs.cpu_millis,
            memory_bytes=needs.memory_bytes,
            generic=pairs({kind: str(count) for kind, count in needs.generic}),
        ),
        drivers=(needs.driver,),
        oci_runtimes=(needs.oci_runtime,) if needs.oci_runtime else (),
        engine_labels=pairs(
            {key: engine[key] for key in engine if f"engine.labels.{key}" in facts}
        ),
        devices=tuple(
            MachineDevice(
                id=f"{which}-{number}",
                kind=need.kind,
                names=(need.name,) if need.name else (),
                vendor=need.vendor,
                model=need.models[0] if need.models else "",
            )
            for which, need in enumerate(needs.devices)
            for number in range(max(need.count, 1))
        ),
    )


def _value(constraint: Constraint) -> str:
    """A value of the fact for which the constraint holds; empty: none needed, or none known."""
    match constraint.operator:
        case Op.EQ:
            return constraint.value
        case Op.IN:
            return constraint.values[0] if constraint.values else ""
        case Op.EXISTS:
            return "yes"
        case Op.LESS | Op.GREATER:
            known = patterns.number(constraint.value)  # in millionths
            more = -MILLION if constraint.operator is Op.LESS else MILLION
            if known is None:
                return ""
            return f"{(known + more) / MILLION:f}".rstrip("0").rstrip(".")
        case _:
            return ""


def _offers(needs: Requirements, labels: dict[str, str]) -> Iterator[str]:
    """What it must have, one by one."""
    if needs.os or needs.architecture:
        yield f"the platform {needs.os or 'any'}/{needs.architecture or 'any'}"
    yield (
        "a container engine" if needs.driver == "DOCKER" else f"the {needs.driver.lower()} runtime"
    )
    if needs.oci_runtime:
        yield f"the OCI runtime {needs.oci_runtime}"
    if needs.cpu_millis:
        yield words.cores(needs.cpu_millis)
    if needs.memory_bytes:
        yield f"{words.size(needs.memory_bytes)} of memory"
    if needs.pids:
        yield f"{needs.pids} pids"
    if needs.disk_bytes:
        yield f"{words.size(needs.disk_bytes)} of disk"
    for kind, count in needs.generic:
        yield f"{count} {kind}"
    for need in needs.devices:
        yield granting.shown(need)
    for key, value in sorted(labels.items()):
        yield f"the label {key}={value}"
    yield from needs.paths


def _called(facts: dict[str, str], needs: Requirements) -> Iterator[str]:
    if name := facts.get("node.hostname") or needs.node:
        yield f"the name {name}"


def _listed(offers: list[str]) -> str:
    return f"{', '.join(offers[:-1])} and {offers[-1]}" if len(offers) > 1 else offers[0]
