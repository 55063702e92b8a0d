"""The rules of the protocol by name, each with its switch and the runs that are about it."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.simulation.focus import Focus
from tests.simulation.scenario import play


@dataclass(frozen=True)
class Mutation:
    """A rule and its switch."""

    name: str
    rule: str  # what is left out
    focus: Focus
    switch_off: Any  # takes a pytest.MonkeyPatch
    covered_by: tuple = ()
    """The switches of other rules, each of which would do in its place: they are off with the
    rule and without it, so that it alone makes the difference."""


MUTATIONS: dict[str, Mutation] = {}


def mutation(rule, *kinds, covered_by=(), **focus):
    """Enter the function below, which switches this rule off.

    `kinds` and `focus` say in which runs it is needed: see `Focus`.
    """

    def enter(switch_off):
        name = switch_off.__name__.strip("_")
        MUTATIONS[name] = Mutation(name, rule, Focus(kinds=kinds, **focus), switch_off, covered_by)
        return switch_off

    return enter


def play_without(name, seed):
    """Play a seed with this rule's focus and the rule off."""
    return _play(name, seed, has_rule=False)


def play_with(name, seed, until=float("inf")):
    """The same with the rule on; not beyond `until`, in virtual seconds."""
    return _play(name, seed, has_rule=True, until=until)


def _play(name, seed, *, has_rule, until=float("inf")):
    mutation = MUTATIONS[name]
    with pytest.MonkeyPatch.context() as patch:
        for switch_off in mutation.covered_by:
            switch_off(patch)
        if not has_rule:
            mutation.switch_off(patch)
        return play(seed, focus=mutation.focus, until=until)
