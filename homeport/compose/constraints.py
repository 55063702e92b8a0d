"""Constraints: what must hold of a node, as Swarm writes it and a little more.

    node.labels.disk == ssd             node.labels.disk in (ssd, nvme)
    node.role != manager                node.labels.gpu exists
    node.labels.watts < 15              node.hostname =~ pi[0-9]+

A newcomer's surprise: a fact that a node does not have equals nothing and is unequal to
everything, as in Swarm; so `!=`, `not in`, `not exists` and `!~` hold of it.
"""

from __future__ import annotations

import re

from homeport import patterns
from homeport.compose.view import View
from homeport.spec import Constraint, ConstraintOperator

_KEY = r"\s*([^\s=!<>~()]+)"
_COMPARED = re.compile(_KEY + r"\s*(==|!=|=~|!~|<|>)\s*(\S(?:.*\S)?)\s*")
_LISTED = re.compile(_KEY + r"\s+(not\s+)?in\s*\(([^()]*)\)\s*")
_PRESENT = re.compile(_KEY + r"\s+(not\s+)?exists\s*")
_SIGNS = {
    "==": ConstraintOperator.EQ,
    "!=": ConstraintOperator.NE,
    "=~": ConstraintOperator.MATCHES,
    "!~": ConstraintOperator.NOT_MATCHES,
    "<": ConstraintOperator.LESS,
    ">": ConstraintOperator.GREATER,
}
FACTS = "node.id, node.hostname, node.role, node.platform.os, node.platform.arch, node.labels.…"
LENGTH_MAX = 1_000


def read(item: View) -> Constraint | None:
    """One constraint; None for what is none, which is in the report."""
    text = item.as_text()
    found = _parse(text) if len(text) < LENGTH_MAX else None
    if found is None:
        item.refuse(
            f"{text[:60]!r} is not a constraint such as node.labels.disk == ssd",
            "Compare with ==, !=, <, >, =~, !~, `in (a, b)`, `not in (a)`, `exists`, `not exists`",
        )
        return None
    if not is_fact(found.key, item):
        return None
    if why := _problem(found):
        item.refuse(why)
        return None
    return found


def is_fact(key: str, place: View) -> bool:
    """Whether this can be told of a node; reports at `place` when it cannot."""
    if patterns.is_fact(key):
        return True
    place.refuse(f"{key[:60]!r} is not a fact of nodes", f"Known are {FACTS}")
    return False


def _problem(constraint: Constraint) -> str:
    value = constraint.value
    match constraint.operator:
        case ConstraintOperator.LESS | ConstraintOperator.GREATER if patterns.number(value) is None:
            return f"{value[:40]!r} is not a number to compare with"
        case ConstraintOperator.MATCHES | ConstraintOperator.NOT_MATCHES:
            why = patterns.problem(value)
            return f"{value[:60]!r} {why}" if why else ""
        case ConstraintOperator.IN | ConstraintOperator.NOT_IN if not all(constraint.values):
            return "has an empty value between its parentheses"
        case _:
            return ""


def _parse(text: str) -> Constraint | None:
    if found := _LISTED.fullmatch(text):
        operator = ConstraintOperator.NOT_IN if found[2] else ConstraintOperator.IN
        values = tuple(dict.fromkeys(each.strip() for each in found[3].split(",")))
        return Constraint(key=found[1], operator=operator, values=values)
    if found := _PRESENT.fullmatch(text):
        operator = ConstraintOperator.ABSENT if found[2] else ConstraintOperator.EXISTS
        return Constraint(key=found[1], operator=operator)
    if found := _COMPARED.fullmatch(text):
        return Constraint(key=found[1], operator=_SIGNS[found[2]], value=found[3])
    return None
