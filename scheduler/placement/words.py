"""Refusals and scores as sentences, made only when somebody asks.

A sentence names what was needed and what there was, so that its reader knows what would
change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scheduler.cluster.observed import Refusal
from scheduler.placement.refusals import Refusals


def sentence(refusal: Refusal, name: str) -> str:
    """Why not on the node of this name."""
    return f"{name} {_clause(refusal)}"


def summary(refusals: Sequence[Refusal]) -> str:
    """Why nowhere, counted over nodes: `no node will do: 2 lack memory, 1 is not ready`."""
    if not refusals:
        return "there is no node that could run it"
    if isinstance(refusals, Refusals):
        counts = refusals.counts  # of as many nodes as there are, for each slot that waits
    else:
        counts = Counter(refusal.rule for refusal in refusals)
    if len(refusals) == 1:
        return f"the only node that could run it {_clause(refusals[0])}"
    said = [
        f"{count} {_PLURAL.get(rule, rule) if count > 1 else _SINGULAR.get(rule, rule)}"
        for rule, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"none of {len(refusals)} nodes will do: {', '.join(said)}"


def size(number: float) -> str:
    """Bytes in words: `212 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GiB"


def cores(millis: int) -> str:
    """Thousandths of a core in words: `0.5 CPUs`."""
    return "1 CPU" if millis == 1000 else f"{millis / 1000:g} CPUs"


def _clause(refusal: Refusal) -> str:
    needed, had = refusal.needed, refusal.had
    match refusal.rule:
        case "ready":
            return "is not ready: its agent is not connected or has not reported yet"
        case "availability":
            return "takes no new tasks: it is paused or drained"
        case "condition":
            return f"takes no new tasks: {had}"
        case "node":
            return f"is not {needed or 'the node'}, where this task belongs"
        case "bind-source":
            return f"is not {needed}, where the files that it binds are"
        case "fencing":
            return f"can run no exclusive task: {had}"
        case "driver":
            return f"cannot run {needed} tasks; its agent has: {had or 'nothing'}"
        case "platform":
            return f"is {had}, and the image is for {needed}"
        case "oci-runtime":
            return f"has no OCI runtime {needed}; its engine has: {had or 'only its default'}"
        case "constraint":
            return f"does not satisfy {needed}; there it is {had or 'not set'}"
        case "taint":
            return f"has the taint {needed}, which this service does not tolerate"
        case "path":
            return f"has no {had}, and the bind of {needed} needs it to be there already"
        case "volume":
            return f"does not have volume {needed}, whose data is on {had}"
        case "excluded":
            return "could not run this generation a short while ago; it is tried again later"
        case "tasks-per-node":
            return f"has {had} tasks of this service already, and it allows {needed}"
        case "ports":
            where = f" on {had}" if had else ""
            return f"has port {needed} taken{where}"
        case "memory":
            free, wanted = _sizes(had, needed)
            return f"has {free} of memory free of reservations, and {wanted} is needed"
        case "cpu":
            free, wanted = cores(int(had or 0)), cores(int(needed or 0))
            return f"has {free} free of reservations, and {wanted} {_be(wanted)} needed"
        case "pids":
            return f"has {had} pids free of reservations, and {needed} are needed"
        case "disk":
            free, wanted = _sizes(had, needed)
            return f"has {free} of disk free of reservations, and {wanted} is needed"
        case "spread":
            return _skewed(needed, had)
        case "neighbour":
            return _neighbour(needed, had)
        case "generic":
            count, _, kind = needed.partition(" ")
            return f"has {had} {kind} free of reservations, and {count} {_be(count)} needed"
        case "device":
            return f"has {had} of {_counted(needed)}"
        case "device-free":
            return f"has {had} of {_counted(needed)} free"
        case other:
            return f"is refused by {other} (needs {needed}, has {had})"


_SINGULAR = {
    "ready": "is not ready",
    "availability": "takes no new tasks",
    "condition": "is not well",
    "node": "is not the task's own",
    "bind-source": "lacks the files that it binds",
    "fencing": "can run no exclusive task",
    "driver": "cannot run its kind of task",
    "platform": "is of another platform",
    "oci-runtime": "lacks the OCI runtime",
    "constraint": "does not satisfy a constraint",
    "taint": "has a taint that it does not tolerate",
    "path": "lacks a path that it binds",
    "volume": "does not have its volume",
    "excluded": "could not run it a short while ago",
    "tasks-per-node": "has as many of its tasks as allowed",
    "ports": "has a port taken",
    "memory": "lacks memory",
    "cpu": "lacks cpu",
    "pids": "lacks pids",
    "disk": "lacks disk",
    "generic": "lacks a generic resource",
    "spread": "would have too many of its tasks",
    "neighbour": "has the wrong neighbours",
    "device": "lacks a device",
    "device-free": "has a device taken",
}
_PLURAL = {
    "ready": "are not ready",
    "availability": "take no new tasks",
    "condition": "are not well",
    "node": "are not the task's own",
    "bind-source": "lack the files that it binds",
    "fencing": "can run no exclusive task",
    "driver": "cannot run its kind of task",
    "platform": "are of another platform",
    "oci-runtime": "lack the OCI runtime",
    "constraint": "do not satisfy a constraint",
    "taint": "have a taint that it does not tolerate",
    "path": "lack a path that it binds",
    "volume": "do not have its volume",
    "excluded": "could not run it a short while ago",
    "tasks-per-node": "have as many of its tasks as allowed",
    "ports": "have a port taken",
    "memory": "lack memory",
    "cpu": "lack cpu",
    "pids": "lack pids",
    "disk": "lack disk",
    "generic": "lack a generic resource",
    "spread": "would have too many of its tasks",
    "neighbour": "have the wrong neighbours",
    "device": "lack a device",
    "device-free": "have a device taken",
}


def _skewed(needed: str, had: str) -> str:
    key, _, most = needed.partition(" ")
    if not had:
        return f"has no {key}, by which its tasks are spread"
    value, here, least = had.rsplit(" ", 2)
    where = "has" if key == "node.id" else f"has {key} {value} with"
    return (
        f"{where} {here} tasks of this service, the emptiest has {least},"
        f" and it allows a difference of {most}"
    )


def _neighbour(needed: str, had: str) -> str:
    word, _, whom = needed.partition(" ")
    key, _, value = had.partition(" ")
    if key == "node.id":  # ids mean nothing to people
        match word:
            case "near":
                return f"has no task of {whom}, and it must be near one"
            case "apart":
                return f"has a task of {whom}, and it must be apart from that"
            case _:
                return f"has a task that must be apart from those of {whom}"
    where = f"{key} {value}" if value else f"no {key}"
    match word:
        case "near":
            return f"has {where}, where no task of {whom} is, and it must be near one"
        case "apart":
            return f"has {where}, where a task of {whom} is, and it must be apart from that"
        case _:
            return f"has {where}, where a task must be apart from those of {whom}"


def _counted(devices: str) -> str:
    """What is needed of devices, with its number where it is one: `1 meter`."""
    first = devices.partition(" ")[0]
    is_counted = first == "all" or first.replace("/", "").isdecimal()
    return devices if is_counted or ", " in devices else f"1 {devices}"


def _sizes(had: str, needed: str) -> tuple[str, str]:
    """Two sizes in words; in bytes, where words would not tell them apart."""
    free, wanted = int(had or 0), int(needed or 0)
    if size(free) == size(wanted):
        return f"{free} B", f"{wanted} B"
    return size(free), size(wanted)


def _be(amount: str) -> str:
    return "is" if amount.partition(" ")[0] == "1" else "are"
