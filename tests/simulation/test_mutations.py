"""Each rule of the protocol is needed: three recorded seeds fail without it and pass with it.

A newcomer's mistake: taking a seed that passes without its rule for a flaky test. The code has
changed and the seed plays another story now: `make simulate-mutations` searches new ones.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.mutations import MUTATIONS, play_with, play_without, recorded
from tests.simulation.mutations.recorded import SEEDS_EACH

SEEDS = recorded.read()


@pytest.fixture(scope="module")
def verdicts():
    """What became of each recorded seed, without its rule and with all."""
    work = [(name, seed, rule) for name in SEEDS for seed in SEEDS[name] for rule in (False, True)]
    with ProcessPoolExecutor(
        os.cpu_count(),
        mp_context=get_context("spawn"),
        initializer=os.nice,  # tests that wait for leases and engines share the machine
        initargs=(10,),
    ) as pool:
        return dict(zip(work, pool.map(_words, work), strict=True))


def _words(which):
    name, seed, has_rule = which
    until = recorded.until(SEEDS[name][seed])
    verdict = play_with(name, seed, until) if has_rule else play_without(name, seed)
    return verdict.violations[0] if verdict.violations else ""


def test_three_seeds_are_recorded_of_each_rule():
    assert {name: len(seeds) for name, seeds in SEEDS.items()} == dict.fromkeys(
        MUTATIONS, SEEDS_EACH
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_rule_that_is_switched_off_is_found(verdicts, name):
    seeds = SEEDS.get(name, {})
    passed = [seed for seed in seeds if not verdicts[name, seed, False]]
    assert not passed, f"{MUTATIONS[name].rule}: seeds {passed} pass without it"
    failed = {seed: verdicts[name, seed, True] for seed in seeds if verdicts[name, seed, True]}
    assert not failed, "with all rules on"
