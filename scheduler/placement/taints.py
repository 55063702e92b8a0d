"""Which taints of a node count for a class: those that it does not tolerate."""

from __future__ import annotations

from collections.abc import Iterable

from homeport.model import Taint
from homeport.spec import TaintEffect, Toleration

HARD = frozenset({TaintEffect.REFUSE, TaintEffect.EVICT})


def refusing(taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> Taint | None:
    """The first taint that keeps new tasks away."""
    return _first(taints, tolerations, HARD)


def evicting(taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> Taint | None:
    """The first taint that also sends away the tasks that are there."""
    return _first(taints, tolerations, frozenset({TaintEffect.EVICT}))


def avoided(taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> int:
    """How many taints make the node one that only does when no other will."""
    return sum(
        taint.effect is TaintEffect.AVOID and not _is_tolerated(taint, tolerations)
        for taint in taints
    )


def shown(taint: Taint) -> str:
    """A taint as it is written."""
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect.name.lower()}"


def _first(
    taints: Iterable[Taint], tolerations: tuple[Toleration, ...], effects: frozenset[TaintEffect]
) -> Taint | None:
    for taint in taints:
        if taint.effect in effects and not _is_tolerated(taint, tolerations):
            return taint
    return None


def _is_tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(
        each.key in ("", taint.key)
        and each.value in (None, taint.value)
        and each.effect in (None, taint.effect)
        for each in tolerations
    )
