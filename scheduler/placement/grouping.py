"""The rules of `groups` over all rows at once: which rows they leave, and with what points."""

from __future__ import annotations

import numpy as np

from scheduler.placement import groups, static, tallies
from scheduler.placement.asks import Ask
from scheduler.placement.cells import fact
from scheduler.placement.columns import Codes, Floats
from scheduler.placement.fleet import Fleet
from scheduler.placement.groups import COUNTED_MAX

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
        codes = fact(fleet.columns, rule.key)
        there = fleet.tally(tallies.of_service(ask.service), rule.key).by_number(codes)
        domains = codes.numbers_of(static.domains(fleet, ask, rule.key))
        more = there - (there[domains].min() if len(domains) else 0)
        if rule.weight:
            points = groups.skew_points(rule, 1) * np.clip(more, 0, COUNTED_MAX)
            result += _of_rows(codes, points, without=groups.skew_points(rule, COUNTED_MAX))
        else:
            points = np.where(more >= rule.max_skew, NEVER, 0)
            result += _of_rows(codes, points, without=NEVER)
    return neighboured(fleet, ask, result)


def neighboured(fleet: Fleet, ask: Ask, result: Floats) -> Floats:
    """Add to these points those of near and apart, whoever says so; -inf where they refuse."""
    for near in ask.needs.neighbours:
        codes = fact(fleet.columns, near.key)
        counts = fleet.tally(tallies.of_neighbour(near), near.key)
        there = counts.by_number(codes)
        if near.weight and near.apart:
            points = groups.near_points(near, 1) * np.minimum(there, COUNTED_MAX)
            result += _of_rows(codes, points, without=0)
        elif near.weight:
            points = np.where(there > 0, groups.near_points(near, 1), 0)
            result += _of_rows(codes, points, without=0)
        elif near.apart:
            result += _of_rows(codes, np.where(there > 0, NEVER, 0), without=0)
        else:
            other = 0.0 if groups.is_first(ask, near, counts) else NEVER
            result += _of_rows(codes, np.where(there > 0, 0.0, other), without=NEVER)
    for tag in tallies.of_class(ask.needs, ask.name):
        for key in fleet.tallies.opposing(tag):
            codes = fact(fleet.columns, key)
            there = fleet.tally(tallies.against(tag), key).by_number(codes)
            result += _of_rows(codes, np.where(there > 0, NEVER, 0), without=0)
    return result


def _of_rows(codes: Codes, of_value: Floats, *, without: float) -> Floats:
    """A number for each row by the number of its value of a label; `without`: it has none."""
    if (nothing := codes.numbers.get(None)) is not None:
        of_value[nothing] = without
    result: Floats = of_value[codes.of_row]
    return result
