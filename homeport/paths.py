"""What a list of paths says, when it lists all that there is of some patterns and nothing else.

An agent cannot tell the scheduler every path of its machine. It lists those of certain patterns,
and names the patterns; of a path that fits none of them nothing is known, and *unknown is not
absent*. In patterns `*`, `?` and `[…]` stand for parts of one name, never for a slash.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase


def covers(patterns: Iterable[str], path: str) -> bool:
    """Whether a list of these patterns would have this path, were it there."""
    return any(fits(pattern, path) for pattern in patterns)


@functools.lru_cache(maxsize=16_384)
def fits(pattern: str, path: str) -> bool:
    """Whether a path is of a pattern."""
    wanted, had = pattern.split("/"), path.split("/")
    return len(wanted) == len(had) and all(map(fnmatchcase, had, wanted))


def missing(path: str, patterns: Collection[str], listed: Collection[str]) -> str:
    """The first part of a path that is certainly not there; empty when it may be.

    `/mnt/nas/films` is not there when `/mnt/*` are listed and `/mnt/nas` is not among them.
    """
    names = [name for name in path.split("/") if name]
    for depth in range(1, len(names) + 1):
        part = "/" + "/".join(names[:depth])
        if part not in listed and covers(patterns, part):
            return part
    return ""
