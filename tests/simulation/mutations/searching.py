"""The search for seeds that fail without a rule and pass with it, and how far it has come."""

import json

from tests.simulation.mutations import MUTATIONS, play_with, play_without, recorded
from tests.simulation.mutations.recorded import SEEDS_EACH
from tests.simulation.ranges import ROOT, edition

STATE = ROOT / ".simulation" / "mutations"
SEEDS_MAX = 2_000
"""How many seeds are tried before a rule is given up as not caught."""
CHUNK = 8


def try_seeds(name, seeds, missing):
    """Play these seeds until so many are found: (name, {seed: what it says without the rule},
    seeds that fail with all rules on, the seeds that were tried)."""
    found, broken, tried = {}, [], []
    for seed in seeds:
        if len(found) == missing:
            break
        tried.append(seed)
        without = play_without(name, seed)
        if not without.violations:
            continue
        if play_with(name, seed).violations:
            broken.append(seed)
            continue
        found[seed] = without.violations[0].split("\n")[0][:160]
    return name, found, broken, tried


class Search:
    """What was found, and how far it has come."""

    def __init__(self, names, first, seeds_max):
        self.names = names
        self.found = {name: {} for name in names}
        self._known = recorded.read()
        self._end = first + seeds_max
        self._edition = edition()
        self._next = dict.fromkeys(names, first)
        if STATE.exists():
            state = json.loads(STATE.read_text())
            if state.pop("edition") == self._edition:
                self._next |= {name: max(first, state.get(name, first)) for name in names}

    def work(self, name):
        """The seeds to try next; empty: none."""
        missing = SEEDS_EACH - len(self.found[name])
        if missing <= 0:
            return [], 0
        if known := self._known.pop(name, None):
            return list(known), missing
        begin = self._next[name]
        return range(begin, min(begin + CHUNK, self._end)), missing

    def take(self, name, found, tried):
        """These were tried."""
        self.found[name] |= found
        if tried and tried[0] >= self._next[name] and tried[-1] - tried[0] == len(tried) - 1:
            self._next[name] = tried[-1] + 1
        kept = recorded.read() | {name: self.found[name]}
        recorded.write(MUTATIONS, kept)
        STATE.parent.mkdir(exist_ok=True)
        STATE.write_text(json.dumps({"edition": self._edition, **self._next}))

    @property
    def missed(self):
        """The rules with fewer seeds than there should be."""
        return [name for name in self.names if len(self.found[name]) < SEEDS_EACH]
