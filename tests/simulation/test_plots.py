"""With all rules on every plot ends well: no promise is broken, and then all is as asked for.

Left out is what cannot end well: a machine that was copied, a node that is forgotten while its
machine lives, and a container that is broken for good.
"""

import pytest

from tests.simulation.focus import Focus
from tests.simulation.nemesis import PLOTS
from tests.simulation.scenario import play
from tests.simulation.workload import LARGE

ENDS_BADLY = {
    "a copied machine comes up while the first one is cut off",
    "an operator forgets a node that has just fallen silent",
    "a copy breaks while its node is away",
}


@pytest.mark.parametrize("name", [name for name in PLOTS if name not in ENDS_BADLY])
def test_a_plot_ends_well(name):
    focus = Focus(kinds=(name,), templates=("only", "share", "web", "data"), has_peace=True)
    verdict = play(1, focus=focus)
    assert not verdict.violations, verdict.words()


@pytest.mark.parametrize("seed", range(2))
def test_large_applies_come_whole_or_not_at_all(seed):
    kinds = (
        "kill the leader",
        "slow store",
        "cut a scheduler from the store",
        "messages come twice",
    )
    verdict = play(seed, focus=Focus(kinds=kinds, templates=LARGE, has_peace=True, seconds=40.0))
    assert not verdict.violations, verdict.words()
