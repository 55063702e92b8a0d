"""Where each kind of stored object lives in the store, and which key a value has.

Names are checked by admission to hold no slash, so keys cannot collide. The only place
that knows the key space.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeport.model import (
    Cluster,
    Leader,
    Node,
    NodeId,
    RequestRecord,
    Rollout,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackDraft,
    StackFile,
    Task,
    TaskId,
    Volume,
)

Stored = (
    Cluster
    | Leader
    | Node
    | RequestRecord
    | Rollout
    | Service
    | ServiceGeneration
    | Stack
    | StackDraft
    | StackFile
    | Task
    | Volume
)
"""Everything that has a record in the store."""

CLUSTER = "cluster"
LEADER = "leader"

PREFIXES: Mapping[str, type[Stored]] = {
    "cluster": Cluster,
    "drafts": StackDraft,
    "files": StackFile,
    "leader": Leader,
    "nodes": Node,
    "requests": RequestRecord,
    "rollouts": Rollout,
    "services": Service,
    "specs": ServiceGeneration,
    "stacks": Stack,
    "tasks": Task,
    "volumes": Volume,
}
"""The first part of a key, and what its records decode to."""


def kind_of(key: str) -> type[Stored] | None:
    """What the record under `key` decodes to; None for a key that is not an object's."""
    return PREFIXES.get(key.partition("/")[0])


def stack(name: str) -> str:
    """Key of a Stack."""
    return f"stacks/{name}"


def service(service_id: ServiceId) -> str:
    """Key of a Service."""
    return f"services/{service_id}"


def spec(service_id: ServiceId, generation: int) -> str:
    """Key of a ServiceGeneration."""
    return f"specs/{service_id}/{generation}"


def task(task_id: TaskId) -> str:
    """Key of a Task."""
    return f"tasks/{task_id}"


def node(node_id: NodeId) -> str:
    """Key of a Node."""
    return f"nodes/{node_id}"


def volume(stack_name: str, name: str, node_id: NodeId) -> str:
    """Key of a Volume; the node is in it, since a global service has one on each."""
    return f"volumes/{stack_name}/{name}/{node_id}"


def file(stack_name: str, digest: str) -> str:
    """Key of a StackFile."""
    return f"files/{stack_name}/{digest}"


def draft(stack_name: str, draft_id: str, part: int) -> str:
    """Key of a StackDraft."""
    return f"drafts/{stack_name}/{draft_id}/{part}"


def rollout(service_id: ServiceId) -> str:
    """Key of a Rollout."""
    return f"rollouts/{service_id}"


def request(request_id: str) -> str:
    """Key of a RequestRecord."""
    return f"requests/{request_id}"


def key_of(value: Stored) -> str:
    """The key under which a value is stored."""
    match value:
        case Task():
            return task(value.id)
        case Service():
            return service(value.id)
        case ServiceGeneration():
            return spec(value.service, value.generation)
        case Stack():
            return stack(value.name)
        case StackDraft():
            return draft(value.stack, value.id, value.part)
        case StackFile():
            return file(value.stack, value.digest)
        case Node():
            return node(value.id)
        case Volume():
            return volume(value.stack, value.name, value.node)
        case Rollout():
            return rollout(value.service)
        case RequestRecord():
            return request(value.request_id)
        case Cluster():
            return CLUSTER
        case Leader():
            return LEADER
