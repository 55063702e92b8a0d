"""Fresh random cases for every commit: the engine answers as the reference does.

`make placement-cases` plays many more. A seed that fails prints how to replay it; the last test
plays the same cases under hypothesis, which shrinks what it finds.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from scheduler.placement import filters
from tests.placement.cases import Case, Played
from tests.placement.drawing import FEATURES
from tests.placement.ranges import Totals, play
from tests.seeds import first_seed

CASES = 2000


@pytest.mark.timeout(900)  # some 10 s of one core, which others use, too
def test_the_engine_answers_as_the_reference_does():
    totals = play(first_seed(), CASES)
    assert not totals.mismatches, "\n".join(
        f"{why}\n  replay: python -m tests.placement {seed} 1"
        for seed, why in list(totals.mismatches.items())[:5]
    )
    assert not totals.tame


RULES = dict.fromkeys(filters.ALL, 20)
HAD = dict.fromkeys(FEATURES, 100)


@pytest.mark.parametrize(
    ("less", "why"),
    [
        ({}, ""),
        ({"refused_in": Counter(RULES | {"spread": 19})}, "spread refuses in 19 of 1000 cases"),
        ({"features": Counter(HAD | {"gpus": 99})}, "99 of 1000 cases have gpus"),
        ({"placed": 4999}, "5.0 tasks placed a case"),
        ({"runs": 99}, "99 of 1000 cases place a run at once"),
        ({"cases": 0}, "no case"),
    ],
)
def test_cases_that_are_too_tame_are_told(less, why):
    fields = {"cases": 1000, "placed": 5000, "runs": 100}
    fields |= {"refused_in": Counter(RULES), "features": Counter(HAD)}
    assert Totals(**(fields | less)).tame == (f"too tame: {why}" if why else "")


def test_a_mismatch_is_told_with_its_seed():
    totals = Totals()
    totals.count(Played(seed=7, mismatch="AssertionError at twins.py:31"))
    assert totals.words().endswith("mismatches: 1 in seeds [7]")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_a_case_that_fails_can_be_shrunk(random):
    Case(random).play()
