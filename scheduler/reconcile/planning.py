"""Say where tasks would go and why, without changing anything.

The same reconcilers and the same placement as in earnest, on a snapshot that may have
proposed changes laid over it (`Snapshot.over`) and on a copy of the fleet. Newcomers
expect a simulation of the whole cluster here; it is one look at the named services.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeport.model import NodeId, ServiceId, TaskId
from scheduler.cluster.observed import Refusal
from scheduler.cluster.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Where one missing or to-be-replaced task would go."""

    service: ServiceId
    slot: int
    node: NodeId | None  # None: it would wait
    reason: str
    replaces: TaskId | None = None
    refusals: tuple[Refusal, ...] = ()  # why not elsewhere, where it would wait


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplanation:
    """What speaks for and against one node."""

    node: NodeId
    name: str
    chosen: bool = False
    refusals: tuple[Refusal, ...] = ()
    scores: tuple[tuple[str, int], ...] = ()  # part -> points; empty where it was refused
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a slot's task is where it is, or why it waits."""

    service: ServiceId
    slot: int
    task: TaskId | None
    reason: str  # a sentence
    nodes: tuple[NodeExplanation, ...] = ()  # best first, refused ones last


def plan(snapshot: Snapshot, services: Sequence[ServiceId]) -> list[Planned]:
    """Where each missing or to-be-replaced task of these services would go, in order."""
    raise NotImplementedError


def explain(snapshot: Snapshot, service: ServiceId, slot: int) -> Explanation:
    """Every node's standing for this slot, as if it were placed now."""
    raise NotImplementedError
