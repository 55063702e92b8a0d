"""The recorded history of a run of faults: what recorders write and checkers read.

One machine has one CLOCK_MONOTONIC, so `t_ns` of any two records can be compared, whichever host
they come from. A newcomer would use wall time, which a fault of this very suite moves.

Each recorder has a file of its own (JSON, one record to a line, `t_ns` and `who` in each), so no
two processes ever write to one. The values below are what the checkers see of them.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECOND = 1_000_000_000


def now_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds."""
    return time.monotonic_ns()


class Recorder:
    """Appends records to one file, each at once on its way to the disk."""

    def __init__(self, path: Path, who: str) -> None:
        self.path = path
        self._who = who
        self._file = path.open("a", buffering=1)

    def write(self, **what: Any) -> None:
        """One record, stamped now unless `t_ns` is given."""
        record = {"t_ns": now_ns(), "who": self._who} | what
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; nothing for one that is not there. A torn last line is left out."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


# ------------------------------------------------------------------------ what checkers are fed


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that did not hold: which, when, and a sentence of what was seen."""

    promise: str
    t_ns: int
    message: str

    def __str__(self) -> str:
        return f"{self.promise} at {self.t_ns / SECOND:.3f} s: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process of a container, as long as the /proc observer saw it alive.

    It lived at least from `first_ns` to `last_ns`; it may have lived one look longer at each end.
    `last_ns` of one that still lives is the time of the last look.
    """

    slot: str  # stack/service/slot: what may run once
    task: str
    node: str
    container: str
    first_ns: int
    last_ns: int
    ended: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One fault: from the injection to the healing, and what it may touch."""

    fault: str
    title: str
    scope: str  # agent, scheduler, store, engine, network, node, container, disk, clock
    begin_ns: int
    end_ns: int
    nodes: tuple[str, ...] = ()
    settled_ns: int = 0  # when all was right again; 0: it never was
    may_stop: tuple[str, ...] = ()  # slots that the rules let stop meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEvent:
    """One key as one transaction of the store left it; `value` None: deleted."""

    t_ns: int
    revision: int
    key: str
    value: bytes | None
    created: int = 0  # create-revision; 0 for a delete
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of a client: its mark, and how it ended: ok, fail (not done), info (not known)."""

    mark: str
    invoked_ns: int
    ended_ns: int
    outcome: str
    revision: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client's watch has told up to a place: the objects that there are."""

    t_ns: int
    revision: int
    objects: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """What an engine says has happened to a container or volume."""

    t_ns: int
    node: str
    action: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessLine:
    """What a witness wrote: a beat, or that it met a rival, or an older token than the highest."""

    t_ns: int
    slot: str
    node: str
    token: int
    kind: str  # beat, VIOLATION, REFUSED
