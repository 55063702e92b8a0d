"""Can this task run on this node? One function per rule; None means yes.

A rule answers with (needed, had) and nothing more: `words` makes a sentence of them when
somebody asks. Rules only read. Adding one means a function here, a line in `ALL` and a
sentence in `words`.
"""

from __future__ import annotations

from collections.abc import Callable

from homeport import paths, patterns
from homeport.model import NodeId
from homeport.spec import Constraint, ConstraintOperator
from scheduler.cluster.observed import Refusal
from scheduler.placement import granting, groups, requirements, taints
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Candidate, Fleet

Answer = tuple[str, str] | None
Rule = Callable[[Fleet, Ask, Candidate], Answer]

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}
"""What kernels say → what images say."""


def ready(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Its agent is connected and has reported."""
    return None if node.ready else ("", "")


def availability(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """The operator lets it take new tasks."""
    return None if node.active else ("", "")


def condition(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Nothing is wrong with it that would keep a new task from starting."""
    return ("", node.unfit) if node.unfit else None


def this_node(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """A global service's task, or one whose data is on a node, goes there only."""
    return None if ask.only in (None, node.id) else (_name(fleet, ask.only or ""), "")


def bind_source(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """A bind source of the machine that ran apply is on that machine only."""
    wanted = ask.needs.node
    return None if wanted in ("", node.id, node.name) else (_name(fleet, wanted), "")


def fencing(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """An exclusive task would end there when its lease does, and the lease means something."""
    return ("", node.unfenced) if ask.needs_lease and node.unfenced else None


def driver(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Its agent has the runtime."""
    if ask.needs.driver in node.drivers:
        return None
    return (ask.needs.driver.lower(), ", ".join(sorted(each.lower() for each in node.drivers)))


def platform(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """The image's platform is the machine's, where the spec names one."""
    os, architecture = node.facts["node.platform.os"], node.facts["node.platform.arch"]
    wanted = ask.needs
    if (not wanted.os or wanted.os == os.lower()) and (
        not wanted.architecture or _same_architecture(wanted.architecture, architecture)
    ):
        return None
    return (f"{wanted.os or 'any'}/{wanted.architecture or 'any'}", f"{os}/{architecture}")


def oci_runtime(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """The engine has the named OCI runtime."""
    wanted = ask.needs.oci_runtime
    if not wanted or wanted in node.oci_runtimes:
        return None
    return (wanted, ", ".join(sorted(node.oci_runtimes)))


def constraint(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Every constraint of the spec holds."""
    for each in ask.needs.constraints:
        if not holds(each, node.facts):
            return (requirements.shown(each), node.facts.get(each.key, ""))
    return None


def taint(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """No taint keeps tasks away that its spec does not tolerate."""
    found = taints.refusing(node.taints, ask.needs.tolerations)
    return (taints.shown(found), "") if found is not None else None


def path(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """The bind sources that must be there already are there, as far as its agent lists them."""
    for each in ask.needs.paths:
        if missing := paths.missing(each, node.path_patterns, node.paths):
            return (each, missing)
    return None


def excluded(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """This generation did not fail here because of the node."""
    return ("", "") if node.id in ask.excluded else None


def volume(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """The data of its local volumes is here, or nowhere yet."""
    if not ask.fixes_volumes:
        return None
    for each in ask.needs.volumes:
        homes = fleet.homes.get(each)
        if homes and node.id not in homes:
            names = sorted(
                candidate.name if (candidate := fleet.candidates.get(home)) else home
                for home in homes
            )
            return (each[1], ", ".join(names))
    return None


def cpu(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough cpu is not reserved."""
    return _enough(ask.needs.cpu_millis, node.cpu_capacity - node.cpu_reserved)


def memory(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough memory is not reserved."""
    return _enough(ask.needs.memory_bytes, node.memory_capacity - node.memory_reserved)


def pids(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough pids are not reserved; a node that does not say how many it has, has enough."""
    if not node.pids_capacity:
        return None
    return _enough(ask.needs.pids, node.pids_capacity - node.pids_reserved)


def disk(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough disk is not reserved; a node that does not say how much it has, has enough."""
    if not node.disk_capacity:
        return None
    return _enough(ask.needs.disk_bytes, node.disk_capacity - node.disk_reserved)


def generic(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough of each generic resource is not reserved."""
    for kind, count in ask.needs.generic:
        free = node.generic_capacity.get(kind, 0) - node.generic_reserved.get(kind, 0)
        if count > free:
            return (f"{count} {kind}", str(max(free, 0)))
    return None


def ports(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """No published port is taken."""
    for wanted in ask.needs.ports:
        for taken in node.ports:
            if wanted.conflicts(taken):
                return (f"{wanted.published}/{wanted.protocol}", taken.host_ip)
    return None


def tasks_per_node(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Not more tasks of the service than it allows on one node."""
    most = ask.needs.tasks_per_node_max
    here = fleet.nodes_of(ask.service).get(node.id, 0)
    return (str(most), str(here)) if most and here >= most else None


def device(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Devices of the kinds that it takes are there, taken or not."""
    return granting.missing(ask.needs, node)


def device_free(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Enough of the devices that it takes is free."""
    return granting.lacking(ask.needs, node)


def spread(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """No domain gets more tasks than the emptiest by more than a spread rule allows."""
    if not ask.needs.spread_rules:
        return None
    return groups.spread(fleet, ask, node, lambda key: domains(fleet, ask, key))


def neighbour(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """It is near those that it must be near to, and apart from those that it must be apart from."""
    return groups.neighbour(fleet, ask, node)


ALL: dict[str, Rule] = {
    "ready": ready,
    "availability": availability,
    "condition": condition,
    "fencing": fencing,
    "node": this_node,
    "bind-source": bind_source,
    "driver": driver,
    "platform": platform,
    "oci-runtime": oci_runtime,
    "constraint": constraint,
    "taint": taint,
    "path": path,
    "device": device,
    "volume": volume,
    "excluded": excluded,
    "tasks-per-node": tasks_per_node,
    "spread": spread,
    "neighbour": neighbour,
    "ports": ports,
    "memory": memory,
    "cpu": cpu,
    "pids": pids,
    "disk": disk,
    "generic": generic,
    "device-free": device_free,
}
"""Every rule by its name, in the order in which they are asked."""

STATIC = (
    "bind-source",
    "driver",
    "platform",
    "oci-runtime",
    "constraint",
    "taint",
    "path",
    "device",
)
"""Rules about what a node is, not about what is on it: they make a global service eligible."""


def first_refusal(fleet: Fleet, ask: Ask, node: Candidate) -> Refusal | None:
    """The first rule that says no."""
    for name, rule in ALL.items():
        if (answer := rule(fleet, ask, node)) is not None:
            return Refusal(node=node.id, rule=name, needed=answer[0], had=answer[1])
    return None


def refusals(fleet: Fleet, ask: Ask, node: Candidate) -> tuple[Refusal, ...]:
    """All rules that say no."""
    found = [
        Refusal(node=node.id, rule=name, needed=answer[0], had=answer[1])
        for name, rule in ALL.items()
        if (answer := rule(fleet, ask, node)) is not None
    ]
    # What is not there is not free either: once is enough.
    missing = {each.needed for each in found if each.rule == "device"}
    return tuple(each for each in found if each.rule != "device-free" or each.needed not in missing)


def is_eligible(fleet: Fleet, ask: Ask, node: Candidate) -> bool:
    """Whether the node is of the kind that the task needs, however full it is."""
    return all(ALL[name](fleet, ask, node) is None for name in STATIC)


def domains(fleet: Fleet, ask: Ask, key: str) -> frozenset[str]:
    """The values of a label on the nodes that are what the task needs and take new tasks."""
    kind = (ask.needs.text, key)
    found = fleet.domains.get(kind)
    if found is None:
        found = fleet.domains[kind] = frozenset(
            node.facts[key]
            for node in fleet.candidates.values()
            if key in node.facts and node.is_open and is_eligible(fleet, ask, node)
        )
    return found


def holds(constraint: Constraint, facts: dict[str, str]) -> bool:
    """Whether a constraint is true of a node; an absent label equals nothing, not even ""."""
    had = _had(constraint.key, facts)
    value = constraint.value
    match constraint.operator:
        case ConstraintOperator.EQ:
            return _is_one_of(constraint.key, had, (value,))
        case ConstraintOperator.NE:
            return not _is_one_of(constraint.key, had, (value,))
        case ConstraintOperator.IN:
            return _is_one_of(constraint.key, had, constraint.values)
        case ConstraintOperator.NOT_IN:
            return not _is_one_of(constraint.key, had, constraint.values)
        case ConstraintOperator.EXISTS:
            return bool(had)
        case ConstraintOperator.ABSENT:
            return not had
        case ConstraintOperator.LESS:
            return _is_less(had, (value,))
        case ConstraintOperator.GREATER:
            return _is_less((value,), had)
        case ConstraintOperator.MATCHES:
            return any(patterns.matches(value, each) for each in had)
        case ConstraintOperator.NOT_MATCHES:
            return not any(patterns.matches(value, each) for each in had)


def _name(fleet: Fleet, node: str) -> str:
    """A node as people know it; what is no id stays as it is."""
    found = fleet.candidates.get(NodeId(node))
    return found.name if found is not None else node


def _had(key: str, facts: dict[str, str]) -> tuple[str, ...]:
    """What a fact is; a hostname is the node's name, or what the machine calls itself."""
    keys = ("node.hostname", "hostname") if key == "node.hostname" else (key,)
    return tuple(facts[each] for each in keys if each in facts)


def _is_one_of(key: str, had: tuple[str, ...], values: tuple[str, ...]) -> bool:
    if key == "node.platform.arch":
        return any(_same_architecture(each, value) for each in had for value in values)
    return any(each in values for each in had)


def _is_less(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether some of these are less than some of those; what is no number is neither."""
    return any(
        less < more
        for less in map(patterns.number, one)
        for more in map(patterns.number, other)
        if less is not None and more is not None
    )


def _same_architecture(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return ARCHITECTURES.get(one, one) == ARCHITECTURES.get(other, other)


def _enough(needed: int, free: int) -> Answer:
    return (str(needed), str(max(free, 0))) if needed and needed > free else None
