"""Which mutants were tried, what caught them, and which of the survivors are explained."""

import hashlib
import json
import os
import tomllib
from collections import Counter
from pathlib import Path

from tests.placement.mutations import trying
from tests.placement.mutations.mutants import files, of_file
from tests.seeds import ROOT

SURVIVORS = Path(__file__).parent / "survivors.toml"
STATE = ROOT / ".simulation" / "placement-mutations.json"
SOURCES = (
    "homeport",
    "scheduler/cluster",
    "scheduler/placement",
    "scheduler/reconcile",
    "tests/placement",
    "tests/unit/scheduler/placement",
)


def edition():
    """A hash of all that decides whether a mutant is caught."""
    found = hashlib.sha256((ROOT / "tests/builders.py").read_bytes())
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.update(f"{path.relative_to(ROOT)}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def explained():
    """(file, name) of each survivor that is explained -> why nothing can catch it."""
    told = tomllib.loads(SURVIVORS.read_text())
    return {(file, name): why for file, names in told.items() for name, why in names.items()}


class Search:
    """The mutants of some files, and what is known of each."""

    def __init__(self, names=()):
        self.mutants = [mutant for file in names or files() for mutant in of_file(file)]
        self.edition = edition()
        self._known = json.loads(STATE.read_text()) if STATE.exists() else {}
        self.caught = {}  # mutant -> by what
        for mutant in self.mutants:
            known = self._known.get(f"{mutant.file} {mutant.name}")
            if known is not None and known["edition"] == self.edition:
                self.caught[mutant] = known["caught"]

    @property
    def left(self):
        """Those not tried yet."""
        return [mutant for mutant in self.mutants if mutant not in self.caught]

    def hint(self, mutant):
        """What caught it in an earlier edition."""
        known = self._known.get(f"{mutant.file} {mutant.name}")
        return known["caught"] if known is not None else ""

    def take(self, mutant, caught):
        """It was tried."""
        self.caught[mutant] = caught
        line = {"edition": self.edition, "caught": caught}
        self._known[f"{mutant.file} {mutant.name}"] = line
        STATE.parent.mkdir(parents=True, exist_ok=True)
        fresh = STATE.with_suffix(".new")
        fresh.write_text(json.dumps(self._known, indent=0))
        fresh.replace(STATE)

    def run(self, jobs, tell):
        """Try all that are left; `tell` each as it comes."""
        waiting, flying = self.left, {}
        try:
            while waiting or flying:
                while waiting and len(flying) < jobs:
                    mutant = waiting.pop(0)
                    process, path = trying.start(mutant, self.hint(mutant))
                    flying[process] = (mutant, path)
                process, status = os.wait()
                mutant, path = flying.pop(process)
                self.take(mutant, trying.result(path, status))
                tell(mutant, self.caught[mutant])
        finally:
            for process, (_, path) in flying.items():
                trying.stop(process, path)

    @property
    def survivors(self):
        """Those that nothing caught."""
        return [mutant for mutant in self.mutants if self.caught.get(mutant) == ""]

    def faults(self):
        """What is wrong with `survivors.toml`: a sentence each."""
        told = explained()
        mine = {(mutant.file, mutant.name) for mutant in self.survivors}
        tried = {mutant.file for mutant in self.mutants}
        for mutant in self.survivors:
            if not told.get((mutant.file, mutant.name)):
                yield f"{mutant.file}:{mutant.line} survives unexplained: {mutant.name}"
        there = {(mutant.file, mutant.name) for mutant in self.mutants}
        for file, name in told:
            if file in tried and (file, name) not in there:
                yield f"{file} is explained and is no mutant (any more): {name}"
            elif file in tried and (file, name) not in mine:
                yield f"{file} is explained and is caught now: {name}"

    def words(self):
        """The one line at the end."""
        told = explained()
        by = Counter(
            "survived" if not caught else "cases" if caught.startswith("case ") else "tests"
            for caught in self.caught.values()
        )
        unexplained = sum(not told.get((each.file, each.name)) for each in self.survivors)
        return (
            f"mutants {len(self.mutants)}, caught by cases {by['cases']}, by tests {by['tests']},"
            f" survivors {by['survived']}, of them unexplained {unexplained}"
        )
