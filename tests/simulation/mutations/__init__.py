"""Each rule of the protocol, how it is switched off, and in which runs that is found.

A newcomer's mistake: switching a rule off so thoroughly that something else breaks at once.
Each mutant replaces one named function by the least that leaves its rule out.
"""

from tests.simulation.mutations import decisions, guards, leading, leases, orders, pacing
from tests.simulation.mutations.table import MUTATIONS, Mutation, play_with, play_without

__all__ = [
    "MUTATIONS",
    "Mutation",
    "decisions",
    "guards",
    "leading",
    "leases",
    "orders",
    "pacing",
    "play_with",
    "play_without",
]
