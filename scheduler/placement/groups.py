"""Rules about groups of nodes: what is already at the other nodes with the same label.

A *domain* is the set of nodes with one value of a label. A hard spread rule compares the domain
of a node with the emptiest one that could take the task; neighbours must share a domain, or must
not. Rules here read counts that the fleet keeps (`tallies`), never single tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from homeport.spec import Neighbour, SpreadRule
from scheduler.placement import tallies
from scheduler.placement.asks import Ask
from scheduler.placement.candidates import Candidate
from scheduler.placement.fleet import Fleet
from scheduler.placement.points import WISH

Answer = tuple[str, str] | None
COUNTED_MAX = 100
"""Differences and neighbours beyond it weigh the same."""


Domains = Callable[[str], Collection[str]]
"""A label -> its values on the nodes that could take the task, had they room."""


def spread(fleet: Fleet, ask: Ask, node: Candidate, domains: Domains) -> Answer:
    """No domain has more of the service than the emptiest one by more than is allowed."""
    if ask.only is not None:
        return None  # a global service is everywhere
    for rule in ask.needs.spread_rules:
        if rule.weight:
            continue
        value = node.facts.get(rule.key)
        if value is None:
            return (rule.key, "")
        counts = fleet.tally(tallies.of_service(ask.service), rule.key)
        here, least = counts.get(value, 0), lowest(fleet, ask, rule, domains)
        if here + 1 - least > rule.max_skew:
            return (f"{rule.key} {rule.max_skew}", f"{value} {here} {least}")
    return None


def neighbour(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Those that it must be near to are in its domain, those that it must be apart from are not."""
    for rule in ask.needs.neighbours:
        if rule.weight:
            continue
        counts = fleet.tally(tallies.of_neighbour(rule), rule.key)
        value = node.facts.get(rule.key)
        is_there = value is not None and value in counts
        if rule.apart:
            if is_there:
                return (f"apart {_said(rule)}", f"{rule.key} {value}")
        elif not is_there and not (value is not None and is_first(ask, rule, counts)):
            return (f"near {_said(rule)}", f"{rule.key} {value or ''}")
    return opposed(fleet, ask, node)


def opposed(fleet: Fleet, ask: Ask, node: Candidate) -> Answer:
    """Nothing in its domains must be apart from it."""
    for tag in tallies.of_class(ask.needs, ask.name):
        for key in fleet.tallies.opposing(tag):
            value = node.facts.get(key)
            if value is not None and value in fleet.tally(tallies.against(tag), key):
                return (f"opposed {tag.partition(':')[2]}", f"{key} {value}")
    return None


def lowest(fleet: Fleet, ask: Ask, rule: SpreadRule, domains: Domains) -> int:
    """The tasks of the service in the emptiest domain that has a node which could take one."""
    counts = fleet.tally(tallies.of_service(ask.service), rule.key)
    return min((counts.get(value, 0) for value in domains(rule.key)), default=0)


def is_first(ask: Ask, rule: Neighbour, counts: tallies.Counts) -> bool:
    """Whether the task would be the first of those that it must be near to."""
    return not counts and tallies.of_neighbour(rule) in tallies.of_class(ask.needs, ask.name)


def wishes(fleet: Fleet, ask: Ask, node: Candidate, domains: Domains) -> int:
    """The points of soft rules about groups."""
    points = 0
    for wish in ask.needs.neighbours:
        if wish.weight:
            counts = fleet.tally(tallies.of_neighbour(wish), wish.key)
            value = node.facts.get(wish.key)
            there = counts.get(value, 0) if value is not None else 0
            points += near_points(wish, there)
    for rule in ask.needs.spread_rules:
        if rule.weight:
            value = node.facts.get(rule.key)
            counts = fleet.tally(tallies.of_service(ask.service), rule.key)
            more = (
                COUNTED_MAX
                if value is None
                else counts.get(value, 0) - lowest(fleet, ask, rule, domains)
            )
            points += skew_points(rule, more)
    return points


def near_points(wish: Neighbour, there: int) -> int:
    """What so many neighbours in a node's domain are worth."""
    if wish.apart:
        return -wish.weight * min(there, COUNTED_MAX) * WISH
    return wish.weight * WISH if there else 0


def skew_points(rule: SpreadRule, more: int) -> int:
    """What it is worth that a domain has so many more than the emptiest."""
    return -rule.weight * max(min(more, COUNTED_MAX), 0) * WISH


def _said(rule: Neighbour) -> str:
    return rule.service or rule.label
