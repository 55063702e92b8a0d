"""How nodes stand for a task, and what would make a waiting one fit: for `explain` and `plan`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from homeport.v1 import control_pb2


def nodes(standings: Iterable[control_pb2.NodeExplanation], indent: str) -> Iterator[str]:
    """Each node, the best first: its score by parts, or all that speaks against it."""
    for node in sorted(standings, key=lambda node: (bool(node.objections), -node.total)):
        mark = "*" if node.chosen else " "
        for objection in node.objections:
            yield f"{indent}{mark} {objection.message}"
        if not node.objections:
            parts = ", ".join(f"{part.name} {part.value}" for part in node.scores)
            yield f"{indent}{mark} {node.node}: fits, score {node.total} ({parts})"


def remedies(found: Iterable[control_pb2.Remedy], indent: str) -> Iterator[str]:
    """Each change with the commands that make it below, the smallest first."""
    for number, remedy in enumerate(found):
        yield f"{indent}{'or' if number else 'smallest change'}: {remedy.message}"
        for command in remedy.commands:
            yield f"{indent}    {command}"
