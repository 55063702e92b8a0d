"""The ways to be rid of an objection, by its rule.

Each function answers for one rule and one node with the changes that concern that rule alone;
whether anything else then still objects is for `remedies` to try. A rule without a function here
(the data is elsewhere, the agent lacks the runtime) has no way that could be written down.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace

from homeport.model import Availability, MachineDevice
from homeport.spec import (
    Constraint,
    ConstraintOperator as Op,
    Neighbour,
    SpreadRule,
    Toleration,
    pairs,
)
from scheduler.cluster.observed import Refusal
from scheduler.placement import filters, granting, requirements, roomfixes, taints
from scheduler.placement.fleet import Candidate
from scheduler.placement.remedy import Fix, Kind, Renode, Respec, Size
from scheduler.placement.requirements import Requirements
from scheduler.placement.roomfixes import renode, update
from scheduler.placement.trial import Trial

LABEL = "node.labels."
SOFT_WEIGHT = 50
"""Of a rule that becomes a wish: in the middle."""
DOMAIN_NODES_MAX = 5
"""In a larger domain one task that leaves changes nothing."""

Fixes = Callable[[Trial, Candidate, Refusal], Iterator[Fix]]


def of(trial: Trial, node: Candidate, refusal: Refusal) -> list[Fix]:
    """All of them for the rule that refuses."""
    found = _RULES.get(refusal.rule)
    return list(found(trial, node, refusal)) if found is not None else []


def has_any(rule: str) -> bool:
    """Whether there is a way to be rid of this rule's objections."""
    return rule in _RULES


def _ready(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    yield _mend(
        "ready",
        Renode(node=trial.record(node.id), ready=True, unfit=node.unfit, unfenced=node.unfenced),
        f"bring {node.name} back: its agent is not connected or has not reported yet",
    )


def _condition(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    yield _mend(
        "condition",
        Renode(node=trial.record(node.id), ready=node.ready, unfenced=node.unfenced),
        f"mend what {node.name} says of itself: {node.unfit}",
    )


def _availability(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    record = trial.record(node.id)
    is_drained = record.availability is Availability.DRAIN
    word = "is drained" if is_drained else "is paused"
    yield Fix(
        kind=Kind.CHANGE_NODE,
        size=Size.OPEN_DRAINED if is_drained else Size.OPEN_NODE,
        sort="uncordon",
        step=renode(node, replace(record, availability=Availability.ACTIVE)),
        says=f"let {node.name}, which {word}, take new tasks again",
        commands=(f"homeport uncordon {shlex.quote(node.name)}",),
    )


def _fencing(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    yield Fix(
        kind=Kind.RELAX,
        size=Size.RELAX_IF,
        sort="fencing",
        step=Respec(replace(trial.ask, needs_lease=False)),
        says="let it not be exclusive, if two copies at once do no harm"
        " (x-homeport.exclusive: false)",
    )
    record = trial.record(node.id)
    yield _mend(
        "fencing",
        Renode(
            node=replace(record, inventory=replace(record.inventory, unfenced="")),
            ready=node.ready,
            unfit=node.unfit,
        ),
        f"make {node.name} able to run exclusive tasks: {refusal.had}",
    )


def _platform(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    yield _relax(
        trial,
        replace(trial.ask.needs, os="", architecture=""),
        f"leave `platform: {refusal.needed}` out, if its image exists for {refusal.had} too",
        "platform",
        Size.RELAX_IF,
    )


def _oci_runtime(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    yield _relax(
        trial,
        replace(trial.ask.needs, oci_runtime=""),
        f"leave `runtime: {refusal.needed}` out, if the engine's own runtime will do",
        "oci-runtime",
        Size.RELAX_IF,
    )
    record = trial.record(node.id)
    runtimes = (*record.inventory.oci_runtimes, refusal.needed)
    with_it = replace(record.inventory, oci_runtimes=runtimes)
    yield _mend(
        "oci-runtime",
        renode(node, replace(record, inventory=with_it)),
        f"install the OCI runtime {refusal.needed} in the engine of {node.name}",
    )


def _constraint(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    needs = trial.ask.needs
    broken = next(each for each in needs.constraints if not filters.holds(each, node.facts))
    if broken.key.startswith(LABEL):
        yield from _labels(trial, node, broken)
    left = tuple(each for each in needs.constraints if each != broken)
    yield _relax(
        trial,
        replace(needs, constraints=left),
        f"take the constraint `{requirements.shown(broken)}` out (deploy.placement.constraints)",
        "constraint",
    )


def _labels(trial: Trial, node: Candidate, broken: Constraint) -> Iterator[Fix]:
    """The label that is missing, or the operator's own that is too many."""
    key, record = broken.key.removeprefix(LABEL), trial.record(node.id)
    wanted = {
        Op.EQ: broken.value,
        Op.IN: broken.values[0] if broken.values else "",
        Op.EXISTS: "yes",
    }
    if broken.operator in wanted and broken.key not in node.facts:
        value = wanted[broken.operator]
        more = pairs({**dict(record.labels), key: value})
        yield Fix(
            kind=Kind.CHANGE_NODE,
            size=Size.OPEN_NODE,
            sort="label",
            step=renode(node, replace(record, labels=more)),
            says=f"give {node.name} the label {key}={value}, if that is true of it",
            commands=(update(node, f"--label {shlex.quote(f'{key}={value}')}"),),
        )
    elif key in dict(record.labels):
        left = pairs({each: value for each, value in record.labels if each != key})
        yield Fix(
            kind=Kind.CHANGE_NODE,
            size=Size.OPEN_NODE,
            sort="label-rm",
            step=renode(node, replace(record, labels=left)),
            says=f"take the label {key}={node.facts[broken.key]} off {node.name}",
            commands=(update(node, f"--label-rm {shlex.quote(key)}"),),
        )


def _taint(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    needs = trial.ask.needs
    found = taints.refusing(node.taints, needs.tolerations)
    assert found is not None, "the rule has just refused"
    record = trial.record(node.id)
    left = tuple(each for each in record.taints if each.key != found.key)
    yield Fix(
        kind=Kind.CHANGE_NODE,
        size=Size.OPEN_NODE,
        sort="taint",
        step=renode(node, replace(record, taints=left)),
        says=f"take the taint {taints.shown(found)} off {node.name}",
        commands=(update(node, f"--taint-rm {shlex.quote(found.key)}"),),
    )
    text = f"{found.key}={found.value}" if found.value else found.key
    toleration = Toleration(key=found.key, value=found.value or None)
    yield _relax(
        trial,
        replace(needs, tolerations=(*needs.tolerations, toleration)),
        f"let it tolerate the taint {text} (x-homeport.tolerations)",
        "tolerate",
    )


def _path(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    names = refusal.needed.split("/")
    parts = ("/".join(names[: depth + 1]) for depth in range(1, len(names)))
    record = trial.record(node.id)
    there = tuple(sorted({*record.inventory.paths, *parts}))
    yield _mend(
        "path",
        renode(node, replace(record, inventory=replace(record.inventory, paths=there))),
        f"have {refusal.needed} on {node.name}: {refusal.had} is not there",
    )


def _device(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    record = trial.record(node.id)
    need = next(each for each in trial.ask.needs.devices if granting.shown(each) == refusal.needed)
    lacking = max(need.count, 1) - int(refusal.had)
    more = tuple(
        MachineDevice(
            id=f"added-{which}-{refusal.needed}",
            kind=need.kind,
            names=(need.name,) if need.name else (),
            vendor=need.vendor,
            model=need.models[0] if need.models else "",
        )
        for which in range(lacking)
    )
    with_them = replace(record.inventory, devices=(*record.inventory.devices, *more))
    yield _mend(
        "device",
        renode(node, replace(record, inventory=with_them)),
        f"have {refusal.needed} on {node.name}: it has {refusal.had}",
    )


def _tasks_per_node(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    most = int(refusal.had) + 1
    yield _relax(
        trial,
        replace(trial.ask.needs, tasks_per_node_max=most),
        f"allow {most} tasks of it on a node (deploy.placement.max_replicas_per_node: {most})",
        "tasks-per-node",
    )


def _spread(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    needs, (key, _, _) = trial.ask.needs, refusal.needed.partition(" ")
    broken = next(each for each in needs.spread_rules if each.key == key and not each.weight)
    if refusal.had:
        _, here, least = refusal.had.rsplit(" ", 2)
        most = int(here) + 1 - int(least)
        yield _relax(
            trial,
            _with_spread(needs, broken, replace(broken, max_skew=most)),
            f"allow a difference of {most} tasks over {key} (x-homeport.spread max_skew: {most})",
            "spread",
        )
    else:
        yield _relax(
            trial,
            _with_spread(needs, broken, replace(broken, weight=SOFT_WEIGHT)),
            f"let the spread over {key} be a wish (x-homeport.spread weight: {SOFT_WEIGHT})",
            "spread",
        )


def _neighbour(trial: Trial, node: Candidate, refusal: Refusal) -> Iterator[Fix]:
    needs = trial.ask.needs
    word, _, whom = refusal.needed.partition(" ")
    key = refusal.had.partition(" ")[0]
    if word != "near":
        value = node.facts.get(key)
        domain = [each.id for each in trial.fleet.by_name() if each.facts.get(key) == value]
        if len(domain) <= DOMAIN_NODES_MAX:
            yield from roomfixes.leaving(trial, domain, lambda _: True)
    broken = next(
        (
            each
            for each in needs.neighbours
            if not each.weight
            and each.apart is (word == "apart")
            and (each.service or each.label) == whom
            and each.key == key
        ),
        None,
    )
    if word != "opposed" and broken is not None:
        yield _relax(
            trial,
            _with_neighbour(needs, broken, replace(broken, weight=SOFT_WEIGHT)),
            f"let `{word} {whom}` be a wish (x-homeport.{word} weight: {SOFT_WEIGHT})",
            f"neighbour {word}",
        )


def _with_spread(needs: Requirements, old: SpreadRule, new: SpreadRule) -> Requirements:
    rules = tuple(new if each == old else each for each in needs.spread_rules)
    return replace(needs, spread_rules=rules)


def _with_neighbour(needs: Requirements, old: Neighbour, new: Neighbour) -> Requirements:
    rules = tuple(new if each == old else each for each in needs.neighbours)
    return replace(needs, neighbours=rules)


def _relax(trial: Trial, needs: Requirements, says: str, sort: str, size: Size = Size.RELAX) -> Fix:
    step = Respec(replace(trial.ask, needs=needs))
    return Fix(kind=Kind.RELAX, size=size, sort=sort, step=step, says=says)


def _mend(sort: str, step: Renode, says: str) -> Fix:
    return Fix(kind=Kind.ADD, size=Size.MEND, sort=f"mend {sort}", step=step, says=says)


def _room(fixes: Callable[[Trial, Candidate], Iterator[Fix]]) -> Fixes:
    return lambda trial, node, _: fixes(trial, node)


_RULES: dict[str, Fixes] = {
    "ready": _ready,
    "availability": _availability,
    "condition": _condition,
    "fencing": _fencing,
    "platform": _platform,
    "oci-runtime": _oci_runtime,
    "constraint": _constraint,
    "taint": _taint,
    "path": _path,
    "device": _device,
    "tasks-per-node": _tasks_per_node,
    "spread": _spread,
    "neighbour": _neighbour,
    "ports": _room(roomfixes.ports),
    "memory": _room(roomfixes.memory),
    "cpu": _room(roomfixes.cpu),
    "pids": _room(roomfixes.pids),
    "disk": _room(roomfixes.disk),
    "generic": _room(roomfixes.generic),
    "device-free": _room(roomfixes.device_free),
}
