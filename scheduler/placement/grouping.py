"""The rules of `groups` over all rows at once: which rows they leave, and with what points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scheduler.placement import groups, static, tallies
from scheduler.placement.asks import Ask
from scheduler.placement.cells import fact
from scheduler.placement.columns import Floats
from scheduler.placement.fleet import Fleet

NEVER = -np.inf


def concerns(fleet: Fleet, ask: Ask) -> bool:
    """Whether any such rule can matter to this ask."""
    needs = ask.needs
    return bool(needs.spread_rules or needs.neighbours) or is_opposed(fleet, ask)


def is_opposed(fleet: Fleet, ask: Ask) -> bool:
    """Whether any task must be apart from this one."""
    if not fleet.tallies.has_opposing:
        return False
    tags = tallies.of_class(ask.needs, ask.name)
    return any(fleet.tallies.opposing(tag) for tag in tags)


def is_steady(fleet: Fleet, ask: Ask) -> bool:
    """Whether `neighboured` says the same of a row until that row is chosen, however many are.

    So it is where near and apart speak of others. Of its own kind a task may be near where there
    is one already, or apart where each node is a domain of its own.
    """
    tags = tallies.of_class(ask.needs, ask.name)
    for rule in ask.needs.neighbours:
        if tallies.of_neighbour(rule) not in tags:
            continue
        if rule.weight:
            return False
        if rule.apart:
            codes = fact(fleet.columns, rule.key)
            if None in codes.numbers or len(codes.values) < len(fleet.columns.rows):
                return False
        elif not fleet.tally(tallies.of_neighbour(rule), rule.key):
            return False
    return True


def is_apart_from_its_own(ask: Ask) -> bool:
    """Whether no two tasks of this kind may share a domain of some label."""
    tags = tallies.of_class(ask.needs, ask.name)
    return any(
        rule.apart and not rule.weight and tallies.of_neighbour(rule) in tags
        for rule in ask.needs.neighbours
    )


def adjusted(fleet: Fleet, ask: Ask, score: Floats) -> Floats:
    """These points with those of groups, in a new array; -inf where a rule refuses."""
    result = score.copy()
    for rule in ask.needs.spread_rules:
        counts = fleet.tally(tallies.of_service(ask.service), rule.key)
        least = groups.lowest(fleet, ask, rule, lambda key: static.domains(fleet, ask, key))
        if rule.weight:
            result += _of_rows(
                fleet,
                rule.key,
                {each: groups.skew_points(rule, count - least) for each, count in counts.items()},
                other=groups.skew_points(rule, -least),
                without=groups.skew_points(rule, groups.COUNTED_MAX),
            )
        else:
            room = rule.max_skew + least  # a domain may have so many
            result += _of_rows(
                fleet,
                rule.key,
                {each: NEVER for each, count in counts.items() if count >= room},
                other=0 if room > 0 else NEVER,
                without=NEVER,
            )
    return neighboured(fleet, ask, result)


def neighboured(fleet: Fleet, ask: Ask, result: Floats) -> Floats:
    """Add to these points those of near and apart, whoever says so; -inf where they refuse."""
    for near in ask.needs.neighbours:
        counts = fleet.tally(tallies.of_neighbour(near), near.key)
        if near.weight:
            points = {each: groups.near_points(near, count) for each, count in counts.items()}
            result += _of_rows(fleet, near.key, points, other=0, without=0)
        elif near.apart:
            result += _of_rows(fleet, near.key, dict.fromkeys(counts, NEVER), other=0, without=0)
        else:
            other = 0 if groups.is_first(ask, near, counts) else NEVER
            here = dict.fromkeys(counts, 0.0)
            result += _of_rows(fleet, near.key, here, other=other, without=NEVER)
    for tag in tallies.of_class(ask.needs, ask.name):
        for key in fleet.tallies.opposing(tag):
            here = dict.fromkeys(fleet.tally(tallies.against(tag), key), NEVER)
            result += _of_rows(fleet, key, here, other=0, without=0)
    return result


def _of_rows(
    fleet: Fleet, key: str, here: Mapping[str, float], *, other: float, without: float
) -> Floats:
    """A number for each row by its value of a label: of some values, of others, of none."""
    codes = fact(fleet.columns, key)
    of_value = np.full(len(codes.values), float(other))
    if (nothing := codes.numbers.get(None)) is not None:
        of_value[nothing] = without
    for value, number in here.items():
        if (code := codes.numbers.get(value)) is not None:
            of_value[code] = number
    result: Floats = of_value[codes.of_row]
    return result
