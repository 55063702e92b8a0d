"""Fixes for a node that would do and is full: reserve less, have others leave, reckon with more."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from homeport import devices
from homeport.model import Node, NodeId, Overcommit
from homeport.spec import DeviceNeed, pairs
from scheduler.placement import granting, words
from scheduler.placement.fleet import Candidate, Held
from scheduler.placement.remedy import Fix, Kind, Leave, Occupant, Renode, Respec, Size
from scheduler.placement.requirements import HostPort, Requirements
from scheduler.placement.trial import Trial

MIB = 1 << 20
OCCUPANTS_MAX = 12
"""Tasks that are tried, the least harmful first: of those that would do alone, and of others."""
OVERCOMMIT_MAX = {"cpu": 400, "memory": 150}
"""Hundredths up to which it is worth a thought: memory that is not there ends tasks."""
PORT_TRIES, PORT_MAX = 100, 65_535


def memory(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Less memory reserved, others' memory, or more than there is."""
    needs, free = trial.ask.needs, node.memory_capacity - node.memory_reserved
    least = free // MIB * MIB if free >= MIB else free
    if least > 0:
        text = f"{least // MIB}M" if least >= MIB else str(least)
        less = words.size(needs.memory_bytes - least)
        yield _less(
            trial,
            replace(needs, memory_bytes=least),
            f"reserve at most {words.size(least)} of memory, {less} less"
            f" (deploy.resources.reservations.memory: {text})",
            least * 1000 // needs.memory_bytes,
            "memory",
        )
    lack = needs.memory_bytes - free
    yield from leaving(trial, [node.id], lambda held: held.needs.memory_bytes, lack)
    capacity = trial.record(node.id).inventory.capacity.memory_bytes
    reserved = node.memory_reserved + needs.memory_bytes
    yield from _overcommit(trial, node, "memory", capacity, reserved)


def cpu(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Less cpu reserved, others' cpu, or more than there is."""
    needs, free = trial.ask.needs, node.cpu_capacity - node.cpu_reserved
    if free > 0:
        yield _less(
            trial,
            replace(needs, cpu_millis=free),
            f"reserve at most {words.cores(free)}, {words.cores(needs.cpu_millis - free)} less"
            f" (deploy.resources.reservations.cpus: '{free / 1000:g}')",
            free * 1000 // needs.cpu_millis,
            "cpu",
        )
    lack = needs.cpu_millis - free
    yield from leaving(trial, [node.id], lambda held: held.needs.cpu_millis, lack)
    capacity = trial.record(node.id).inventory.capacity.cpu_millis
    yield from _overcommit(trial, node, "cpu", capacity, node.cpu_reserved + needs.cpu_millis)


def pids(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Fewer pids reserved, or those of others."""
    needs, free = trial.ask.needs, node.pids_capacity - node.pids_reserved
    if free > 0:
        said = f"reserve at most {free} pids, {needs.pids - free} less"
        yield _less(trial, replace(needs, pids=free), said, free * 1000 // needs.pids, "pids")
    yield from leaving(trial, [node.id], lambda held: held.needs.pids, needs.pids - free)


def disk(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Less disk reserved, or that of others."""
    needs, free = trial.ask.needs, node.disk_capacity - node.disk_reserved
    if free > 0:
        less = words.size(needs.disk_bytes - free)
        said = f"reserve at most {words.size(free)} of disk, {less} less"
        left = replace(needs, disk_bytes=free)
        yield _less(trial, left, said, free * 1000 // needs.disk_bytes, "disk")
    lack = needs.disk_bytes - free
    yield from leaving(trial, [node.id], lambda held: held.needs.disk_bytes, lack)


def generic(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Fewer of a generic resource, those of others, or more that the node has and does not say."""
    needs = trial.ask.needs
    kind, count, reserved, free = next(
        (kind, count, reserved, free)
        for kind, count in needs.generic
        if count > (free := _free(node, kind))
        for reserved in [node.generic_reserved.get(kind, 0)]
    )
    if free > 0:
        fewer = tuple((each, free if each == kind else had) for each, had in needs.generic)
        said = f"reserve at most {free} {kind} instead of {count}"
        yield _less(trial, replace(needs, generic=fewer), said, free * 1000 // count, kind)
    lack = count - free
    yield from leaving(trial, [node.id], lambda held: dict(held.needs.generic).get(kind, 0), lack)
    total = str(reserved + count)
    record = trial.record(node.id)
    resources = pairs({**dict(record.generic), kind: total})
    yield Fix(
        kind=Kind.ADD,
        size=Size.MEND,
        sort=f"generic {kind}",
        step=renode(node, replace(record, generic=resources)),
        says=f"give {node.name} {total} {kind} in all, or say so if it has them",
        commands=(update(node, f"--resource {shlex.quote(f'{kind}={total}')}"),),
    )


def ports(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """The task that has the port elsewhere, or another port."""
    needs = trial.ask.needs
    wanted = next(each for each in needs.ports if _is_taken(each, node.ports))
    yield from leaving(trial, [node.id], lambda held: _is_taken(wanted, held.needs.ports))
    last = min(wanted.published + PORT_TRIES, PORT_MAX)
    for published in range(wanted.published + 1, last + 1):
        other = replace(wanted, published=published)
        if not _is_taken(other, (*node.ports, *needs.ports)):
            left = tuple(other if each == wanted else each for each in needs.ports)
            yield Fix(
                kind=Kind.RELAX,
                size=Size.RELAX,
                sort="ports",
                step=Respec(replace(trial.ask, needs=replace(needs, ports=left))),
                says=f"publish port {published} instead of"
                f" {wanted.published}/{wanted.protocol} (ports)",
            )
            return


def device_free(trial: Trial, node: Candidate) -> Iterator[Fix]:
    """Others' devices, or fewer of them, or a smaller share."""
    needs = trial.ask.needs
    for which, need in enumerate(needs.devices):
        fewer = _fewer(need, node)
        if fewer is not None:
            left = tuple(
                fewer if place == which else each for place, each in enumerate(needs.devices)
            )
            part = fewer.count * fewer.share_millis * 1000
            whole = max(need.count, 1) * max(need.share_millis, 1)
            said = f"ask for {granting.shown(fewer)} instead of {granting.shown(need)}"
            yield _less(trial, replace(needs, devices=left), said, part // whole, "device")

    yield from leaving(trial, [node.id], lambda held: _may_share(held.needs, needs, node))


def leaving(
    trial: Trial, nodes: Iterable[NodeId], frees: Callable[[Held], int], lack: int = 1
) -> Iterator[Fix]:
    """Each task on these nodes that may go elsewhere, or be stopped, and frees of what is lacking.

    Of many tasks first those that free all of it, the least harmful first.
    """
    fleet = trial.fleet
    found = [
        (frees(entry) < lack, _harm(trial, occupant), occupant)
        for node in nodes
        for occupant in trial.around.occupants(node)
        if (entry := fleet.held.get(occupant.task)) is not None
        and entry.service != trial.ask.service
        and frees(entry) > 0
    ]
    found.sort(key=lambda each: each[:2])
    enough = sum(not is_short for is_short, _, _ in found)
    for _, _, occupant in (*found[:enough][:OCCUPANTS_MAX], *found[enough:][:OCCUPANTS_MAX]):
        where = fleet.candidates[fleet.held[occupant.task].node].name
        down, up = (
            f"homeport scale {shlex.quote(f'{occupant.service}={count}')}"
            for count in (occupant.replicas - 1, occupant.replicas)
        )
        harm = _harm(trial, occupant)
        if occupant.again is not None:
            yield Fix(
                kind=Kind.MOVE,
                size=Size.MOVE,
                sort="move",
                step=Leave(occupant.task, occupant.again),
                says=f"move {occupant.name} from {where}",
                harm=harm,
                commands=(down,),
                afterwards=(up,),
            )
        yield Fix(
            kind=Kind.STOP,
            size=Size.STOP,
            sort="stop",
            step=Leave(occupant.task),
            says=f"stop {occupant.name} on {where}",
            harm=harm,
            commands=(down,),
        )


def renode(node: Candidate, record: Node) -> Renode:
    """The node with this for its record, and the rest as it is."""
    return Renode(node=record, ready=node.ready, unfit=node.unfit, unfenced=node.unfenced)


def update(node: Candidate, option: str) -> str:
    """The command that changes a node."""
    return f"homeport node update {shlex.quote(node.name)} {option}"


def _harm(trial: Trial, occupant: Occupant) -> tuple[int, ...]:
    """How much is lost without it: the least first."""
    needs = trial.fleet.held[occupant.task].needs
    is_last, stays = occupant.replicas == 1, occupant.again is None
    return (occupant.priority, is_last, stays, needs.memory_bytes, needs.cpu_millis)


def _less(trial: Trial, needs: Requirements, says: str, left_permille: int, sort: str) -> Fix:
    """A smaller reservation: so many thousandths of what it was."""
    is_small = left_permille >= 500
    return Fix(
        kind=Kind.RESERVE_LESS,
        size=Size.RESERVE_LESS if is_small else Size.RESERVE_MUCH_LESS,
        sort=f"less {sort}",
        step=Respec(replace(trial.ask, needs=needs)),
        says=says,
        harm=(1000 - left_permille,),
    )


def _overcommit(
    trial: Trial, node: Candidate, what: str, capacity: int, wanted: int
) -> Iterator[Fix]:
    if not capacity:
        return
    percent = -(-wanted * 100 // capacity)
    if percent > OVERCOMMIT_MAX[what]:
        return
    record = trial.record(node.id)
    old = record.overcommit
    overcommit = (
        Overcommit(cpu_percent=percent, memory_percent=old.memory_percent)
        if what == "cpu"
        else Overcommit(cpu_percent=old.cpu_percent, memory_percent=percent)
    )
    factor = f"{percent / 100:g}"
    yield Fix(
        kind=Kind.CHANGE_NODE,
        size=Size.OVERCOMMIT,
        sort=f"overcommit {what}",
        step=renode(node, replace(record, overcommit=overcommit)),
        says=f"let {factor} times the {what} of {node.name} be reserved",
        harm=(percent,),
        commands=(update(node, f"--overcommit {what}={factor}"),),
    )


def _free(node: Candidate, kind: str) -> int:
    return node.generic_capacity.get(kind, 0) - node.generic_reserved.get(kind, 0)


def _is_taken(port: HostPort, taken: Iterable[HostPort]) -> bool:
    return any(port.conflicts(each) for each in taken)


def _may_share(one: Requirements, other: Requirements, node: Candidate) -> bool:
    """Whether two classes ask for the same devices of a node."""
    return any(
        devices.matches(need, device) and any(devices.matches(each, device) for each in one.devices)
        for need in other.devices
        for device in node.devices
    )


def _fewer(need: DeviceNeed, node: Candidate) -> DeviceNeed | None:
    """As much of a need as the node has free; None: that is nothing, or all."""
    if need.share_millis <= 0 or need.count < 0:
        return None
    free = [
        devices.WHOLE_MILLIS - node.granted.get(each.id, 0)
        for each in node.devices
        if devices.matches(need, each)
    ]
    enough = sum(each >= need.share_millis for each in free)
    if enough >= need.count:
        return None
    if enough:
        return replace(need, count=enough)
    largest = max(free, default=0)
    is_part = need.kind == devices.GPU and need.count == 1 and largest > 0
    return replace(need, share_millis=largest) if is_part else None
