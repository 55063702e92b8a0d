"""Why a task will do on none of many nodes, told node by node only when somebody asks.

In a full cluster thousands of slots wait, each for as many reasons as there are nodes. What is
kept here is two numbers for each node; a `Refusal` is made when it is looked at. To whoever looks
this is the tuple of them, and it says what was so when it was made, whatever came since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import eq
from typing import overload

import numpy as np
import numpy.typing as npt

from homeport.model import NodeId
from scheduler.cluster.observed import Refusal
from scheduler.placement.columns import Floats

Numbers = npt.NDArray[np.int32]
Why = tuple[str, str, str | None]
"""(rule, needed, had); had is None where it is the node's own amount."""


class Refusals(Sequence[Refusal]):
    """The refusals of nodes, in the order of their names."""

    __slots__ = ("_amounts", "_nodes", "_numbers", "_whys", "counts")

    def __init__(
        self, nodes: Sequence[NodeId], numbers: Numbers, whys: Sequence[Why], amounts: Floats
    ) -> None:
        """`numbers`: which of `whys` is each node's; `amounts`: what it has, where that is said."""
        self._nodes = nodes
        self._numbers = numbers
        self._whys = whys
        self._amounts = amounts
        self.counts: dict[str, int] = {}  # of each rule: nodes
        for number, count in enumerate(np.bincount(numbers, minlength=len(whys)).tolist()):
            if count:
                rule = whys[number][0]
                self.counts[rule] = self.counts.get(rule, 0) + count

    def __len__(self) -> int:
        """Of how many nodes."""
        return len(self._nodes)

    @overload
    def __getitem__(self, which: int) -> Refusal: ...

    @overload
    def __getitem__(self, which: slice) -> tuple[Refusal, ...]: ...

    def __getitem__(self, which: int | slice) -> Refusal | tuple[Refusal, ...]:
        """One of them, or some."""
        if isinstance(which, slice):
            return tuple(self._one(place) for place in range(*which.indices(len(self))))
        return self._one(range(len(self))[which])

    def __iter__(self) -> Iterator[Refusal]:
        """All of them."""
        return map(self._one, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same answer; a tuple of the same refusals is."""
        if self is other:
            return True
        if not isinstance(other, Refusals | tuple):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        """As the tuple."""
        return tuple(self).__hash__()

    def __repr__(self) -> str:
        """As the tuple."""
        return repr(tuple(self))

    def _one(self, place: int) -> Refusal:
        rule, needed, had = self._whys[self._numbers.item(place)]
        if had is None:
            had = str(max(int(self._amounts.item(place)), 0))
        return Refusal(node=self._nodes[place], rule=rule, needed=needed, had=had)
