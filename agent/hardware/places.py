"""Paths of the machine's file tree that binds may need: mounted disks and shares above all."""

from __future__ import annotations

from collections.abc import Iterable

from agent.hardware.tree import Tree

PATH_PATTERNS = ("/*", "/mnt/*", "/media/*", "/media/*/*", "/srv/*", "/opt/*")
ENTRIES_MAX = 200
"""Of one pattern; one that fits more is left out, and nothing is known of its paths."""


def places(tree: Tree, more: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(patterns, all paths of them), both sorted; `more`: the operator's patterns."""
    patterns, found = set(), set()
    for pattern in (*PATH_PATTERNS, *more):
        listed = tree.listed(pattern)
        if len(listed) <= ENTRIES_MAX:
            patterns.add(pattern)
            found.update(listed)
    return tuple(sorted(patterns)), tuple(sorted(found))
