"""Run a range of seeds on all cores, and go on where an earlier run of it was interrupted.

What is done is kept in a state file, one line of JSON for each seed, which belongs to one
edition of the code: after a change of any source everything is run again. A newcomer's
mistake: trusting a clean range without looking at how wild it was; `TooTame` says so.
"""

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.scenario import play

ROOT = Path(__file__).parents[2]
LEADERS_MIN = 1.0
MOVES_MIN = 0.5
SECONDS_MIN = 120.0
"""Of a seed, on the average of leader changes and exclusive moves: less is too tame."""


@dataclass
class Totals:
    """What became of many seeds."""

    seeds: int = 0
    virtual_seconds: float = 0.0
    seconds_min: float = float("inf")
    steps: int = 0
    leaders: int = 0
    moves: int = 0
    faults: Counter = field(default_factory=Counter)
    broken: list = field(default_factory=list)

    def add(self, line):
        """Count one line of a state file."""
        self.seeds += 1
        self.virtual_seconds += line["virtual_seconds"]
        if not line["violations"]:
            self.seconds_min = min(self.seconds_min, line["virtual_seconds"])
        self.steps += line["steps"]
        # The first leader of a cluster is no change of leader.
        self.leaders += max(0, line["leaders"] - 1)
        self.moves += line["moves"]
        self.faults.update(line["faults"])
        if line["violations"]:
            self.broken.append(line["seed"])

    @property
    def tame(self):
        """Why a clean run of these seeds would prove little; empty: it was wild enough."""
        if self.seeds and self.leaders < LEADERS_MIN * self.seeds:
            return f"too tame: {self.leaders / self.seeds:.2f} leader changes a seed"
        if self.seeds and self.moves < MOVES_MIN * self.seeds:
            return f"too tame: {self.moves / self.seeds:.2f} exclusive moves a seed"
        if self.seconds_min < SECONDS_MIN:
            return f"too short: a seed of {self.seconds_min:.0f} virtual seconds"
        return ""

    def words(self):
        """The one line at the end."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        broken = f" in seeds {sorted(self.broken)}" if self.broken else ""
        return (
            f"seeds {self.seeds}, virtual seconds {self.virtual_seconds:.0f},"
            f" leader changes {self.leaders}, exclusive moves {self.moves}, faults: {kinds};"
            f" violations: {len(self.broken)}{broken}"
        )


def line_of(verdict):
    """What the state file keeps of a seed."""
    return {
        "seed": verdict.seed,
        "digest": verdict.digest,
        "virtual_seconds": round(verdict.virtual_seconds, 3),
        "steps": verdict.steps,
        "leaders": verdict.leaders,
        "moves": verdict.moves,
        "faults": dict(verdict.faults),
        "violations": [each[:2000] for each in verdict.violations],
    }


def edition():
    """A hash of all sources that a seed's run depends on."""
    found = hashlib.sha256()
    for folder in ("homeport", "scheduler", "agent", "tests/simulation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.update(f"{path.relative_to(ROOT)}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


class State:
    """The state file; without a path nothing is kept."""

    def __init__(self, path):
        self._path = path
        self.lines = {}  # seed -> line
        if path is None:
            return
        mark = json.dumps({"edition": edition()})
        if path.exists():
            first, *lines = path.read_text().splitlines() or [""]
            if first == mark:
                for line in lines:
                    found = _read(line)
                    if found is not None:
                        self.lines[found["seed"]] = found
        if not self.lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mark + "\n")

    def add(self, line):
        """Keep the line."""
        self.lines[line["seed"]] = line
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _read(line):
    try:
        return json.loads(line)
    except ValueError:
        return None  # the run was interrupted while it wrote this


def run(seeds, *, jobs=None, state=None, tell=lambda line: None):
    """Play these seeds, but for those in the state file; `tell` each line as it comes."""
    state = state or State(None)
    totals = Totals()
    left = []
    for seed in seeds:
        if seed in state.lines:
            totals.add(state.lines[seed])
        else:
            left.append(seed)
    for verdict in _verdicts(left, jobs or os.cpu_count() or 1):
        line = line_of(verdict)
        state.add(line)
        totals.add(line)
        tell(line)
    return totals


def _verdicts(seeds, jobs):
    if jobs == 1 or len(seeds) == 1:
        yield from map(play, seeds)
        return
    waiting = iter(seeds)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        flying = set()
        while True:
            for seed in waiting:
                flying.add(pool.submit(play, seed))
                if len(flying) >= 4 * jobs:
                    break
            if not flying:
                return
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
