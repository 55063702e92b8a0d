"""The trouble in a simulation: each seed picks which kinds exist, and how often they come.

Swarm testing: a run in which everything fails at once hides what a single kind of fault,
often repeated, would show. The kinds are in `trouble/`.
"""

import asyncio

from tests.simulation.trouble import (
    copies,
    engines,
    guards,
    moves,
    network,
    operators,
    plots,
    processes,
    store,
)
from tests.simulation.trouble.kinds import KINDS, PLOTS

MODULES = (copies, engines, guards, moves, network, operators, plots, processes, store)
"""Imported for what they enter into KINDS and PLOTS."""


class Nemesis:
    """Makes trouble until told otherwise."""

    def __init__(self, world, focus=None):
        """`focus`: what this run is about; None: the seed chooses."""
        self.world = world
        self.rng = rng = world.randomness("nemesis")
        if focus:
            kinds = [PLOTS.get(name) or KINDS[name] for name in focus.kinds]
            self.kinds = {kind: focus.mean_seconds * rng.uniform(0.5, 1.5) for kind in kinds}
            return
        share = rng.choice((0.1, 0.3, 0.3, 0.5))
        calm = rng.choice((0.2, 0.5, 1.0, 2.0))
        chosen = [kind for kind in KINDS.values() if rng.random() < share]
        bugs = [kind for kind in chosen if kind.is_store_bug]
        if len(bugs) > 1:
            # The promises hold under each of them, and not under two together.
            keep = rng.choice(bugs)
            chosen = [kind for kind in chosen if not kind.is_store_bug or kind is keep]
        self.kinds = {kind: kind.mean_seconds * calm * rng.uniform(0.5, 2) for kind in chosen}

    @property
    def names(self):
        """The kinds that this run has."""
        return sorted(kind.name for kind in self.kinds)

    async def run(self):
        """One coroutine for each kind of trouble, until cancelled."""
        async with asyncio.TaskGroup() as background:
            for kind, mean_seconds in self.kinds.items():
                background.create_task(self._repeat(kind, mean_seconds), name=kind.name)

    async def _repeat(self, kind, mean_seconds):
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / mean_seconds))
            self.world.count(kind.name)
            await kind.make(self)
