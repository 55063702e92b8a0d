"""How many tasks of a kind are at each value of a label: counted once, then kept.

A *tag* names the tasks that are counted: those of a service (by id or by stack and name), those
with a label, or those that do not want some neighbour. Nothing is counted before somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from homeport.model import NodeId, ServiceId
from homeport.spec import Neighbour
from scheduler.placement.candidates import Candidate, Held
from scheduler.placement.columns import Codes, Floats
from scheduler.placement.requirements import Requirements


class Counts(dict[str, int]):
    """The tasks at each value of a label; a value without a task is not in it."""

    __slots__ = ("_by_number", "_codes", "_news")

    def __init__(self) -> None:
        """None at all."""
        super().__init__()
        self._codes: Codes | None = None  # the numbers that were asked for last
        self._by_number: Floats = np.empty(0)
        self._news: dict[str, None] = {}  # values whose count has changed since

    def add(self, value: str, times: int) -> None:
        """So many tasks more."""
        if left := self.get(value, 0) + times:
            self[value] = left
        else:
            del self[value]
        if self._codes is not None:
            self._news[value] = None

    def by_number(self, codes: Codes) -> Floats:
        """The same as an array by the numbers of the values, to be read and not kept.

        Thousands of nodes may be as many values, and one task changes one: so what has changed
        is written, and no more.
        """
        news: Iterable[str] = self._news
        if self._codes is not codes:
            self._codes, self._by_number, news = codes, np.zeros(len(codes.values)), self
        for value in news:
            if (number := codes.numbers.get(value)) is not None:
                self._by_number[number] = self.get(value, 0)
        self._news = {}
        return self._by_number


def of_service(service: ServiceId) -> str:
    """The tag of a service's own tasks."""
    return f"id:{service}"


def of_neighbour(neighbour: Neighbour) -> str:
    """The tag of the tasks that a rule speaks of."""
    return f"name:{neighbour.service}" if neighbour.service else f"label:{neighbour.label}"


def of_class(needs: Requirements, name: str) -> tuple[str, ...]:
    """The tags by which a task is somebody's neighbour."""
    labels = [f"label:{key}={value}" for key, value in needs.labels]
    return (f"name:{name}", *labels) if name else tuple(labels)


def against(tag: str) -> str:
    """The tag of the tasks that must be apart from those of a tag."""
    return f"against:{tag}"


def opposed(needs: Requirements) -> list[tuple[str, str]]:
    """(tag, key) of each rule by which others must stay apart from tasks of this class."""
    return [
        (of_neighbour(each), each.key)
        for each in needs.neighbours
        if each.apart and not each.weight
    ]


class Tallies:
    """All counts that somebody asked for."""

    def __init__(self) -> None:
        """None."""
        self._counts: dict[str, dict[str, Counts]] = {}  # tag -> label -> value -> tasks
        # Which labels others must stay apart by, for each tag: label -> how many tasks say so.
        self._opposed: dict[str, dict[str, int]] = {}

    def __bool__(self) -> bool:
        """Whether anything is counted."""
        return bool(self._counts)

    def clear(self) -> None:
        """Nodes have other labels now."""
        self._counts.clear()

    def copy(self) -> Tallies:
        """The same, without what was counted."""
        other = Tallies()
        other._opposed = {tag: dict(keys) for tag, keys in self._opposed.items()}
        return other

    @property
    def has_opposing(self) -> bool:
        """Whether any task must be apart from others."""
        return bool(self._opposed)

    def opposing(self, tag: str) -> Iterable[str]:
        """The labels by which tasks of a tag must stay apart from some others."""
        return self._opposed.get(tag, ())

    def known(self, tag: str, key: str) -> Counts | None:
        """The tasks of a tag at each value of a label; None: they were not counted yet."""
        counts = self._counts.get(tag)
        return counts.get(key) if counts is not None else None

    def count(
        self,
        tag: str,
        key: str,
        there: Iterable[tuple[Held, int]],
        nodes: Mapping[NodeId, Candidate],
    ) -> Counts:
        """Count them among all that is there."""
        counts = Counts()
        for entry, tasks in there:
            candidate = nodes.get(entry.node)
            if candidate is not None and tag in _tags(entry, key):
                value = candidate.facts.get(key)
                if value is not None:
                    counts.add(value, tasks)
        self._counts.setdefault(tag, {})[key] = counts
        return counts

    def oppose(self, entry: Held, times: int) -> None:
        """So many tasks more have these rules about others."""
        for tag, key in opposed(entry.needs):
            keys = self._opposed.setdefault(tag, {})
            if left := keys.get(key, 0) + times:
                keys[key] = left
            else:
                del keys[key]
                if not keys:
                    del self._opposed[tag]

    def taken(self, entry: Held, nodes: Iterable[tuple[Candidate, int]]) -> None:
        """So many tasks more of a kind are on each of these nodes; `entry` may be of any node."""
        for tag in _tags(entry, None):
            for key, counts in self._counts.get(tag, {}).items():
                if tag.startswith("against:") and tag not in _tags(entry, key):
                    continue
                for candidate, times in nodes:
                    value = candidate.facts.get(key)
                    if value is not None:
                        counts.add(value, times)


def _tags(entry: Held, key: str | None) -> tuple[str, ...]:
    """All tags of a task; of those that oppose others, the ones by this label, or all."""
    opposing = [against(tag) for tag, by in opposed(entry.needs) if key is None or by == key]
    return (
        of_service(entry.service),
        *of_class(entry.needs, entry.name),
        *dict.fromkeys(opposing),
    )
