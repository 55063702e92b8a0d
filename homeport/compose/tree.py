"""A Compose file as a tree whose every node knows where it stands and what its paths start from.

Nodes are frozen and shared: an alias in the file is the same node twice, so a tree is really a
graph without cycles, and changing one (interpolation, merging) makes new nodes. A relative
path in a scalar starts from the scalar's `base`, which stays with it through `extends`,
`include` and merges; that is why no step of the package rewrites paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from homeport.compose.problems import Where

Value = str | int | float | bool | None

RESET = "!reset"
OVERRIDE = "!override"
FAILED = "!failed"
"""Marks a scalar that could not be interpolated: that was reported, nothing more is said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value; `text` is as written, `value` is what YAML makes of it."""

    where: Where
    text: str
    value: Value
    tag: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list."""

    where: Where
    items: tuple[Node, ...] = ()
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a mapping; always text."""

    name: str
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A map in the order of the file; each key once."""

    where: Where
    entries: tuple[tuple[Key, Node], ...] = ()
    tag: str = ""

    def get(self, name: str) -> Node | None:
        """The node under a key; None where the key is absent."""
        for key, node in self.entries:
            if key.name == name:
                return node
        return None

    def key(self, name: str) -> Key | None:
        """The key itself, for its place in the file."""
        for key, _ in self.entries:
            if key.name == name:
                return key
        return None

    def __iter__(self) -> Iterator[tuple[Key, Node]]:
        return iter(self.entries)


Node = Scalar | Sequence | Mapping


def is_null(node: Node | None) -> bool:
    """True for an absent node and for YAML's null."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def is_extension(name: str) -> bool:
    """True for the keys that Compose leaves to others."""
    return name.startswith("x-")


def plain(node: Node | None) -> object:
    """The node as plain data: for comparing two nodes without their places."""
    match node:
        case None:
            return None
        case Scalar():
            return (node.value, node.base)
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key.name: plain(value) for key, value in node.entries}
