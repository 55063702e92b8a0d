"""Many cases on all cores, and what a run of them is worth.

A newcomer's mistake: trusting a clean run without looking at what it did. `Totals.tame` says why
it would prove little: a rule that hardly ever refused, or too little that was placed.
"""

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from scheduler.placement import filters
from tests.placement.cases import play_seed
from tests.placement.drawing import FEATURES

REFUSED_MIN = 0.02
"""Each rule refuses in at least this part of all cases."""
FEATURE_MIN = 0.1
PLACED_MIN = 5.0
"""Of a case, on the average."""
RUNS_MIN = 0.1
"""In this part of all cases, a run of equal asks is placed at once."""
UNASKED = frozenset({"node"})
"""Where an ask names a node no other is asked, so this rule is in no answer."""
CHUNK = 100
"""Cases that a process is given at once."""


@dataclass
class Totals:
    """What became of many cases."""

    cases: int = 0
    placed: int = 0
    runs: int = 0
    refusals: Counter = field(default_factory=Counter)
    refused_in: Counter = field(default_factory=Counter)  # rule -> cases
    features: Counter = field(default_factory=Counter)
    mismatches: dict = field(default_factory=dict)  # seed -> what was wrong

    def add(self, other):
        """Count those of another, too."""
        self.cases += other.cases
        self.placed += other.placed
        self.runs += other.runs
        self.refusals += other.refusals
        self.refused_in += other.refused_in
        self.features += other.features
        self.mismatches |= other.mismatches

    def count(self, played):
        """Count one case."""
        self.cases += 1
        self.placed += played.placed
        self.runs += played.runs > 0
        self.refusals.update(played.refusals)
        self.refused_in.update(played.refusals.keys())
        self.features.update(played.features)
        if played.mismatch:
            self.mismatches[played.seed] = played.mismatch

    @property
    def tame(self):
        """Why a clean run of these cases would prove little; empty: it was wild enough."""
        if not self.cases:
            return "too tame: no case"
        for rule in filters.ALL.keys() - UNASKED:
            if self.refused_in[rule] < REFUSED_MIN * self.cases:
                return f"too tame: {rule} refuses in {self.refused_in[rule]} of {self.cases} cases"
        for feature in FEATURES:
            if self.features[feature] < FEATURE_MIN * self.cases:
                return f"too tame: {self.features[feature]} of {self.cases} cases have {feature}"
        if self.placed < PLACED_MIN * self.cases:
            return f"too tame: {self.placed / self.cases:.1f} tasks placed a case"
        if self.runs < RUNS_MIN * self.cases:
            return f"too tame: {self.runs} of {self.cases} cases place a run at once"
        return ""

    def words(self):
        """The one line at the end."""
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(self.refusals.items()))
        seeds = f" in seeds {sorted(self.mismatches)[:20]}" if self.mismatches else ""
        return (
            f"cases {self.cases}, placements {self.placed}, cases with runs {self.runs},"
            f" refusals: {rules}; mismatches: {len(self.mismatches)}{seeds}"
        )


def play(first, count):
    """Play these cases in this process."""
    totals = Totals()
    for seed in range(first, first + count):
        totals.count(play_seed(seed))
    return totals


def run(first, count, *, jobs=None, tell=lambda totals: None):
    """Play these cases in several processes; `tell` the sums from time to time."""
    totals = Totals()
    starts = range(first, first + count, CHUNK)
    lengths = [min(CHUNK, first + count - start) for start in starts]
    with ProcessPoolExecutor(
        jobs or os.cpu_count(),
        mp_context=get_context("spawn"),
        initializer=os.nice,  # it computes only: whatever waits for leases comes first
        initargs=(5,),
    ) as pool:
        for part in pool.map(play, starts, lengths):
            totals.add(part)
            tell(totals)
    return totals
