"""Every checker over one recorded history: what held, what did not, and the counts of one line.

A newcomer would report "no violation" of a check that had nothing to look at. So each check says
how much it has seen, and one that saw nothing is named as such.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import loading, witness
from tests.faults.checks import (
    canaries,
    capacity,
    durability,
    exclusive,
    fencing,
    inertness,
    orphans,
    watches,
)
from tests.faults.checks.recovery import recoveries
from tests.faults.history import SECOND, EngineEvent, Life, StoreEvent, Violation, Window

if TYPE_CHECKING:
    from tests.faults.world import World

CHECKS = (
    "exclusive intervals", "fence tokens", "fenced writers", "acknowledged applies durable",
    "watches gap-free", "inertness", "churn", "orphans", "capacity and ports",
    "foreign canaries",
)  # fmt: skip
"""The names of all checks, as the verdict and `make faults` have them."""

OF_HISTORY = (
    "fenced writers", "acknowledged applies durable", "watches gap-free", "orphans",
    "capacity and ports",
)  # fmt: skip
"""Those that read the store's history, which is one only as long as nobody restores an older."""

SLACK_NS = 3 * SECOND
WATCHED = ("stacks/", "services/", "tasks/", "nodes/")


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """All that the checks read."""

    lives: list[Life]
    ours: list[Life]
    events: list[StoreEvent]
    engine: list[EngineEvent]
    windows: Sequence[Window]
    begin_ns: int
    results: Path
    witness: Path


def as_json(value: Any) -> Any:
    """A value of the history as JSON takes it."""
    return dataclasses.asdict(value)


def record_of(world: "World") -> Recorded:
    """Read the files of a run."""
    results = world.results
    lives = loading.lives(results / "proc.jsonl")
    engine = [
        event
        for host in world.lab.hosts
        for event in loading.engine_events(results / f"engine-{host.name}.jsonl", host.name)
    ]
    return Recorded(
        lives=lives,
        ours=[life for life in lives if not life.task.startswith(canaries.CANARY)],
        events=loading.store_events(results / "store.jsonl"),
        engine=engine,
        windows=world.windows,
        begin_ns=world.begin_ns,
        results=results,
        witness=world.shared,
    )


def judge(world: "World") -> dict[str, Any]:
    """The verdict: of each check its violations and how much it saw; of each fault its recovery."""
    recorded = record_of(world)
    checks = {}
    for name, (seen, broken) in _run(world, recorded).items():
        checks[name] = {"seen": seen, "violations": [str(each) for each in broken]}
    return {
        "checks": checks,
        "violations": sum(len(each["violations"]) for each in checks.values()),
        "faults": len(world.windows),
        "recoveries": [as_json(each) | {"worst": each.worst} for each in recoveries(world.windows)],
        "observer_gap_seconds": loading.observer_gap_ns(recorded.results / "proc.jsonl") / SECOND,
    }


def _run(world: "World", recorded: Recorded) -> dict[str, tuple[int, list[Violation]]]:
    nodes = {life.container[:12]: life.node for life in recorded.lives}
    lines = list(witness.lines(recorded.witness, nodes))
    slots = frozenset(f"app/{service}/1" for service in ("mover", "anchor"))
    operations = loading.operations(recorded.results / "operations.jsonl")
    told = loading.told(recorded.results / "watch.jsonl")
    bookings, rooms = loading.bookings(recorded.events)
    last_ns = max((life.last_ns for life in recorded.lives), default=0)
    exclusive_lives = [life for life in recorded.ours if life.slot in slots]
    settled = [life for life in recorded.ours if life.last_ns > recorded.begin_ns]
    hand = tuple(world.hand_written)
    everything: dict[str, tuple[int, Callable[[], list[Violation]]]] = {
        "exclusive intervals": (
            len(exclusive_lives),
            lambda: [*exclusive.overlaps(recorded.ours, slots), *exclusive.rivals(lines)],
        ),
        "fence tokens": (len(lines), lambda: exclusive.tokens(lines)),
        "fenced writers": (
            len(recorded.events),
            lambda: fencing.writers(recorded.events, hand),
        ),
        "acknowledged applies durable": (
            len(operations),
            lambda: durability.acknowledged(operations, recorded.events),
        ),
        "watches gap-free": (
            len(told),
            lambda: watches.gap_free(told, recorded.events, WATCHED),
        ),
        "inertness": (
            len(recorded.windows),
            lambda: inertness.inert(settled, recorded.windows),
        ),
        "churn": (
            len(settled),
            lambda: inertness.churn(
                [life for life in settled if life.task.count("/") == 2 and life.slot[:4] == "app/"],
                recorded.windows,
                slack_ns=SLACK_NS,
            ),
        ),
        "orphans": (
            len(recorded.events),
            lambda: orphans.lingering(recorded.ours, recorded.events, recorded.windows, last_ns),
        ),
        "capacity and ports": (
            len(bookings),
            lambda: capacity.overbooked(bookings, rooms),
        ),
        "foreign canaries": (
            len(recorded.engine),
            lambda: canaries.harmed(
                [event for event in recorded.engine if event.t_ns > recorded.begin_ns],
                [life for life in recorded.lives if life.last_ns > recorded.begin_ns],
                frozenset(world.cut_power),
            ),
        ),
    }
    return {
        name: (seen, check())
        for name, (seen, check) in everything.items()
        if name not in world.unrecorded
    }
