"""What the shell saw of the machine that runs `apply`, and what deciders still want to see.

Deciders cannot read files, and do not know which ones they need before they have read some. So
they ask a `Sources`: what is not known yet is noted and answered with None, the decider goes on
without it, and the shell looks at what was asked for and runs the decider again. All paths here
are absolute and normalised.
"""

from __future__ import annotations

import enum
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field


class Look(enum.Enum):
    """How closely to look at a path."""

    STAT = 1  # what is it?
    CONTENT = 2  # and what does it say? (a file, up to 1 MiB)
    TREE = 3  # a file or a directory with all below, up to TREE_BYTES_MAX in TREE_FILES_MAX files


class Kind(enum.Enum):
    """What stands at a path; links are followed."""

    ABSENT = 1
    FILE = 2
    DIRECTORY = 3
    OTHER = 4  # device, socket, pipe
    UNREADABLE = 5


TREE_BYTES_MAX = 1 << 20
TREE_FILES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a tree."""

    path: str  # relative to the tree's root; empty: the root itself is a file
    data: bytes
    mode: int = 0o444  # permission bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the shell saw at one path."""

    kind: Kind
    data: bytes | None = None  # CONTENT of a file that is not too large
    why_not: str = ""  # a sentence: why data or parts are not there although asked for
    parts: tuple[Part, ...] = ()  # TREE


Asked = tuple[Look, str]


@dataclass(slots=True)
class Sources:
    """What is known, and what was asked for and is not known yet."""

    seen: Mapping[Asked, Seen]
    wanted: set[Asked] = field(default_factory=set)

    def look(self, look: Look, path: str) -> Seen | None:
        """What stands at a path; None when the shell has yet to look."""
        known = self.seen.get((look, path))
        if known is None:
            self.wanted.add((look, path))
        return known


def resolve(path: str, base: str, home: str = "") -> str:
    """The absolute path of one that a Compose file gives; `~` is the user's home."""
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    return posixpath.normpath(posixpath.join(base, path))


def is_absolute(path: str) -> bool:
    """True for a path that means the same on every machine."""
    return path.startswith("/")
