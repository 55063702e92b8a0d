"""From an operator's word to the changes that make it so: nodes, and a store that was restored.

Whether the word may be taken now is not asked here (`losing` knows that of nodes). A
newcomer's mistake: writing what is so already. Who says the same twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from homeport.model import Availability, Cluster, Node, Overcommit, Rebalancing, Taint, Task
from homeport.spec import Pairs, Strategy, pairs
from scheduler.cluster import keys, numbering
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.observed import Doubt
from scheduler.cluster.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWish:
    """What an operator wants changed of a node; what is None or empty stays as it is."""

    availability: Availability | None = None
    set_labels: Pairs = ()
    remove_labels: Collection[str] = ()
    lost_ms: int = 0  # when it was said to be off
    set_taints: Sequence[Taint] = ()  # each takes the place of one with its key
    remove_taints: Collection[str] = ()  # keys
    cpu_percent: int | None = None
    memory_percent: int | None = None
    set_resources: Pairs = ()  # kind -> count
    remove_resources: Collection[str] = ()


def node(view: View, old: Node, wish: NodeWish) -> list[Change]:
    """Change the operator's wish for a node.

    The first word that a node is off counts; it stays until the node is heard of again.
    """
    gone = {*wish.remove_taints, *(taint.key for taint in wish.set_taints)}
    taints = [*(taint for taint in old.taints if taint.key not in gone), *wish.set_taints]
    new = replace(
        old,
        availability=old.availability if wish.availability is None else wish.availability,
        labels=_changed(old.labels, wish.set_labels, wish.remove_labels),
        lost_ms=old.lost_ms or wish.lost_ms,
        taints=tuple(sorted(taints, key=lambda taint: taint.key)),
        overcommit=Overcommit(
            cpu_percent=_or(wish.cpu_percent, old.overcommit.cpu_percent),
            memory_percent=_or(wish.memory_percent, old.overcommit.memory_percent),
        ),
        generic=_changed(old.generic, wish.set_resources, wish.remove_resources),
    )
    return [] if new == old else [Put(new, view.version(keys.node(old.id)), "the operator's wish")]


def cluster(
    view: View,
    old: Cluster,
    strategy: Strategy | None,
    rebalancing: Rebalancing | None = None,
    moves_per_hour: int | None = None,
) -> list[Change]:
    """Change what holds for the whole cluster; what is None stays as it is."""
    new = replace(
        old,
        strategy=old.strategy if strategy is None else strategy,
        rebalancing=old.rebalancing if rebalancing is None else rebalancing,
        moves_per_hour=_or(moves_per_hour, old.moves_per_hour),
    )
    return [] if new == old else [Put(new, view.version(keys.CLUSTER), "the operator's wish")]


def _changed(old: Pairs, fresh: Pairs, gone: Collection[str]) -> Pairs:
    kept = {key: value for key, value in old if key not in gone}
    return pairs(kept | dict(fresh))


def _or(wish: int | None, old: int) -> int:
    return old if wish is None else wish


def forget(view: View, old: Node) -> tuple[list[Change], list[Change], list[Task]]:
    """Forget a node: (its tasks' and volumes' records, its own record, its tasks).

    The operator's word stands for the agent's report that everything there is gone.
    """
    tasks = view.tasks_of_node(old.id)
    belongings: list[Change] = [
        Delete(keys.task(task.id), view.version(keys.task(task.id)), "its node was removed")
        for task in tasks
    ]
    for volume in view.volumes_of_node(old.id):
        key = keys.key_of(volume)
        belongings.append(Delete(key, view.version(key), "its node was removed"))
    return (
        belongings,
        [Delete(keys.node(old.id), view.version(keys.node(old.id)), "removed")],
        tasks,
    )


def accept_restore(
    view: View, cluster: Cluster, *, doubt: Doubt | None
) -> tuple[tuple[Change, ...], Change]:
    """Begin the next incarnation: what the services need for it, and the cluster's record.

    The numbers of tasks jump: what agents run may have numbers that this store never gave.
    """
    seen = doubt.incarnation if doubt is not None else 0
    fresh = replace(cluster, incarnation=max(cluster.incarnation, seen) + 1)
    services: list[Change] = []
    for service in sorted(view.services(), key=lambda each: each.id):
        highest = max((task.n for task in view.tasks_of_service(service.id)), default=0)
        version = view.version(keys.service(service.id))
        services.append(Put(numbering.skipped(service, highest), version, "a new incarnation"))
    record = Put(fresh, view.version(keys.CLUSTER), "a restored store was accepted")
    return tuple(services), record
