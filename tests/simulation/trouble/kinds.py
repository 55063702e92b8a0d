"""The kinds of trouble there are: a table that the modules beside this one fill in.

Each is a coroutine that takes the `Nemesis`, makes its trouble once, waits, and ends it. A
newcomer's mistake: a fault without an end. `World.heal` ends what is left, so whatever is
switched on here must be switched off there.
"""

from dataclasses import dataclass
from typing import Any

KINDS = {}
"""By name, in the order of their definition."""
PLOTS = {}
"""Those that only runs about them have: several faults, one after the other, each at its time."""


@dataclass(frozen=True)
class Kind:
    """One kind of trouble."""

    name: str
    mean_seconds: float  # between two of them, in a run of middling calm
    make: Any
    is_store_bug: bool = False
    """One of etcd's known bugs: the promises hold under each of them, one at a time."""


def kind(name, mean_seconds, *, is_store_bug=False):
    """Enter the coroutine function below as a kind of trouble."""

    def enter(make):
        KINDS[name] = Kind(name, mean_seconds, make, is_store_bug)
        return make

    return enter


def plot(name):
    """Enter the coroutine function below as one that only a focused run has."""

    def enter(make):
        PLOTS[name] = Kind(name, 0.0, make)
        return make

    return enter
