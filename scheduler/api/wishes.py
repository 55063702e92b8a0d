"""From an operator's word to the changes that make it so: nodes, and a store that was restored.

Whether the word may be taken now is not asked here (`losing` knows that of nodes). A
newcomer's mistake: writing what is so already. Who says the same twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from homeport.model import Availability, Cluster, Node, Task
from homeport.spec import Pairs, pairs
from scheduler.cluster import keys, numbering
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.observed import Doubt
from scheduler.cluster.view import View


def node(
    view: View,
    old: Node,
    *,
    availability: Availability | None,
    set_labels: Pairs,
    remove_labels: Sequence[str],
    lost_ms: int = 0,
) -> list[Change]:
    """Change the operator's wish for a node. `lost_ms`: when it was said to be off; 0: it was not.

    The first word that a node is off counts; it stays until the node is heard of again.
    """
    labels = {key: value for key, value in old.labels if key not in remove_labels}
    labels.update(set_labels)
    new = replace(
        old,
        availability=old.availability if availability is None else availability,
        labels=pairs(labels),
        lost_ms=old.lost_ms or lost_ms,
    )
    return [] if new == old else [Put(new, view.version(keys.node(old.id)), "the operator's wish")]


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
