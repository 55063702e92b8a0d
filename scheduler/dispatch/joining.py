"""Whether a machine becomes a node, and under which identity.

An identity is minted once and kept by the machine; a hostname is only a name. A retried
request gets the answer that was given before. A newcomer's mistake: letting a machine
with a known name in as that node. It may be another machine, so it is refused with the
words that resolve it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from homeport import codec
from homeport.model import Cluster, Inventory, MachineDevice, Node, NodeId, RequestRecord
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.cluster.view import View

METHOD = "Join"
NAME_MAX = 63
LABELS_MAX = 256
TEXT_MAX = 512
DEVICES_MAX = 256
NAMES_MAX = 32
PATTERNS_MAX = 128
PATHS_MAX = 2_000

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a machine that wants to be a node says."""

    name: str
    inventory: Inventory
    node_id: NodeId
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The machine is this node; `changes` (none for a known one) make it so."""

    node: Node
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """The machine does not become a node; why, as a sentence for its operator."""

    reason: str


def decide(
    view: View, cluster: Cluster, wish: Wish, *, minted: str, now_ms: int
) -> Admitted | Turned:
    """Answer a machine. `minted` is a fresh random text for a new node's id."""
    if wish.node_id:
        known = view.node(wish.node_id)
        if known is not None:
            return Admitted(node=known)
        return Turned(
            reason=f"node {wish.node_id} is not known to cluster {cluster.id}: it was removed, or"
            " it belongs to another cluster; empty the agent's state directory to join anew"
        )
    if wish.request_id and (record := view.request(wish.request_id)) is not None:
        node = view.node(NodeId(record.response.decode())) if record.method == METHOD else None
        if node is not None:
            return Admitted(node=node)
        return Turned(
            reason=f"request {wish.request_id} was used before, for something else or for a node"
            " that is gone; empty the agent's state directory to join as a new node"
        )
    name = as_name(wish.name)
    if not name:
        return Turned(
            reason=f"{wish.name!r} cannot be a node's name: give one of letters, digits and -"
            " (--name)"
        )
    holder = view.node_named(name)
    if holder is not None:
        return Turned(
            reason=f"the name {name} belongs to node {holder.id}: start this agent with another"
            f" name (--name), or forget that node first: homeport node rm {name}"
        )
    number = cluster.nodes_made + 1
    node = Node(
        id=NodeId(f"n{number}-{minted}"),
        name=name,
        number=number,
        inventory=sane(wish.inventory),
        created_ms=now_ms,
    )
    changes: list[Change] = [
        Put(replace(cluster, nodes_made=number), view.version(keys.CLUSTER), "a node joins"),
        Put(node, ABSENT, f"{name} joins"),
    ]
    if wish.request_id:
        record = RequestRecord(
            request_id=wish.request_id,
            method=METHOD,
            digest="",
            response=node.id.encode(),
            created_ms=now_ms,
        )
        changes.append(Put(record, ABSENT, "a retry gets the same answer"))
    return Admitted(node=node, changes=tuple(changes))


def as_name(wanted: str) -> str:
    """The node name nearest to a hostname; empty when nothing of it can be used."""
    short = _NOT_IN_NAMES.sub("-", wanted.strip().lower().partition(".")[0])
    return short[:NAME_MAX].strip("-_")


def sane(inventory: Inventory) -> Inventory:
    """An inventory whose amounts and texts cannot harm others, whatever an agent says."""
    capacity = inventory.capacity
    return replace(
        inventory,
        hostname=inventory.hostname[:TEXT_MAX],
        kernel=inventory.kernel[:TEXT_MAX],
        engine=inventory.engine[:TEXT_MAX],
        metrics_address=inventory.metrics_address[:TEXT_MAX],
        capacity=replace(
            capacity,
            cpu_millis=_clamped(capacity.cpu_millis, 10_000_000),
            memory_bytes=_clamped(capacity.memory_bytes, 1 << 50),
            pids=_clamped(capacity.pids, 1 << 32),
            disk_bytes=_clamped(capacity.disk_bytes, 1 << 60),
            generic=capacity.generic[:LABELS_MAX],
        ),
        labels=tuple((key[:TEXT_MAX], value[:TEXT_MAX]) for key, value in inventory.labels)[
            :LABELS_MAX
        ],
        engine_labels=inventory.engine_labels[:LABELS_MAX],
        addresses=inventory.addresses[:64],
        drivers=inventory.drivers[:16],
        oci_runtimes=inventory.oci_runtimes[:64],
        devices=tuple(_sane_device(each) for each in inventory.devices[:DEVICES_MAX]),
        # Of what is cut off nothing is known, rather than that it is not there.
        device_patterns=_short(inventory.device_patterns[:PATTERNS_MAX])
        if len(inventory.devices) <= DEVICES_MAX
        else (),
        paths=_short(inventory.paths[:PATHS_MAX]),
        path_patterns=_short(inventory.path_patterns[:PATTERNS_MAX])
        if len(inventory.paths) <= PATHS_MAX
        else (),
    )


def _sane_device(device: MachineDevice) -> MachineDevice:
    return MachineDevice(
        id=device.id[:TEXT_MAX],
        kind=device.kind[:TEXT_MAX],
        names=_short(device.names[:NAMES_MAX]),
        vendor=device.vendor[:TEXT_MAX],
        model=device.model[:TEXT_MAX],
        memory_bytes=_clamped(device.memory_bytes, 1 << 50),
    )


def _short(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:TEXT_MAX] for text in texts)


def inventory_change(view: View, node_id: NodeId, inventory: Inventory) -> Put | None:
    """The write that keeps what a node has up to date; None when nothing differs."""
    node = view.node(node_id)
    fresh = sane(inventory)
    if node is None or codec.encode(node.inventory) == codec.encode(fresh):
        return None
    return Put(
        replace(node, inventory=fresh), view.version(keys.node(node_id)), "the machine has changed"
    )


def found_change(view: View, node_id: NodeId) -> Put | None:
    """The write that takes back the operator's word that a node is off; None: nobody said so."""
    node = view.node(node_id)
    if node is None or not node.lost_ms:
        return None
    return Put(replace(node, lost_ms=0), view.version(keys.node(node_id)), "it has come back")


def _clamped(amount: int, most: int) -> int:
    return max(0, min(amount, most))
