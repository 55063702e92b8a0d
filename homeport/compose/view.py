"""How readers of keys look at a tree: typed, with the path, never raising.

A `View` hands out text, numbers, durations… and reports what has the wrong shape or size, with
its place, so that a reader is a list of `field=view.text("key")`. Strings are accepted where
Compose wants numbers and booleans, because that is what `${VARIABLES}` become.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from homeport.compose import quantities, scalars
from homeport.compose.problems import Report
from homeport.compose.tree import (
    FAILED,
    Key,
    Mapping,
    Node,
    Scalar,
    Sequence,
    is_extension,
    is_null,
)
from homeport.spec import Pairs, pairs

T = TypeVar("T")
D = TypeVar("D")

TEXT_MAX = 128 << 10  # what one argument or variable may be long on Linux
_BOOLS = {
    "true": True, "1": True, "t": True, "y": True, "yes": True, "on": True,
    "false": False, "0": False, "f": False, "n": False, "no": False, "off": False,
}  # fmt: skip


@dataclass(slots=True)
class Context:
    """What all readers of one compilation share."""

    report: Report
    read: set[str] = field(default_factory=set)  # paths that a reader has looked at
    ports: int = 0  # published so far: a range of ports is few bytes and many values


@dataclass(frozen=True, slots=True)
class View:
    """A node, where it stands in the document, and where to report."""

    node: Node
    path: str
    context: Context

    # ----------------------------------------------------------------------------- reporting

    def refuse(self, message: str, way_out: str = "") -> None:
        """Report why this value cannot be used."""
        if self.node.tag == FAILED:
            return
        self.context.report.refuse(self.node.where, self.path, message, way_out)

    def notice(self, message: str, way_out: str = "") -> None:
        """Report what the user should know about this value."""
        self.context.report.notice(self.node.where, self.path, message, way_out)

    def _wrong(self, wanted: str) -> None:
        shapes = {Scalar: "a single value", Sequence: "a list", Mapping: "a map"}
        self.refuse(f"must be {wanted}, not {shapes[type(self.node)]}")

    # ------------------------------------------------------------------------------- moving

    @property
    def is_map(self) -> bool:
        """True for a map."""
        return isinstance(self.node, Mapping)

    @property
    def is_list(self) -> bool:
        """True for a list."""
        return isinstance(self.node, Sequence)

    @property
    def base(self) -> str:
        """The directory in which a relative path of this scalar starts."""
        return self.node.base if isinstance(self.node, Scalar) else ""

    def at(self, key: str) -> View | None:
        """What stands under a key; None when it is absent or null."""
        if not isinstance(self.node, Mapping):
            return None
        found = self.node.get(key)
        path = f"{self.path}.{key}" if self.path else key
        self.context.read.add(path)
        return None if found is None or is_null(found) else View(found, path, self.context)

    def items(self) -> list[View]:
        """The entries of a list; reports another shape."""
        if not isinstance(self.node, Sequence):
            self._wrong("a list")
            return []
        return [
            View(item, f"{self.path}[{number}]", self.context)
            for number, item in enumerate(self.node.items)
        ]

    def entries(self) -> Iterator[tuple[Key, View]]:
        """The entries of a map without extensions, null values included."""
        if not isinstance(self.node, Mapping):
            self._wrong("a map")
            return
        for key, node in self.node.entries:
            path = f"{self.path}.{key.name}" if self.path else key.name
            self.context.read.add(path)
            if not is_extension(key.name):
                yield key, View(node, path, self.context)

    def listed(self, key: str) -> list[View]:
        """The entries of the list under a key; empty when it is absent."""
        found = self.at(key)
        return found.items() if found is not None else []

    def named(self, key: str) -> list[tuple[Key, View]]:
        """The entries of the map under a key; empty when it is absent."""
        found = self.at(key)
        return list(found.entries()) if found is not None else []

    # ------------------------------------------------------------------------------ scalars

    def as_text(self) -> str:
        """Text; numbers as they are written, booleans refused (they are a YAML accident)."""
        if not isinstance(self.node, Scalar):
            self._wrong("text")
            return ""
        value = self.node.value
        if isinstance(value, bool):
            self.refuse(f"must be text, not {self.node.text}", "Put it into quotes")
            return ""
        return self._bounded(value if isinstance(value, str) else self.node.text)

    def as_printed(self) -> str:
        """Any scalar as Compose prints it: for variables, labels and options."""
        if not isinstance(self.node, Scalar):
            self._wrong("a single value")
            return ""
        return self._bounded(scalars.as_text(self.node.value))

    def _bounded(self, text: str) -> str:
        if len(text) > TEXT_MAX:
            self.refuse(f"is longer than {TEXT_MAX >> 10} KiB")
            return ""
        return text

    def as_bool(self, default: bool = False) -> bool:
        """A boolean, or the text that a variable became."""
        value = self.node.value if isinstance(self.node, Scalar) else None
        if isinstance(value, bool):
            return value
        known = _BOOLS.get(str(value).lower()) if isinstance(value, str | int) else None
        if known is None:
            self.refuse("must be true or false")
            return default
        return known

    def read(self, parse: Callable[[str], T], default: T) -> T:
        """The value that a quantity's reader makes of the text; reports what it says."""
        if not isinstance(self.node, Scalar):
            self._wrong("a single value")
            return default
        value = self.node.value
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            self.refuse(f"{self.node.text[:40]!r} is not a number")
            return default
        try:
            return parse(scalars.as_text(value))
        except ValueError as error:
            self.refuse(str(error))
            return default

    # --------------------------------------------------------------- scalars under a key

    def text(self, key: str, default: str = "") -> str:
        """Text under a key."""
        found = self.at(key)
        return found.as_text() if found is not None else default

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean under a key."""
        found = self.at(key)
        return found.as_bool(default) if found is not None else default

    def whole(self, key: str, low: int, high: int, default: int = 0) -> int:
        """A whole number under a key, from low to high."""
        found = self.at(key)
        if found is None:
            return default
        return found.read(lambda text: quantities.whole(text, low, high), default)

    def duration_ms(self, key: str, default: int = 0) -> int:
        """A duration under a key."""
        found = self.at(key)
        return found.read(quantities.duration_ms, default) if found is not None else default

    def size_bytes(self, key: str, default: int = 0) -> int:
        """A size under a key."""
        found = self.at(key)
        return found.read(quantities.size_bytes, default) if found is not None else default

    def choice(self, key: str, choices: dict[str, T], default: D) -> T | D:
        """One of some words under a key."""
        found = self.at(key)
        if found is None:
            return default
        word = found.as_printed()
        if word not in choices:
            found.refuse(f"{word[:40]!r} is not one of {', '.join(choices)}")
            return default
        return choices[word]

    # ----------------------------------------------------------------- lists and maps of text

    def texts(self, key: str, *, or_one: bool = False) -> tuple[str, ...]:
        """A list of text under a key (`or_one`: or a single text), each once, in order."""
        found = self.at(key)
        if found is None:
            return ()
        if or_one and isinstance(found.node, Scalar):
            return (found.as_text(),)
        return tuple(dict.fromkeys(item.as_text() for item in found.items()))

    def assignments(self, key: str) -> list[tuple[str, str | None, View]]:
        """A map, or a list of KEY=VALUE, under a key; the value None where none is given."""
        found = self.at(key)
        if found is None:
            return []
        assigned: dict[str, tuple[str, str | None, View]] = {}
        if isinstance(found.node, Sequence):
            for item in found.items():
                name, equals, value = item.as_printed().partition("=")
                assigned[name] = (name, value if equals else None, item)
        else:
            for name_key, item in found.entries():
                given = None if is_null(item.node) else item.as_printed()
                assigned[name_key.name] = (name_key.name, given, item)
        for name, _, item in assigned.values():
            if not name:
                item.refuse("has no name before the =")
        return [entry for entry in assigned.values() if entry[0]]

    def pairs(self, key: str) -> Pairs:
        """A small map of text under a key; what has no value is empty."""
        return pairs((name, value or "") for name, value, _ in self.assignments(key))
