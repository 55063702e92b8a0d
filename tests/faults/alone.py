"""A world of one fault's own, for what cannot be healed in place, and the verdict of its history.

    with alone(results / "F31") as world:

A newcomer would judge the shared world alone, and let pass what only its own watchers saw here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults import loading, timeline, verdicts
from tests.faults.world import World

CONCLUDED: list[dict[str, Any]] = []
"""The verdicts so far, for the last line."""


@contextmanager
def alone(results: Path, **arguments: Any) -> Iterator[World]:
    """As World; leaving it judges what was recorded. AssertionError for what did not hold."""
    with World(results, **arguments) as world:
        yield world
        found = conclude(world)
        broken = [said for check in found["checks"].values() for said in check["violations"]]
        assert not broken, "\n".join(broken)
        blind = [name for name, check in found["checks"].items() if not check["seen"]]
        assert not blind, f"these checks had nothing to look at: {', '.join(blind)}"


def conclude(world: World) -> dict[str, Any]:
    """The verdict of a world, also written, drawn and counted."""
    found = world.verdict()
    timeline.draw(
        world.results / "timeline.html",
        lives=verdicts.record_of(world).ours,
        windows=world.windows,
        operations=loading.operations(world.results / "operations.jsonl"),
        verdict=found,
        faults=world.results / "faults.jsonl",
    )
    CONCLUDED.append(found)
    return found
