"""Each rule of the protocol is needed: three recorded seeds fail without it and pass with it.

A newcomer's mistake: taking a seed that passes without its rule for a flaky test. The code has
changed and the seed plays another story now: `make simulate-mutations` searches new ones.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.mutations import MUTATIONS, RECORDED, SEEDS_EACH, play_with, play_without

SEEDS = {
    name: [int(seed) for seed in seeds] for name, seeds in json.loads(RECORDED.read_text()).items()
}


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
    verdict = play_with(name, seed) if has_rule else play_without(name, seed)
    return verdict.violations[0] if verdict.violations else ""


def test_seeds_are_recorded_of_rules_that_there_are_and_three_of_each():
    """That every rule has some is for `make simulate-mutations` to say: its exit code does."""
    assert set(SEEDS) <= set(MUTATIONS)
    assert {name: len(seeds) for name, seeds in SEEDS.items()} == dict.fromkeys(SEEDS, SEEDS_EACH)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SEEDS)
def test_a_rule_that_is_switched_off_is_found(verdicts, name):
    passed = [seed for seed in SEEDS[name] if not verdicts[name, seed, False]]
    assert not passed, f"{MUTATIONS[name].rule}: seeds {passed} pass without it"
    failed = {
        seed: verdicts[name, seed, True] for seed in SEEDS[name] if verdicts[name, seed, True]
    }
    assert not failed, "with all rules on"
