"""What specs may say already and placement does not do yet: a sentence each, for `plan`.

Nothing is silently ignored. Whoever makes placement honour one of these deletes its line, and
whoever deletes the last one deletes this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from homeport.spec import ServiceSpec, StackSpec

RULES: tuple[tuple[str, Callable[[ServiceSpec], bool]], ...] = (
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
