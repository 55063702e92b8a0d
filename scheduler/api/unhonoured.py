"""What specs may say already and placement does not do yet: a sentence each, for `plan`.

Nothing is silently ignored. Whoever makes placement honour one of these deletes its line, and
whoever deletes the last one deletes this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from homeport import devices
from homeport.spec import ConstraintOperator, MountKind, ServiceSpec, StackSpec

_OLD_OPERATORS = (ConstraintOperator.EQ, ConstraintOperator.NE)

RULES: tuple[tuple[str, Callable[[ServiceSpec], bool]], ...] = (
    (
        "constraints with in, exists, <, >, =~ and their opposites",
        lambda spec: any(
            each.operator not in _OLD_OPERATORS for each in spec.placement.constraints
        ),
    ),
    ("preferences (prefer)", lambda spec: bool(spec.placement.preferences)),
    ("spread rules", lambda spec: bool(spec.placement.spread_rules)),
    ("near and apart", lambda spec: bool(spec.placement.neighbours)),
    ("tolerations", lambda spec: bool(spec.placement.tolerations)),
    ("the placement strategy", lambda spec: spec.placement.strategy is not None),
    ("devices and GPUs", lambda spec: bool(devices.needs(spec))),
    ("generic resources", lambda spec: bool(spec.reservations.generic)),
    (
        "binds that need an existing path (create_host_path: false)",
        lambda spec: any(
            mount.kind is MountKind.BIND and not mount.bind_create_host_path
            for mount in spec.container.mounts
        ),
    ),
    (
        "preemption",
        lambda spec: spec.preempts or spec.preemptible is not None or bool(spec.min_replicas),
    ),
)
"""What is said, and whether a service says it."""


def notices(stack: StackSpec) -> Iterator[str]:
    """One sentence for each service that says something of the kind."""
    for spec in stack.services:
        if said := [words for words, is_said in RULES if is_said(spec)]:
            yield f"{spec.name}: nodes are not chosen yet by {', '.join(said)}"
