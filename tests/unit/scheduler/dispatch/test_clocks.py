"""F44: a clock that is off by more than a percent is found; one slow route is not taken for it."""

import random

import pytest

from scheduler.dispatch import clocks
from scheduler.dispatch.clocks import Pacing


def heartbeats(seconds, *, agent_rate=1.0, delay=lambda now: 0.01, boot="b"):
    """What is known of an agent that beats every second for so long."""
    pacing = Pacing()
    for second in range(seconds):
        sent = 500.0 + second * agent_rate
        now = 1000.0 + second
        clocks.heard(pacing, boot, sent, now + delay(now))
    return pacing


@pytest.mark.parametrize("rate", [0.9, 0.95, 0.98, 0.985, 1.015, 1.02, 1.05, 1.1])
@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.3])
def test_a_clock_that_is_off_by_more_than_a_percent_is_found_within_a_minute(rate, jitter):
    rng = random.Random(1)
    pacing = heartbeats(70, agent_rate=rate, delay=lambda _: rng.uniform(0.001, jitter + 0.001))
    assert clocks.objection(clocks.rate(pacing))


@pytest.mark.parametrize("rate", [0.995, 1.0, 1.005])
@pytest.mark.parametrize("seed", range(20))
def test_a_clock_that_is_right_is_never_objected_to_however_slow_messages_are(rate, seed):
    rng = random.Random(seed)
    pacing, now = Pacing(), 1000.0
    for second in range(600):
        now = max(now, 1000.0 + second + rng.uniform(0.0, 0.05))
        if rng.random() < 0.02:
            now += rng.uniform(0.0, 3.0)  # something was held up
        clocks.heard(pacing, "b", 500.0 + second * rate, now)
        assert not clocks.objection(clocks.rate(pacing))


def test_a_route_that_became_slower_once_is_no_rate():
    pacing = heartbeats(120, delay=lambda now: 0.01 if now < 1040 else 1.5)
    assert not clocks.objection(clocks.rate(pacing))


def test_nothing_is_said_before_it_is_known():
    assert clocks.rate(heartbeats(30, agent_rate=0.5)) is None
    assert clocks.objection(None) == ""


def test_a_machine_that_was_restarted_begins_anew():
    pacing = heartbeats(70, agent_rate=0.9)
    clocks.heard(pacing, "another boot", 1.0, 5000.0)
    assert clocks.rate(pacing) is None


def test_the_objection_says_by_how_much():
    assert "2.0% slower" in clocks.objection(0.02)
    assert "3.0% faster" in clocks.objection(-0.03)
