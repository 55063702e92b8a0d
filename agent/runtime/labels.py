"""How a container says whose it is: its name, and the labels that a later agent reads.

Whether something is ours is decided here and nowhere else: it carries our cluster's id,
our node's name (several agents may share one engine) and a task id. A newcomer's mistake:
the name is not only for people. It is the node-local mutex that keeps a task from having
two containers, so it is computed from the task id alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from agent.runtime.base import (
    LABEL_CLUSTER,
    LABEL_FENCE_TOKEN,
    LABEL_GENERATION,
    LABEL_NODE,
    LABEL_PREFIX,
    LABEL_SERVICE,
    LABEL_SPEC_HASH,
    LABEL_STACK,
    LABEL_TASK,
    Work,
)
from homeport.model import TaskId, split_task_id
from homeport.spec import ContainerSpec, Hook, Pairs

LABEL_POST_START = LABEL_PREFIX + "post-start"
LABEL_PRE_STOP = LABEL_PREFIX + "pre-stop"
LABEL_PROBE = LABEL_PREFIX + "probe"
WATCHTOWER = "com.centurylinklabs.watchtower.enable"


def container_name(task: TaskId) -> str:
    """The name of this task's container on its node; an engine allows no `/` in it."""
    service, slot, n = split_task_id(task)
    return f"{service}.{slot}.{n}"


def spec_hash(spec: ContainerSpec) -> str:
    """Tells specs apart; the same for equal specs in every process of this version."""
    return hashlib.sha256(repr(spec).encode()).hexdigest()[:16]


def owner_labels(cluster: str, stack: str) -> dict[str, str]:
    """The labels of what a whole stack shares on a node: networks and volumes."""
    return {LABEL_CLUSTER: cluster, LABEL_STACK: stack}


def container_labels(cluster: str, work: Work, node: str = "") -> dict[str, str]:
    """The labels that we put on a task's container; the user's own come on top unchanged.

    Hooks travel with the container, so that an agent which never saw the spec, because it
    started later, still runs them.
    """
    container = work.generation.spec.container
    labels = {
        **owner_labels(cluster, work.assignment.stack),
        **({LABEL_NODE: node} if node else {}),
        LABEL_TASK: work.task,
        LABEL_SERVICE: work.assignment.service_name,
        LABEL_GENERATION: str(work.assignment.generation),
        LABEL_SPEC_HASH: spec_hash(container),
        LABEL_FENCE_TOKEN: str(work.assignment.fence_token),
    }
    if container.post_start:
        labels[LABEL_POST_START] = dump_hooks(container.post_start)
    if container.pre_stop:
        labels[LABEL_PRE_STOP] = dump_hooks(container.pre_stop)
    return labels


def reserved(labels: Pairs) -> list[str]:
    """The keys among a user's labels that only we may write."""
    return [key for key, _ in labels if key.startswith(LABEL_PREFIX)]


def task_of(labels: Mapping[str, str] | None, cluster: str, node: str = "") -> TaskId | None:
    """The task that these labels name; None for everything that is not of our cluster.

    With `node`, also None for what another agent on the same engine has made for its node.
    The name of the node counts and not its id, which does not survive a lost state directory:
    its containers must still be seen then, to be reported as unknown.
    """
    if not labels or labels.get(LABEL_CLUSTER) != cluster:
        return None
    if node and labels.get(LABEL_NODE, node) != node:
        return None
    task = labels.get(LABEL_TASK, "")
    try:
        split_task_id(TaskId(task))
    except ValueError:
        return None
    return TaskId(task)


def generation_of(labels: Mapping[str, str]) -> int:
    """The generation that these labels name; 0 when somebody broke the label."""
    value = labels.get(LABEL_GENERATION, "")
    return int(value) if value.isdecimal() else 0


def dump_hooks(hooks: tuple[Hook, ...]) -> str:
    """Hooks as text for a label."""
    return json.dumps([asdict(hook) for hook in hooks], separators=(",", ":"))


def load_hooks(text: str) -> tuple[Hook, ...]:
    """The inverse of `dump_hooks`; nothing for an empty text."""
    return tuple(
        Hook(
            command=tuple(item["command"]),
            user=item["user"],
            privileged=item["privileged"],
            working_dir=item["working_dir"],
            env=tuple((key, value) for key, value in item["env"]),
        )
        for item in (json.loads(text) if text else ())
    )
